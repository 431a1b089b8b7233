"""Run folders as a run leaves them, made of drawn verdicts: for reports, which read records and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from robustgen.config.recipe import Recipe
from robustgen.records.arc import ARCRecord
from robustgen.records.certificates import ABSTAINED, Certificates
from robustgen.records.history import History
from robustgen.records.quality import SHOWN, Estimate, Quality, QualityAbout, neighbors_file
from robustgen.records.record import BROKEN, ROBUST
from robustgen.records.record import About as AnalysisAbout
from robustgen.records.verdicts import UNBROKEN, Verdicts, adversarial_file, clean_file
from robustgen.storage.arrays import save_arrays, write_array
from robustgen.storage.files import write_json
from robustgen.storage.run_folder import RunDir

CLASSES = [str(k) for k in range(10)]
COUNT = 400
"""Test images, the last of scikit-learn's digits."""


def digits_of_the_test() -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    return np.round(digits.images[-COUNT:, :, :, None] * 255 / 16).astype(np.uint8), digits.target[-COUNT:]


def drawn_verdicts(labels: np.ndarray, robust: float, suite: str, rng: np.random.Generator) -> Verdicts:
    """About 95 % right, about a share of `robust` standing; who is broken is taken for the next class."""
    verdicts = Verdicts.unjudged(suite, "linf:0.2", ("clean", "apgd"), np.arange(len(labels)), labels, 10)
    luck = rng.random(len(labels))
    wrong, broken = luck > 0.95, (luck > robust) & (luck <= 0.95)
    verdicts.clean_prediction[:] = np.where(wrong, (labels + 3) % 10, labels)
    verdicts.clean_logits[:] = np.eye(10)[verdicts.clean_prediction]
    verdicts.fell_to[wrong], verdicts.fell_to[broken] = 0, 1
    verdicts.faced[:] = np.where(verdicts.fell_to == UNBROKEN, 2, verdicts.fell_to)
    verdicts.broken_logits[broken] = np.eye(10)[(labels[broken] + 1) % 10]
    return verdicts


def write_run(folder: Path, recipe: Recipe, robust: dict[str, float], images: bool = False) -> RunDir:
    """A finished run in which each arm named in `robust` has about that robust accuracy."""
    run, rng = RunDir(folder), np.random.default_rng(recipe.seed)
    pixels, labels = digits_of_the_test()
    counts = {"train": 100, "validation": 250, "test": COUNT}
    write_json(run.recipe, recipe.to_json())
    write_json(run.environment, {"python": "3"})
    write_json(run.timings, {"data": 1.0, "train real-0": 20.0})
    write_json(folder / "data.json", {"name": "digits", "classes": CLASSES, "shape": [1, 8, 8], "counts": counts})
    some = np.concatenate([np.flatnonzero(labels == k)[:4] for k in range(10)])
    save_arrays(run.real_samples, {"images": pixels[some], "labels": labels[some]})
    for arm, share in robust.items():
        path = run.verdicts(arm, recipe.evaluation.suite)
        verdicts = drawn_verdicts(labels, share, recipe.evaluation.suite, rng)
        verdicts.save(path)
        write_json(path.with_suffix(".done"), {"classifier": f"{arm}-0"})
        if images:
            step = 0.2 * np.where(verdicts.fell_to == 1, 1, 0)[:, None, None, None] * rng.choice([-1, 1], pixels.shape)
            attacked = (pixels / 255 + step).clip(0, 1).astype(np.float32).transpose(0, 3, 1, 2)
            write_array(clean_file(path), pixels)
            write_array(adversarial_file(path), attacked)
        _write_training(run, arm, share, rng, recipe.training(arm).loss != "plain")
        if arm in recipe.certified:
            _write_certificates(run, recipe, arm, share, labels)
    for number, name in enumerate(recipe.generators):
        _write_generator(run, name, number, recipe.seed, pixels, labels, some)
    return run


