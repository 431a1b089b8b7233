"""Running a suite of attacks: each image is attacked until it falls; per-image verdicts, resumable inside an attack."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.attacks.common import AttackResult, NoGradient
from robustgen.contracts import Attack, MultiRunAttack, Progress, silent
from robustgen.evaluation.checks import NO_GRADIENT, check_images, check_logits, flags_after, flags_of, training_flag
from robustgen.evaluation.prepare import prepared
from robustgen.evaluation.suites import find_suite
from robustgen.modes import batch_invariant, evaluating
from robustgen.objectives import margin
from robustgen.randomness import Rng, content_ids, rng_for
from robustgen.records.verdicts import Verdicts, adversarial_file
from robustgen.storage.arrays import write_array
from robustgen.storage.files import SaveInterval, read_json, write_json
from robustgen.storage.weights import weights_digest
from robustgen.threat import ThreatModel


class _CountingModel(nn.Module):
    """A model whose rows do not depend on their batch; counts images that pass, and sees whether gradients vanish."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.forward_only = 0
        self.with_gradient = 0
        self.calls = 0
        self.flat: Tensor | None = None
        """Whose first gradient was zero everywhere, since `watch`."""
        self._watching = False
        self.tell: Callable[[int], None] = lambda calls: None

    def watch(self) -> None:
        """Look at the next gradient; count calls anew."""
        self._watching, self.flat, self.calls = True, None, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.tell(self.calls)
        if torch.is_grad_enabled() and images.requires_grad:
            self.with_gradient += len(images)
            if self._watching:
                self._watching = False
                images.register_hook(self._clean_pass)
        else:
            self.forward_only += len(images)
        return batch_invariant(self.model, images)

    def _clean_pass(self, gradient: Tensor) -> None:
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
    progress: Progress = silent,
) -> Verdicts:
    """Which images a model classifies correctly whatever the adversary does, as far as a suite of attacks can tell.

    Args (N images, K classes):
        model: images (N, C, H, W) in [0, 1] to logits (N, K); used in evaluation mode and left as found.
        images: float32 in [0, 1], on the model's device.
        labels: (N,) integers in [0, K).
        threat: norm and radius.
        suite: a name in `evaluation.suites.SUITES`.
        seed: of the random starts. An image's numbers depend on its content, the attack and the run alone, so that
            neither the order of the images nor the batch size changes a verdict.
        batch_size: images attacked together.
        path: where verdicts are saved as they come, and taken up again.
        keep_images: also keep each image as it was broken, in `adversarial_file(path)`; needs `path`.
        prepare: let attacks climb a faster copy of the model (`evaluation.prepare`), which only proposes.

    Returns:
        Verdicts, one row an image. An image counts as robust only if it survives all attacks; every success is
        checked again with the untouched model, its distance and its pixels. NaN logits count as broken. With a path,
        seconds spent on each attack are kept beside it, in `times_file(path)`: they are no part of the verdicts.

    Raises:
        ValueError: images, labels or logits that cannot be evaluated; `path` holds verdicts of something else.
    """
    check_images(images, labels)
    if keep_images and path is None:
        raise ValueError("keep_images needs a path to keep them at")
    ids = content_ids(images.cpu().numpy())
    training = training_flag(model)
    with evaluating(model), torch.no_grad(), rng_for(seed, "evaluate", "torch").seeding_torch():
        made_for = f"{weights_digest(model)} seed {seed} eps {threat.eps!r}"
        verdicts = _resumed(path, suite, threat, ids, labels, made_for)
        if verdicts is None:
            verdicts = _clean_pass(_CountingModel(model), images, labels, threat, suite, ids, batch_size)
            verdicts.made_for = made_for
        classes = verdicts.clean_logits.shape[1]
        attacks = find_suite(suite, threat.norm, classes).attacks
        bench = _Evaluator(model, images, labels, threat, verdicts, seed, batch_size, prepare)
        keeper = _VerdictWriter(verdicts, path, images if keep_images else None)
        costs = [_runs(attack, classes)[2] for attack in attacks.values()]
        for number, attack in enumerate(attacks.values(), start=1):

            def tell(
                share: float, where: str, before: int = sum(costs[: number - 1]), now: int = costs[number - 1]
            ) -> None:
                standing = int(verdicts.robust.sum())
                done = round(standing * (before + share * now))
                progress(done, standing * sum(costs), "passes", f"{where}, {standing} of {len(verdicts)} stand")

            _run_attack(bench, number, attack, keeper, tell)
        verdicts.flags = tuple(dict.fromkeys((*training, *verdicts.flags, *flags_after(verdicts))))
        keeper.save(now=True)
    return verdicts


def times_file(path: Path) -> Path:
    """Where the seconds that each attack took are kept."""
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
            "(model, seed, images, suite and radius must agree); choose another place, or remove it"
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
    """The clean predictions: what is wrong already falls to attack 0."""
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
    verdicts.flags = tuple(flags_of(model.model, images[first], labels[first], logits[first]))
    return verdicts


class _Evaluator:
    """What every attack of an evaluation works on."""

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
        self.judge = _CountingModel(model)
        self.fast = _CountingModel(prepared(model, images[:16])) if prepare else self.judge
        self.clean_logits = torch.from_numpy(verdicts.clean_logits).to(images.device)

    @property
    def passes(self) -> np.ndarray:
        """(2,) images through the models so far: without and with a gradient."""
        models = {self.judge, self.fast}
        return np.array([sum(m.forward_only for m in models), sum(m.with_gradient for m in models)])


