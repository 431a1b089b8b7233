"""The stages of a recipe wired together. Each leaves a file that appears when it is finished, and is then skipped.

The graph of stages needs no torch; what a stage does imports it when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.recipe import Data, Evaluation, Generator, Keep, Recipe, Sampling, Threat, Training
from robustgen.records import Verdicts, save_arrays
from robustgen.runs import RunDir, read_json, write_json

if TYPE_CHECKING:
    from torch import nn

    from robustgen.contracts import Attack, Loss, Progress
    from robustgen.images import ImageSet
    from robustgen.threat import ThreatModel
    from robustgen.training.classifier import Validate


@dataclass(frozen=True)
class Stage:
    """One box of the flow.

    name    what it does to what: "train edm-0"
    needs   names of the stages before it
    output  the file that exists when it is finished
    work    does it, telling its progress; returns a sentence for the user
    """

    name: str
    needs: tuple[str, ...]
    output: Path
    work: Callable[[Progress], str]

    @property
    def finished(self) -> bool:
        return self.output.exists()


def stages(recipe: Recipe, run: RunDir, device: str = "cpu") -> list[Stage]:
    """All stages of a run, each after those it needs."""
    data, seed = recipe.data, recipe.seed
    found = [
        Stage("data", (), run.root / "data.json", partial(_describe_data, data, run)),
        Stage(
            "labeller",
            ("data",),
            run.labeller / "model.json",
            partial(train, recipe.labeller, data, recipe.threat, None, run.labeller, seed, device),
        ),
    ]
    for name in _used(recipe):
        folder, proxy = run.generator(name), run.proxy(name)
        found += [
            Stage(
                f"fit {name}",
                ("data",),
                folder / "generator.json",
                partial(fit, recipe.generators[name], data, folder, seed, device),
            ),
            Stage(
                f"sample {name}",
                (f"fit {name}",),
                proxy / "manifest.json",
                partial(sample, folder, recipe.sampling, proxy, seed, device),
            ),
            Stage(
                f"label {name}",
                (f"sample {name}", "labeller"),
                proxy / "confidence.npy",
                partial(label, proxy, run.labeller, device),
            ),
            Stage(f"keep {name}", (f"label {name}",), proxy / "preview.npz", partial(keep_best, proxy, recipe.keep)),
        ]
    for arm, contents in recipe.arms.items():
        source = contents.proxy
        models = range(recipe.train.models)
        for model in models:
            found.append(
                Stage(
                    f"train {arm}-{model}",
                    (f"keep {source}" if source else "data",),
                    run.classifier(arm, model) / "model.json",
                    partial(
                        train,
                        recipe.train,
                        data,
                        recipe.threat,
                        run.proxy(source) if source else None,
                        run.classifier(arm, model),
                        1000 * seed + model,
                        device,
                    ),
                )
            )
        found.append(
            Stage(
                f"evaluate {arm}",
                tuple(f"train {arm}-{model}" for model in models),
                run.verdicts(arm, recipe.evaluation.suite).with_suffix(".done"),
                partial(_evaluate_best, recipe, run, arm, device),
            )
        )
    found.append(Stage("report", tuple(f"evaluate {arm}" for arm in recipe.arms), run.report, partial(_report, run)))
    return found


def _used(recipe: Recipe) -> list[str]:
    """Generators that an arm wants."""
    wanted = {arm.proxy for arm in recipe.arms.values()}
    return [name for name in recipe.generators if name in wanted]


def check(recipe: Recipe) -> None:
    """Build everything a recipe names, without data, so that a wrong name is found before the first hour.

    Raises:
        ValueError: an unknown data set, architecture, augmentation, solver or suite; names the known ones.
    """
    from robustgen.augment import AUGMENTATIONS
    from robustgen.datasets import DATASETS
    from robustgen.evaluation.suites import find_suite
    from robustgen.generators.solvers import Sampler
    from robustgen.images import DatasetInfo
    from robustgen.models import build_model

    if recipe.data.name not in DATASETS:
        raise ValueError(f"unknown data set {recipe.data.name!r}; known: {', '.join(DATASETS)}")
    find_suite(recipe.evaluation.suite)
    Sampler(recipe.sampling.solver, recipe.sampling.evaluations)
    for training in (recipe.labeller, recipe.train):
        if training.augment not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {training.augment!r}; known: {', '.join(AUGMENTATIONS)}")
        import torch

        with torch.device("meta"):
            build_model(training.architecture, DatasetInfo("", ("a", "b"), (1, 32, 32), (0.0,), (1.0,)))


def load_data(data: Data) -> Any:
    """The splits of a recipe's images."""
    from robustgen.datasets import load_splits

    return load_splits(data)


