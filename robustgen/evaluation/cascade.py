"""Run a suite of attacks: each image is attacked until it is broken; per-image verdicts, resumable inside an attack."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.attacks.common import AttackResult, NoGradient
from robustgen.contracts import Attack, MultiRunAttack, Progress, silent
from robustgen.evaluation.checks import NO_GRADIENT, check_images, check_logits, flags_after, flags_of, training_flag
from robustgen.evaluation.precision import low_precision_copy
from robustgen.evaluation.prepare import prepared
from robustgen.evaluation.suites import find_suite
from robustgen.modes import BatchInvariant, evaluating
from robustgen.objectives import margin
from robustgen.randomness import content_ids, rng_for
from robustgen.records.verdicts import Verdicts, adversarial_file
from robustgen.runtime.distributed import gathered
from robustgen.storage.arrays import write_array
from robustgen.storage.files import SaveInterval, read_json, write_json
from robustgen.storage.weights import weights_digest
from robustgen.threat import ThreatModel


class _CountingModel(nn.Module):
    """A batch-invariant model that counts the images it sees, and records whether input gradients vanish."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.bare = model
        self.model = BatchInvariant(model)
        self.forward_only = 0
        self.with_gradient = 0
        self.calls = 0
        self.flat: Tensor | None = None
        """(N,) whether the first gradient since `watch` is zero everywhere, per image; None before it."""
        self._watching = False
        self.on_call: Callable[[int], None] = lambda calls: None

    def watch(self) -> None:
        """Record the next gradient; restart counting calls."""
        self._watching, self.flat, self.calls = True, None, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.on_call(self.calls)
        if torch.is_grad_enabled() and images.requires_grad:
            self.with_gradient += len(images)
            if self._watching:
                self._watching = False
                images.register_hook(self._record_gradient)
        else:
            self.forward_only += len(images)
        return cast(Tensor, self.model(images))

    def _record_gradient(self, gradient: Tensor) -> None:
        self.flat = gradient.flatten(1).abs().amax(1) == 0


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
    ids = content_ids(images.cpu().numpy())
    training = training_flag(model)
    with evaluating(model), torch.no_grad(), rng_for(seed, "evaluate", "torch").seeding_torch():
        made_for = f"{weights_digest(model)} seed {seed} eps {threat.eps!r}"
        verdicts = _resumed(path, suite, threat, ids, labels, made_for)
        kept = verdicts.precision if verdicts is not None else None
        if verdicts is None:
            verdicts = _clean_pass(_CountingModel(model), images, labels, threat, suite, ids, batch_size)
            verdicts.made_for = made_for
            verdicts.notes = (*verdicts.notes, *notes)
        verdicts.rows = np.arange(len(images)) if rows is None else np.asarray(rows, dtype=np.int64)
        classes = verdicts.clean_logits.shape[1]
        attacks = find_suite(suite, threat.norm, classes).attacks
        costs = [_runs(attack, classes)[2] for attack in attacks.values()]
        evaluator = _Evaluator(model, images, labels, threat, verdicts, seed, batch_size, prepare)
        evaluator.choose_precision(precision, kept, sum(costs))
        writer = _VerdictWriter(verdicts, path, images if keep_images else None)
        for number, attack in enumerate(attacks.values(), start=1):

            def report(
                share: float, where: str, before: int = sum(costs[: number - 1]), now: int = costs[number - 1]
            ) -> None:
                robust = int(verdicts.robust.sum())
                done = round(robust * (before + share * now))
                progress(done, robust * sum(costs), "passes", f"{where}, {robust} of {len(verdicts)} robust")

            _run_attack(evaluator, number, attack, writer, report)
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
    model: _CountingModel,
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