class _VerdictWriter:
    """Saves verdicts as they come, at their pace; before them the broken images, so that none is ever missing."""

    def __init__(self, verdicts: Verdicts, path: Path | None, images: Tensor | None):
        self.verdicts, self.path = verdicts, path
        self.pace = SaveInterval()
        self.broken: np.memmap | None = None
        self.seconds: dict[str, float] = {}
        if path is not None and times_file(path).exists():
            self.seconds = read_json(times_file(path))
        if path is not None and images is not None:
            kept = adversarial_file(path)
            if not kept.exists() or not path.exists():
                write_array(kept, images.float().cpu().numpy())
            self.broken = np.lib.format.open_memmap(kept, mode="r+")

    def keep(self, rows: np.ndarray, found: Tensor) -> None:
        if self.broken is not None:
            self.broken[rows] = found.float().cpu().numpy()

    def spent(self, attack: str, seconds: float) -> None:
        self.seconds[attack] = self.seconds.get(attack, 0.0) + seconds

    def save(self, now: bool = False) -> None:
        if self.path is not None and (now or self.pace.due()):
            with self.pace.saving():
                if self.broken is not None:
                    self.broken.flush()
                self.verdicts.save(self.path)
                write_json(times_file(self.path), {name: round(time, 3) for name, time in self.seconds.items()})


def _runs(attack: Attack, classes: int) -> tuple[MultiRunAttack | None, int, int]:
    """An attack as one of many runs, how many those are, and about how many passes all of them take an image."""
    if hasattr(attack, "targets_for"):
        many = cast(MultiRunAttack, attack)
        count = many.runs(classes)
        return many, count, count * getattr(many.attack_in(0), "steps", 1)
    return None, 1, getattr(attack, "steps", 1)


def _run_attack(
    bench: _Evaluator, number: int, attack: Attack, keeper: _VerdictWriter, tell: Callable[[float, str], None]
) -> None:
    """One attack, run by run, on the images that still stand; `tell(share of the attack done, where)` as it goes."""
    verdicts, device = bench.verdicts, bench.images.device
    name = verdicts.attacks[number]
    many, runs, cost = _runs(attack, verdicts.clean_logits.shape[1])
    for run in range(runs):
        rows = verdicts.entrants(number, run)
        for first in range(0, len(rows), bench.batch_size):
            here = rows[first : first + bench.batch_size]
            index = torch.from_numpy(here).to(device)
            images, labels = bench.images[index], bench.labels[index]
            aims = many.targets_for(run, bench.clean_logits[index], labels) if many else labels
            rng = rng_for(bench.seed, "evaluate", name, run, device=device).each(verdicts.ids[here])
            before, began = bench.passes, time.monotonic()
            bench.fast.watch()

            def within(
                calls: int, done: float = run + first / len(rows), share: float = len(here) / len(rows), run: int = run
            ) -> None:
                tell((done + share * min(calls * runs / cost, 1)) / runs, f"{name} {run + 1}/{runs}")

            bench.fast.tell = within
            try:
                found = _search(many.attack_in(run) if many else attack, bench.fast, images, aims, bench.threat, rng)
            except NoGradient as error:
                verdicts.flags = tuple(dict.fromkeys((*verdicts.flags, f"{NO_GRADIENT}: {error}")))
                found = AttackResult(images, torch.full((len(images),), -1, device=device))
            bench.fast.tell = lambda calls: None
            fell = _judge(bench, found, here, number, run, aims)
            keeper.keep(here[fell], found.points[torch.from_numpy(fell).to(device)])
            verdicts.passes[number] += bench.passes - before
            if bench.fast.flat is not None:
                verdicts.flat[number] += int(bench.fast.flat.sum()), len(bench.fast.flat)
            verdicts.runs_faced[here] = run + 1
            keeper.spent(name, time.monotonic() - began)
            keeper.save()
            tell((run + (first + len(here)) / len(rows)) / runs, f"{name} {run + 1}/{runs}")
    verdicts.pass_on(number)


def _search(
    attack: Attack, model: nn.Module, images: Tensor, aims: Tensor, threat: ThreatModel, rng: Rng
) -> AttackResult:
    """What the attack finds, with the steps if it tells them."""
    search = getattr(attack, "search", None)
    if search is not None:
        return cast(AttackResult, search(model, images, aims, threat, rng))
    points = attack(model, images, aims, threat, rng)
    return AttackResult(points, torch.full((len(points),), -1, dtype=torch.int64, device=points.device))


@torch.no_grad()
def _judge(bench: _Evaluator, found: AttackResult, rows: np.ndarray, number: int, run: int, aims: Tensor) -> np.ndarray:
    """Write down who fell. Never trust an attack: the untouched model is asked again, and an image outside the threat
    model counts as no attack."""
    verdicts, threat = bench.verdicts, bench.threat
    index = torch.from_numpy(rows).to(bench.images.device)
    images, labels = bench.images[index], bench.labels[index]
    logits = bench.judge(found.points)
    finite = torch.isfinite(logits).all(1)
    fell = ((logits.argmax(1) != labels) | ~finite) & threat.contains(found.points, images)
    flags = fell.cpu().numpy()
    where = rows[flags]
    verdicts.rejected[number] += int(((found.step >= 0) & ~fell).sum())
    verdicts.fell_to[where] = number
    verdicts.fell_in_run[where] = run
    verdicts.fell_at_step[where] = found.step[fell].cpu().numpy()
    verdicts.target[where] = aims[fell][:, 1].cpu().numpy() if aims.ndim == 2 else -1
    verdicts.distance[where] = threat.distance(found.points, images)[fell].float().cpu().numpy()
    verdicts.margin[where] = margin(logits, labels)[fell].float().cpu().numpy()
    verdicts.broken_logits[where] = logits[fell].float().cpu().numpy()
    return flags