def _describe_data(data: Data, run: RunDir, progress: Progress) -> str:
    """Counts, and a few real images for the report."""
    splits = load_data(data)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    save_arrays(run.real_samples, preview(splits.train.images, splits.train.labels, len(splits.train.info.classes)))
    write_json(
        run.root / "data.json",
        {
            "name": data.name,
            "classes": splits.train.info.classes,
            "shape": splits.train.info.shape,
            "counts": {name: len(part) for name, part in parts.items()},
        },
    )
    return ", ".join(f"{len(part)} {name}" for name, part in parts.items()) + " images"


def preview(images: Any, labels: Any, classes: int, each: int = 10) -> dict[str, Any]:
    """The first `each` images of each class, class after class, with their labels."""
    import numpy as np

    rows = np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(classes)])
    return {"images": images[rows], "labels": labels[rows]}


def threat_model(threat: Threat) -> ThreatModel:
    from robustgen.threat import ThreatModel

    return ThreatModel(threat.norm, threat.eps)


def build_loss(settings: Training) -> Loss:
    """The loss of a recipe's settings with its inner attack."""
    from robustgen.attacks import PGD, official_training_attack
    from robustgen.losses import LOSSES
    from robustgen.objectives import cross_entropy, kl_divergence

    if settings.loss == "plain":
        return LOSSES["plain"]()
    objective = kl_divergence if settings.loss == "trades" else cross_entropy
    inner = settings.attack
    attack: Attack = (
        official_training_attack(inner.steps, objective)
        if inner.optimiser == "adam"
        else PGD(inner.steps, inner.step_size, objective=objective)
    )
    if settings.loss == "trades":
        return LOSSES["trades"](beta=settings.beta, attack=attack, statistics=settings.statistics)
    return LOSSES["adversarial"](attack=attack)


def _validator(images: ImageSet, threat: ThreatModel, steps: int, seed: int, device: str) -> Validate:
    """Clean accuracy, and robust accuracy under the papers' evaluation attack, on held-out images."""
    from robustgen.attacks import evaluation_attack
    from robustgen.images import to_unit
    from robustgen.modes import row_stable
    from robustgen.objectives import margin
    from robustgen.randomness import rng_for
    from robustgen.records import Share
    from robustgen.training.classifier import Measured

    pixels, labels = to_unit(images.pixels(device)), images.targets(device)
    attack = evaluation_attack(steps, margin)

    def validate(model: nn.Module) -> Measured:
        import torch

        clean = robust = 0
        with torch.no_grad():
            for first in range(0, len(pixels), 512):
                some, truth = pixels[first : first + 512], labels[first : first + 512]
                right = row_stable(model, some).argmax(1) == truth
                rng = rng_for(seed, "validate", device=device).each(range(first, first + len(some)))
                found = attack(model, some[right], truth[right], threat, rng.rows(right))
                clean += int(right.sum())
                robust += int((row_stable(model, found).argmax(1) == truth[right]).sum()) if len(found) else 0
        return Measured(Share(clean, len(pixels)), Share(robust, len(pixels)))

    return validate