def _write_training(run: RunDir, arm: str, share: float, rng: np.random.Generator, validated: bool) -> None:
    history, validation = History(), History()
    for step in range(1, 41):
        history.add(step=step, loss=2.3 / step**0.3)
    for step in range(5, 41, 5):
        averaged = share * (1 - np.exp(-step / 10)) + 0.01 * rng.normal()
        raw = averaged - 0.002 * max(0, step - 20)
        validation.add(step=step, averaged_robust=averaged, raw_robust=raw, averaged_clean=0.9, raw_clean=0.9)
    folder = run.classifier(arm, 0)
    history.save(folder / "history.npz")
    if validated:
        validation.save(folder / "validation.npz")


def _write_certificates(run: RunDir, recipe: Recipe, arm: str, share: float, labels: np.ndarray) -> None:
    """A share of the images certified up to a radius of twice that share, the others abstaining."""
    assert recipe.certification is not None
    settings, path = recipe.certification, run.certificates(arm)
    about = {"selection": settings.selection, "samples": settings.samples, "alpha": settings.alpha}
    blank = Certificates.blank(
        np.arange(len(labels)), labels, 64, sigma=settings.sigma, seed=recipe.seed, model=arm, **about
    )
    certain = np.arange(len(labels)) < round(share * len(labels))
    radius = np.where(certain, 2 * share * (1 + np.arange(len(labels))) / certain.sum(), 0.0)
    predicted = np.where(certain, labels, ABSTAINED)
    replace(blank, predicted=predicted, spent=np.ones_like(labels), radius=radius).save(path)
    write_json(path.with_suffix(".done"), {"classifier": f"{arm}-0"})


def _write_generator(run, name, number, seed, pixels, labels, some) -> None:
    proxy, rng = run.proxy(name), np.random.default_rng([number, seed])
    write_json(proxy / "manifest.json", {"generator": {"solver": "heun", "evaluations": 9}})
    for column in ("label", "condition"):
        write_array(proxy / f"{column}.npy", labels)
    write_array(proxy / "kept.npy", np.ones(COUNT, dtype=bool))
    save_arrays(proxy / "preview.npz", {"images": pixels[some], "labels": labels[some]})
    fid = Estimate(5.0 + 3 * number + rng.normal(), COUNT, 100)
    draws = 60
    Quality(
        about=QualityAbout("digits", tuple(CLASSES), COUNT, 100, COUNT, "a classifier", "pixels", seed),
        estimates={"classifier-fid": fid},
        of_test={"classifier-fid": Estimate(2.0, COUNT, 100)},
        class_fid=np.ones(10), class_counts=np.full((10, 2), 10), confusion=np.diag(np.full(10, 40)), asked=True,
        rounds=1, sample=np.arange(draws), source=rng.integers(0, 3, draws).astype(np.int8), index=np.arange(draws),
        distance=np.ones(draws), train_index=np.zeros(draws, dtype=int), train_distance=rng.random(draws),
        train_spacing=rng.random(draws), test_distance=rng.random(draws), inside=rng.random(draws) < 0.8,
        density=np.ones(draws, dtype=np.int32), recalled=rng.random(draws) < 0.7, covered=rng.random(draws) < 0.7,
        copies=np.zeros(2, dtype=int),
    ).save(run.quality(name))  # fmt: skip
    rows = rng.integers(0, COUNT, (3, SHOWN))
    near = dict(zip(("samples", "nearest", "nearest_train"), pixels[rows], strict=True))
    save_arrays(neighbors_file(run.quality(name)), {**near, "source": rng.integers(0, 3, SHOWN)})
    told = rng.random((80, 3)) < np.array([0.9, 0.7, 0.5]) - 0.03 * number
    path = run.closeness(name, "arc")
    ARCRecord(
        about=AnalysisAbout("Arc()", "linf:0.2", seed), radii=np.array([0.0, 0.1, 0.2]), ids=np.arange(80),
        real=np.arange(80) < 40, stands=np.where(told, ROBUST, BROKEN).astype(np.int8),
        score=np.zeros((80, 3), dtype=np.float32), ended=np.array(True),
    ).save(path)  # fmt: skip
    write_json(path.with_suffix(".done"), {"analysis": "arc"})