class _Evaluator:
    """The data that every attack of an evaluation works on."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        verdicts: Verdicts,
        seed: int,
        batch_size: int,
        prepare: bool,
    ):
        self.images, self.labels, self.threat, self.verdicts = images, labels, threat, verdicts
        self.seed, self.batch_size = seed, batch_size
        self.reference = _CountingModel(model)
        self.exact = _CountingModel(prepared(model, images[:16])) if prepare else self.reference
        self.fast = self.exact
        """The model that attacks use first: `exact`, or a copy in bfloat16."""
        self.clean_logits = torch.from_numpy(verdicts.clean_logits).to(images.device)

    @property
    def passes(self) -> np.ndarray:
        """(2,) number of images in forward passes so far: without and with a gradient."""
        models = {self.reference, self.exact, self.fast}
        return np.array([sum(m.forward_only for m in models), sum(m.with_gradient for m in models)])

    def choose_precision(self, precision: str, kept: str | None, passes: int) -> None:
        """Let attacks search in bfloat16 if that is the precision, or auto's choice; write it down in the verdicts.

        `kept` is the precision in which the verdicts were begun, if they were; `passes` are at least made.

        Raises:
            ValueError: the verdicts were begun in the other precision, or the device cannot compute in this one.
        """
        verdicts = self.verdicts
        first = self.images[: self.batch_size]
        low, note = low_precision_copy(self.reference.bare, first, precision, kept, self.exact.bare, passes)
        chosen = "float32" if low is None else "bfloat16"
        if kept not in (None, chosen):
            raise ValueError(
                f"these verdicts were begun with attacks in {kept}, not in {chosen}; evaluate with precision {kept}, "
                "or choose another path"
            )
        verdicts.precision = chosen
        verdicts.notes = tuple(dict.fromkeys((*verdicts.notes, *([note] if note else []))))
        if low is None:
            return
        self.fast = _CountingModel(low)
        parts = range(0, len(self.images), self.batch_size)
        logits = torch.cat([self.fast(self.images[i : i + self.batch_size]) for i in parts])
        differences = (margin(logits, self.labels) - margin(self.clean_logits, self.labels)).abs()
        largest = max(gathered(float(differences.nan_to_num(0).max())))
        verdicts.band = np.maximum(verdicts.band, np.float32(2 * largest))

    def search(self, attack: Attack, name: str, run: int, rows: np.ndarray, targets: Tensor) -> AttackResult:
        """The result of a run on these rows; in bfloat16, rows that rounding could have decided search in float32."""
        found = self._search(self.fast, attack, name, run, rows, targets)
        if self.fast is self.exact:
            return found
        again = self._doubtful(found, rows)
        self.verdicts.repeated[self.verdicts.attacks.index(name)] += int(again.sum()), len(rows)
        if not again.any():
            return found
        exact = self._search(self.exact, attack, name, run, rows[again.cpu().numpy()], targets[again])
        points, step = found.points.clone(), found.step.clone()
        points[again], step[again] = exact.points, exact.step
        return AttackResult(points, step)

    def _search(
        self, model: _CountingModel, attack: Attack, name: str, run: int, rows: np.ndarray, targets: Tensor
    ) -> AttackResult:
        """The result of a run, with the number of steps where the attack reports it."""
        verdicts, images = self.verdicts, self.images[torch.from_numpy(rows).to(self.images.device)]
        rng = rng_for(self.seed, "evaluate", name, run, device=images.device).each(verdicts.ids[rows])
        search = getattr(attack, "search", None)
        failed = torch.full((len(rows),), -1, dtype=torch.int64, device=images.device)
        try:
            if search is not None:
                return cast(AttackResult, search(model, images, targets, self.threat, rng))
            return AttackResult(attack(model, images, targets, self.threat, rng), failed)
        except NoGradient as error:
            verdicts.flags = tuple(dict.fromkeys((*verdicts.flags, f"{NO_GRADIENT}: {error}")))
            return AttackResult(images, failed)

    @torch.no_grad()
    def _doubtful(self, found: AttackResult, rows: np.ndarray) -> Tensor:
        """(N,) bool: the original model does not confirm a success, or some margin came within the band of 0.

        The band of each image widens to twice the difference of the two precisions at the point that was found.
        """
        index = torch.from_numpy(rows).to(self.images.device)
        labels = self.labels[index]
        low, logits = margin(self.fast(found.points), labels), self.reference(found.points)
        exact = margin(logits, labels)
        band = torch.from_numpy(self.verdicts.band[rows]).to(low.device)
        band = torch.maximum(band, 2 * (low - exact).abs().nan_to_num(torch.inf))
        self.verdicts.band[rows] = band.cpu().numpy()
        highest = low if found.margin is None else torch.maximum(low, found.margin)
        broken = (logits.argmax(1) != labels) & self.threat.contains(found.points, self.images[index])
        return ~broken & ((found.step >= 0) | ~(highest < -band))


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
    evaluator: _Evaluator, number: int, attack: Attack, writer: _VerdictWriter, report: Callable[[float, str], None]
) -> None:
    """Run one attack, run by run, on the images that are still robust; `report(share of the attack done, where)`."""
    verdicts, device = evaluator.verdicts, evaluator.images.device
    name = verdicts.attacks[number]
    many, runs, cost = _runs(attack, verdicts.clean_logits.shape[1])
    for run in range(runs):
        rows = verdicts.entrants(number, run)
        for first in range(0, len(rows), evaluator.batch_size):
            here = rows[first : first + evaluator.batch_size]
            index = torch.from_numpy(here).to(device)
            labels = evaluator.labels[index]
            targets = many.targets_for(run, evaluator.clean_logits[index], labels) if many else labels
            before, began = evaluator.passes, time.monotonic()
            evaluator.fast.watch()

            def within(
                calls: int, done: float = run + first / len(rows), share: float = len(here) / len(rows), run: int = run
            ) -> None:
                report((done + share * min(calls * runs / cost, 1)) / runs, f"{name} {run + 1}/{runs}")

            evaluator.fast.on_call = within
            found = evaluator.search(many.attack_in(run) if many else attack, name, run, here, targets)
            evaluator.fast.on_call = lambda calls: None
            fell = _verify(evaluator, found, here, number, run, targets)
            writer.keep(here[fell], found.points[torch.from_numpy(fell).to(device)])
            verdicts.passes[number] += evaluator.passes - before
            if evaluator.fast.flat is not None:
                verdicts.flat[number] += int(evaluator.fast.flat.sum()), len(evaluator.fast.flat)
            verdicts.runs_faced[here] = run + 1
            writer.spent(name, time.monotonic() - began)
            writer.save()
            report((run + (first + len(here)) / len(rows)) / runs, f"{name} {run + 1}/{runs}")
    verdicts.pass_on(number)


@torch.no_grad()
def _verify(
    evaluator: _Evaluator, found: AttackResult, rows: np.ndarray, number: int, run: int, targets: Tensor
) -> np.ndarray:
    """Record which images are broken. Never trust an attack: the original model classifies its result again, and an
    image outside the threat model does not count."""
    verdicts, threat = evaluator.verdicts, evaluator.threat
    index = torch.from_numpy(rows).to(evaluator.images.device)
    images, labels = evaluator.images[index], evaluator.labels[index]
    logits = evaluator.reference(found.points)
    finite = torch.isfinite(logits).all(1)
    fell = ((logits.argmax(1) != labels) | ~finite) & threat.contains(found.points, images)
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
