"""Run a suite of attacks: each image is attacked until it is broken; per-image verdicts, resumable inside an attack."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.attacks.common import AttackResult
from robustgen.contracts import Attack, MultiRunAttack, Progress, silent
from robustgen.evaluation.checks import check_images, check_logits, flags_after, flags_of, training_flag
from robustgen.evaluation.searching import CountingModel, Searcher
from robustgen.evaluation.suites import find_suite
from robustgen.modes import evaluating
from robustgen.objectives import margin
from robustgen.randomness import content_ids, rng_for
from robustgen.records.verdicts import Verdicts, adversarial_file
from robustgen.storage.arrays import write_array
from robustgen.storage.files import SaveInterval, read_json, write_json
from robustgen.storage.weights import weights_digest
from robustgen.threat import ThreatModel


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    suite: str = "aa+mt",
    *,
    seed: int = 0,
    batch_size: int = 512,
    path: Path | None = None,
    keep_images: bool = False,
    prepare: bool = True,
    precision: str = "float32",
    rows: np.ndarray | None = None,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Verdicts:
    """Find the images that a model classifies correctly under every attack of a suite.

    Args (N images, K classes):
        model: images (N, C, H, W) in [0, 1] to logits (N, K); used in evaluation mode and restored afterwards.
        images: float32 in [0, 1], on the model's device.
        labels: (N,) integers in [0, K).
        threat: norm and radius of the perturbation.
        suite: a name in `evaluation.suites.SUITES`.
        seed: seed of the random starts. The random numbers of an image depend only on its content, the attack and the
            run, so that neither the order of the images nor the batch size changes a verdict.
        batch_size: number of images attacked at a time.
        path: file in which verdicts are saved while the evaluation runs, and from which it resumes.
        keep_images: also save each adversarial example, in `adversarial_file(path)`; requires `path`.
        prepare: let attacks use a faster copy of the model (`evaluation.prepare`); the model itself verifies them.
        precision: float32; bfloat16: attacks search on a copy in bfloat16 (`evaluation.precision`), and an image's run
            is made again in float32 where rounding could have decided it: where the margin of an iterate came within
            `Verdicts.band` of 0, or the model refused a success; auto: bfloat16 where it is at least 20 % faster.
        rows: (N,) position of each image in its source, to be stored in the verdicts; default 0 .. N - 1.
        notes: sentences about the images, to be stored in the verdicts.

    Returns:
        Verdicts, one row per image. An image counts as robust only if it survives all attacks; every success is
        verified with the original model, its distance and its pixels. NaN logits count as broken. With a path, the
        seconds spent on each attack are saved next to it, in `times_file(path)`: they are not part of the verdicts.

    Raises:
        ValueError: images, labels or logits cannot be evaluated, `path` holds verdicts of another evaluation, or the
            device cannot compute in the precision.
    """
    check_images(images, labels)
    if rows is not None and len(rows) != len(images):
        raise ValueError(f"expected one row number for each of {len(images)} images, got {len(rows)}")
    if keep_images and path is None:
        raise ValueError("keep_images requires a path to save them at; pass path")
    images = images.contiguous()  # as `modes.BatchInvariant` does
    ids = content_ids(images.cpu().numpy())
    training = training_flag(model)
    with evaluating(model), torch.no_grad(), rng_for(seed, "evaluate", "torch").seeding_torch():
        made_for = f"{weights_digest(model)} seed {seed} eps {threat.eps!r}"
        verdicts = _resumed(path, suite, threat, ids, labels, made_for)
        kept = verdicts.precision if verdicts is not None else None
        if verdicts is None:
            verdicts = _clean_pass(CountingModel(model), images, labels, threat, suite, ids, batch_size)
            verdicts.made_for = made_for
            verdicts.notes = (*verdicts.notes, *notes)
        verdicts.rows = np.arange(len(images)) if rows is None else np.asarray(rows, dtype=np.int64)
        classes = verdicts.clean_logits.shape[1]
        attacks = find_suite(suite, threat.norm, classes).attacks
        costs = [_runs(attack, classes)[2] for attack in attacks.values()]
        searcher = Searcher(model, images, labels, threat, verdicts, seed, batch_size, prepare)
        searcher.choose_precision(precision, kept, sum(costs))
        writer = _VerdictWriter(verdicts, path, images if keep_images else None)
        for number, attack in enumerate(attacks.values(), start=1):

            def report(
                share: float, where: str, before: int = sum(costs[: number - 1]), now: int = costs[number - 1]
            ) -> None:
                robust = int(verdicts.robust.sum())
                done = round(robust * (before + share * now))
                progress(done, robust * sum(costs), "passes", f"{where}, {robust} of {len(verdicts)} robust")

            _run_attack(searcher, number, attack, writer, report)
        verdicts.flags = tuple(dict.fromkeys((*training, *verdicts.flags, *flags_after(verdicts))))
        writer.save(now=True)
    return verdicts


def times_file(path: Path) -> Path:
    """The file of the seconds that each attack took."""
    return path.with_name(f"{path.stem}.times.json")


def _resumed(
    path: Path | None, suite: str, threat: ThreatModel, ids: np.ndarray, labels: Tensor, made_for: str
) -> Verdicts | None:
    if path is None or not path.exists():
        return None
    found = Verdicts.load(path)
    same = (
        (found.suite, found.threat, found.made_for) == (suite, str(threat), made_for)
        and np.array_equal(found.ids, ids)
        and np.array_equal(found.labels, labels.cpu().numpy())
    )
    if not same:
        raise ValueError(
            f"{path} holds verdicts of {found.suite} at {found.threat} on {len(found)} images, not of this evaluation "
            "(model, seed, images, suite and radius must agree); choose another path, or remove it"
        )
    return found


@torch.no_grad()
def _clean_pass(
    model: CountingModel,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    suite: str,
    ids: np.ndarray,
    batch_size: int,
) -> Verdicts:
    """Verdicts from the clean predictions: an image that is already misclassified is broken by attack 0."""
    logits = torch.cat([model(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])
    check_logits(logits, labels)
    protocol = find_suite(suite, threat.norm, logits.shape[1])
    names = ("clean", *protocol.attacks)
    verdicts = Verdicts.unjudged(suite, str(threat), names, ids, labels.cpu().numpy(), logits.shape[1])
    verdicts.notes = protocol.notes
    verdicts.passes[0] = len(images), 0
    verdicts.clean_logits = logits.float().cpu().numpy()
    finite = torch.isfinite(logits).all(1)
    wrong = ((logits.argmax(1) != labels) | ~finite).cpu().numpy()
    verdicts.clean_prediction = torch.where(finite, logits.argmax(1), -1).cpu().numpy()
    verdicts.fell_to[wrong] = 0
    verdicts.fell_in_run[wrong] = 0
    verdicts.distance[wrong] = 0
    verdicts.margin = np.where(wrong, margin(logits, labels).float().cpu().numpy(), np.float32(np.nan))
    verdicts.faced[:] = 1
    first = slice(0, min(batch_size, 128))
    verdicts.flags = tuple(flags_of(model.bare, images[first], labels[first], logits[first]))
    return verdicts


class _VerdictWriter:
    """Save verdicts during an evaluation, and adversarial examples before them, so that none is ever missing."""

    def __init__(self, verdicts: Verdicts, path: Path | None, images: Tensor | None):
        self.verdicts, self.path = verdicts, path
        self.interval = SaveInterval()
        self.broken: np.memmap | None = None
        self.seconds: dict[str, float] = {}
        if path is not None and times_file(path).exists():
            self.seconds = read_json(times_file(path))
        if path is not None and images is not None:
            target = adversarial_file(path)
            if not target.exists() or not path.exists():
                write_array(target, images.float().cpu().numpy())
            self.broken = np.lib.format.open_memmap(target, mode="r+")

    def keep(self, rows: np.ndarray, found: Tensor) -> None:
        if self.broken is not None:
            self.broken[rows] = found.float().cpu().numpy()

    def spent(self, attack: str, seconds: float) -> None:
        self.seconds[attack] = self.seconds.get(attack, 0.0) + seconds

    def save(self, now: bool = False) -> None:
        if self.path is not None and (now or self.interval.due()):
            with self.interval.saving():
                if self.broken is not None:
                    self.broken.flush()
                self.verdicts.save(self.path)
                write_json(times_file(self.path), {name: round(time, 3) for name, time in self.seconds.items()})


def _runs(attack: Attack, classes: int) -> tuple[MultiRunAttack | None, int, int]:
    """(multi-run view of an attack or None, number of runs, approximate passes per image over all runs)."""
    if hasattr(attack, "targets_for"):
        many = cast(MultiRunAttack, attack)
        count = many.runs(classes)
        return many, count, count * getattr(many.attack_in(0), "steps", 1)
    return None, 1, getattr(attack, "steps", 1)


def _run_attack(
    searcher: Searcher, number: int, attack: Attack, writer: _VerdictWriter, report: Callable[[float, str], None]
) -> None:
    """Run one attack, run by run, on the images that are still robust; `report(share of the attack done, where)`."""
    verdicts, device = searcher.verdicts, searcher.images.device
    name = verdicts.attacks[number]
    many, runs, cost = _runs(attack, verdicts.clean_logits.shape[1])
    for run in range(runs):
        rows = verdicts.entrants(number, run)
        for first in range(0, len(rows), searcher.batch_size):
            here = rows[first : first + searcher.batch_size]
            index = torch.from_numpy(here).to(device)
            labels = searcher.labels[index]
            targets = many.targets_for(run, searcher.clean_logits[index], labels) if many else labels
            before, began = searcher.passes, time.monotonic()
            searcher.fast.watch()

            def within(
                calls: int, done: float = run + first / len(rows), share: float = len(here) / len(rows), run: int = run
            ) -> None:
                report((done + share * min(calls * runs / cost, 1)) / runs, f"{name} {run + 1}/{runs}")

            searcher.fast.on_call = within
            found, logits = searcher.search(many.attack_in(run) if many else attack, name, run, here, targets)
            searcher.fast.on_call = lambda calls: None
            fell = _record(searcher, found, logits, here, number, run, targets)
            writer.keep(here[fell], found.points[torch.from_numpy(fell).to(device)])
            verdicts.passes[number] += searcher.passes - before
            if searcher.fast.flat is not None:
                verdicts.flat[number] += int(searcher.fast.flat.sum()), len(searcher.fast.flat)
            verdicts.runs_faced[here] = run + 1
            writer.spent(name, time.monotonic() - began)
            writer.save()
            report((run + (first + len(here)) / len(rows)) / runs, f"{name} {run + 1}/{runs}")
    verdicts.pass_on(number)


def _record(
    searcher: Searcher,
    found: AttackResult,
    logits: Tensor,
    rows: np.ndarray,
    number: int,
    run: int,
    targets: Tensor,
) -> np.ndarray:
    """Record which images are broken, by the original model's logits; (N,) bool."""
    verdicts, threat = searcher.verdicts, searcher.threat
    index = torch.from_numpy(rows).to(searcher.images.device)
    images, labels = searcher.images[index], searcher.labels[index]
    fell = searcher.broken(found.points, logits, rows)
    flags = fell.cpu().numpy()
    where = rows[flags]
    verdicts.rejected[number] += int(((found.step >= 0) & ~fell).sum())
    verdicts.fell_to[where] = number
    verdicts.fell_in_run[where] = run
    verdicts.fell_at_step[where] = found.step[fell].cpu().numpy()
    verdicts.target[where] = targets[fell][:, 1].cpu().numpy() if targets.ndim == 2 else -1
    verdicts.distance[where] = threat.distance(found.points, images)[fell].float().cpu().numpy()
    verdicts.margin[where] = margin(logits, labels)[fell].float().cpu().numpy()
    verdicts.broken_logits[where] = logits[fell].float().cpu().numpy()
    return flags
