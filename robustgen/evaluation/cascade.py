"""Running a suite of attacks: each image is attacked until it falls; per-image verdicts, resumable inside an attack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.contracts import Attack, ManyRuns, Progress, silent
from robustgen.evaluation.checks import check_images, check_logits, flags_after, flags_of
from robustgen.evaluation.suites import find_suite
from robustgen.modes import evaluating, row_stable
from robustgen.objectives import margin
from robustgen.randomness import content_ids, rng_for
from robustgen.records import Verdicts
from robustgen.runs import Pace
from robustgen.threat import ThreatModel


class _Counted(nn.Module):
    """A model whose rows do not depend on their batch, and which counts the images that pass, by kind."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.forward_only = 0
        self.with_gradient = 0

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() and images.requires_grad:
            self.with_gradient += len(images)
        else:
            self.forward_only += len(images)
        return row_stable(self.model, images)


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

    Returns:
        Verdicts, one row an image. An image counts as robust only if it survives all attacks; every success is
        checked again with the untouched model, its distance and its pixels. NaN logits count as broken.

    Raises:
        ValueError: images, labels or logits that cannot be evaluated; `path` holds verdicts of something else.
    """
    attacks = find_suite(suite)
    check_images(images, labels)
    ids = content_ids(images.cpu().numpy())
    names = ("clean", *attacks)
    with evaluating(model), torch.no_grad():
        counted = _Counted(model)
        verdicts = _resumed(path, suite, threat, names, ids, labels)
        if verdicts is None:
            verdicts = _look(counted, images, labels, threat, suite, names, ids, batch_size)
        keeper = _Keeper(verdicts, path)
        classes = verdicts.clean_logits.shape[1]
        costs = [_runs(attack, classes)[2] for attack in attacks.values()]
        for number, attack in enumerate(attacks.values(), start=1):

            def tell(
                share: float, where: str, before: int = sum(costs[: number - 1]), now: int = costs[number - 1]
            ) -> None:
                standing = int(verdicts.robust.sum())
                done = round(standing * (before + share * now))
                progress(done, standing * sum(costs), "passes", f"{where}, {standing} of {len(verdicts)} stand")

            _face(counted, images, labels, threat, verdicts, number, attack, seed, batch_size, keeper, tell)
        verdicts.flags = tuple(dict.fromkeys((*verdicts.flags, *flags_after(verdicts.right, classes))))
        keeper.save(now=True)
    return verdicts


def _resumed(
    path: Path | None, suite: str, threat: ThreatModel, names: tuple[str, ...], ids: np.ndarray, labels: Tensor
) -> Verdicts | None:
    if path is None or not path.exists():
        return None
    found = Verdicts.load(path)
    same = (
        (found.suite, found.threat, found.attacks) == (suite, str(threat), names)
        and np.array_equal(found.ids, ids)
        and np.array_equal(found.labels, labels.cpu().numpy())
    )
    if not same:
        raise ValueError(
            f"{path} holds verdicts of {found.suite} at {found.threat} on {len(found)} images, not of this evaluation; "
            "choose another place, or remove it"
        )
    return found


@torch.no_grad()
def _look(
    model: _Counted,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    suite: str,
    names: tuple[str, ...],
    ids: np.ndarray,
    batch_size: int,
) -> Verdicts:
    """The clean predictions: what is wrong already falls to attack 0."""
    logits = torch.cat([model(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])
    check_logits(logits, labels)
    verdicts = Verdicts.unjudged(suite, str(threat), names, ids, labels.cpu().numpy(), logits.shape[1])
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
    verdicts.flags = tuple(flags_of(model, images[first], labels[first], logits[first]))
    return verdicts


class _Keeper:
    """Saves verdicts as they come, at their pace."""

    def __init__(self, verdicts: Verdicts, path: Path | None):
        self.verdicts, self.path = verdicts, path
        self.pace = Pace()

    def save(self, now: bool = False) -> None:
        if self.path is not None and (now or self.pace.due()):
            with self.pace.saving():
                self.verdicts.save(self.path)


def _runs(attack: Attack, classes: int) -> tuple[ManyRuns | None, int, int]:
    """An attack as one of many runs, how many those are, and about how many passes all of them take an image."""
    if hasattr(attack, "aims"):
        many = cast(ManyRuns, attack)
        count = many.runs(classes)
        return many, count, count * getattr(many.attack, "steps", 1)
    return None, 1, getattr(attack, "steps", 1)


def _face(
    model: _Counted,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    verdicts: Verdicts,
    number: int,
    attack: Attack,
    seed: int,
    batch_size: int,
    keeper: _Keeper,
    tell: Callable[[float, str], None],
) -> None:
    """One attack, run by run, on the images that still stand; `tell(share of the attack done, where)` as it goes."""
    name = verdicts.attacks[number]
    many, runs, _ = _runs(attack, verdicts.clean_logits.shape[1])
    clean_logits = torch.from_numpy(verdicts.clean_logits).to(images.device)
    for run in range(runs):
        rows = verdicts.entrants(number, run)
        for first in range(0, len(rows), batch_size):
            here = rows[first : first + batch_size]
            index = torch.from_numpy(here).to(images.device)
            some, some_labels = images[index], labels[index]
            aims = many.aims(run, clean_logits[index], some_labels) if many else some_labels
            rng = rng_for(seed, "evaluate", name, run, device=images.device).each(verdicts.ids[here])
            before = model.forward_only, model.with_gradient
            found = (many.attack if many else attack)(model, some, aims, threat, rng)
            _judge(model, some, some_labels, found, threat, verdicts, here, number, run)
            verdicts.passes[number] += model.forward_only - before[0], model.with_gradient - before[1]
            verdicts.runs_faced[here] = run + 1
            keeper.save()
            tell((run + (first + len(here)) / len(rows)) / runs, f"{name} {run + 1}/{runs}")
    verdicts.pass_on(number)


@torch.no_grad()
def _judge(
    model: _Counted,
    images: Tensor,
    labels: Tensor,
    found: Tensor,
    threat: ThreatModel,
    verdicts: Verdicts,
    rows: np.ndarray,
    number: int,
    run: int,
) -> None:
    """Never trust an attack: the model is asked again, and an image outside the threat model counts as no attack."""
    logits = model(found)
    finite = torch.isfinite(logits).all(1)
    fell = ((logits.argmax(1) != labels) | ~finite) & threat.contains(found, images)
    flags = fell.cpu().numpy()
    where = rows[flags]
    verdicts.fell_to[where] = number
    verdicts.fell_in_run[where] = run
    verdicts.distance[where] = threat.distance(found, images)[fell].float().cpu().numpy()
    verdicts.margin[where] = margin(logits, labels)[fell].float().cpu().numpy()