def train(
    settings: Training,
    data: Data,
    threat: Threat,
    proxy: Path | None,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
) -> str:
    """Train one classifier into a folder."""
    from robustgen.augment import AUGMENTATIONS
    from robustgen.models import build_model
    from robustgen.models.saved import save_classifier
    from robustgen.modes import channels_last
    from robustgen.proxy.store import ProxySet
    from robustgen.randomness import rng_for
    from robustgen.training.classifier import train_classifier
    from robustgen.training.mixing import Mixture

    splits = load_data(data)
    info = splits.train.info
    model = channels_last(build_model(settings.architecture, info, rng_for(seed, "initialise"))).to(device)
    mixture = Mixture(
        splits.train,
        ProxySet(proxy) if proxy else None,
        batch_size=settings.schedule.batch_size,
        real_share=settings.real_share if proxy else 1.0,
        smoothing=settings.smoothing,
        smooth=settings.smooth,
        augment=AUGMENTATIONS[settings.augment],
        seed=seed,
        device=device,
    )
    adversary = threat_model(threat)
    robust = settings.loss != "plain"
    validate = (
        _validator(splits.validation, adversary, settings.validation_steps, seed, device)
        if robust and len(splits.validation)
        else None
    )
    trained = train_classifier(
        model,
        mixture,
        build_loss(settings),
        adversary,
        settings,
        folder,
        seed=seed,
        validate=validate,
        progress=progress,
    )
    measured = trained.measured
    save_classifier(
        folder,
        trained.model,
        settings.architecture,
        info,
        threat=str(threat) if robust else None,
        seed=seed,
        step=trained.step,
        validation=None
        if measured is None
        else {
            "clean": [measured.clean.count, measured.clean.total],
            "robust": [measured.robust.count, measured.robust.total],
        },
    )
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    if measured is None:
        return f"trained {settings.schedule.steps} steps"
    return (
        f"best at step {trained.step}: validation clean {100 * measured.clean.value:.1f} %, "
        f"robust {100 * measured.robust.value:.1f} %"
    )


def fit(settings: Generator, data: Data, folder: Path, seed: int, device: str, progress: Progress) -> str:
    """Fit one generative model to the training images alone."""
    from robustgen.generators import build_generator, save_generator
    from robustgen.generators.gaussian import Gaussian
    from robustgen.modes import channels_last
    from robustgen.randomness import rng_for
    from robustgen.training.generator import train_generator

    images = load_data(data).train
    model = build_generator(settings, images.info, rng_for(seed, "initialise generator"))
    if isinstance(model, Gaussian) or settings.kind == "gaussian":
        assert isinstance(model, Gaussian)
        model.fit(images)
        fitted: nn.Module = model
        sentence = f"{images.info.shape} pixels, rank {model.rank}"
    else:
        fitted = train_generator(
            channels_last(model).to(device), images, settings, folder, seed=seed, device=device, progress=progress
        )
        sentence = f"trained {settings.steps} steps"
    save_generator(folder, fitted, settings, images.info, seed=seed, images=len(images))
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return sentence


def sample(generator: Path, settings: Sampling, folder: Path, seed: int, device: str, progress: Progress) -> str:
    """Draw a proxy set from a finished generator."""
    from robustgen.generators import Diffusion, load_generator
    from robustgen.generators.solvers import Sampler
    from robustgen.proxy.sampling import sample_proxies
    from robustgen.proxy.store import digest_of

    model, about = load_generator(generator)
    made_by: dict[str, Any] = {
        "kind": about["settings"]["kind"],
        "weights": digest_of(generator / "weights.safetensors"),
    }
    if isinstance(model, Diffusion):
        model.sampler = Sampler(settings.solver, settings.evaluations)
        made_by |= {"solver": settings.solver, "evaluations": settings.evaluations}
    proxies = sample_proxies(
        model.to(device),
        settings.count,
        folder,
        classes=about["classes"],
        seed=seed,
        batch_size=images_in_a_pass(model.shape, device),
        shard_images=settings.shard_images,
        made_by=made_by,
        device=device,
        progress=progress,
    )
    return f"{len(proxies)} images"


def images_in_a_pass(shape: tuple[int, int, int], device: str) -> int:
    """How many images go through a network together: on a CPU what its caches hold, on a GPU what fills it."""
    pixels = shape[1] * shape[2]
    return max(16, 2**16 // pixels if device == "cpu" else 2**20 // pixels)


def label(proxy: Path, classifier: Path, device: str, progress: Progress) -> str:
    """Give a proxy set pseudo-labels and confidences by a finished classifier."""
    from robustgen.models.saved import load_classifier
    from robustgen.proxy.labeling import pseudo_label
    from robustgen.proxy.store import ProxySet, digest_of

    proxies = ProxySet(proxy)
    model = load_classifier(classifier)
    made_by = {"what": "by a classifier", "weights": digest_of(classifier / "weights.safetensors")}
    batch_size = images_in_a_pass(proxies.shape, device)
    pseudo_label(proxies, model, made_by=made_by, batch_size=batch_size, device=device, progress=progress)
    agreed = (proxies.column("label") == proxies.column("condition")).mean()
    return f"{100 * agreed:.1f} % of the labels are the class asked for"


def keep_best(proxy: Path, settings: Keep, progress: Progress) -> str:
    """Choose which images of a labelled proxy set are used."""
    from robustgen.proxy.filtering import keep
    from robustgen.proxy.store import ProxySet

    proxies = ProxySet(proxy)
    keep(proxies, settings.rule, settings.per_class)
    rows = proxies.kept()
    labels = proxies.column("label")[rows]
    shown = preview(rows, labels, len(proxies.classes))
    save_arrays(proxy / "preview.npz", {"images": proxies.images(shown["images"]), "labels": shown["labels"]})
    return f"{len(rows)} of {len(proxies)} images kept"


def best_model(run: RunDir, arm: str, models: Iterable[int]) -> int:
    """The model of an arm with the best robust accuracy on the validation images; the first among equals."""

    def robust(model: int) -> int:
        measured = read_json(run.classifier(arm, model) / "model.json")["validation"]
        return int(measured["robust"][0]) if measured else 0

    return max(models, key=lambda model: (robust(model), -model))


def _evaluate_best(recipe: Recipe, run: RunDir, arm: str, device: str, progress: Progress) -> str:
    chosen = best_model(run, arm, range(recipe.train.models))
    path = run.verdicts(arm, recipe.evaluation.suite)
    verdicts = judge(
        run.classifier(arm, chosen), recipe.data, recipe.threat, recipe.evaluation, path, recipe.seed, device, progress
    )
    write_json(path.with_suffix(".done"), {"classifier": f"{arm}-{chosen}"})
    return f"model {chosen}: clean {verdicts.clean_accuracy}, robust {verdicts.robust_accuracy}"


def judge(
    classifier: Path,
    data: Data,
    threat: Threat,
    settings: Evaluation,
    path: Path,
    seed: int,
    device: str,
    progress: Progress,
) -> Verdicts:
    """Evaluate one classifier on the test images of a data set."""
    from robustgen.evaluation.cascade import evaluate
    from robustgen.evaluation.suites import find_suite
    from robustgen.images import to_unit
    from robustgen.models.saved import load_classifier

    find_suite(settings.suite)
    model = load_classifier(classifier).to(device).requires_grad_(False)
    test = load_data(data).test
    return evaluate(
        model,
        to_unit(test.pixels(device)),
        test.targets(device),
        threat_model(threat),
        settings.suite,
        seed=seed,
        batch_size=settings.batch_size,
        path=path,
        progress=progress,
    )


def _report(run: RunDir, progress: Progress) -> str:
    from robustgen.report.page import write_report

    write_report(run)
    return str(run.report)
