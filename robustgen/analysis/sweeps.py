"""Robust accuracy over the radius and over the number of attack steps (arXiv:2103.01946, App. C).

The attack is Auto-PGD on the cross-entropy with one restart. Images that are misclassified when clean are not attacked.
All others are attacked from scratch at every value, even if broken before, so that rises of robust accuracy are
visible. An image has the same random start, scaled to the radius, at all values of both sweeps: results differ by the
value only, and the two sweeps agree where radius and steps are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.analysis.contracts import Subject
from robustgen.attacks import APGD
from robustgen.contracts import Progress, silent
from robustgen.evaluation.checks import check_images, check_logits
from robustgen.modes import BatchInvariant, evaluating
from robustgen.objectives import cross_entropy, margin
from robustgen.randomness import Rng, content_ids, rng_for
from robustgen.records.record import BROKEN, PENDING, ROBUST, About
from robustgen.records.sweeps import RadiusSweepRecord, StepSweepRecord, SweepRecord
from robustgen.storage.files import SaveInterval
from robustgen.threat import ThreatModel

_MULTIPLES = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Default radii in units of eps, up to `gray_radius`."""

AnySweep = TypeVar("AnySweep", bound=SweepRecord)


def gray_radius(images: Tensor, norm: str) -> float:
    """The radius within which every image of [0, 1] can be turned into the same gray image.

    It is 1/2 in linf and sqrt(pixels) / 2 in l2. At this radius at most the images of one class can remain robust.
    """
    return 0.5 if norm == "linf" else 0.5 * images[0].numel() ** 0.5


@dataclass(frozen=True)
class RadiusSweep:
    """Robust accuracy over the radius, under Auto-PGD on the cross-entropy: it must fall, and reach about 0."""

    steps: int = 100
    """Steps of Auto-PGD."""
    radii: tuple[float, ...] = ()
    """Radii in pixels of [0, 1]; default: multiples of eps up to `gray_radius`."""

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        _check_ascending("radii", self.radii)

    def __call__(
        self,
        subject: Subject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> RadiusSweepRecord:
        """Sweep over the radii.

        Raises:
            ValueError: images or logits are invalid, or `path` is a record of something else.
        """
        check_images(subject.images, subject.labels)
        threat = subject.threat
        gray = gray_radius(subject.images, threat.norm)
        radii = self.radii or _default_radii(threat.eps, gray)
        attack = APGD(self.steps, cross_entropy)
        attempts = [(ThreatModel(threat.norm, radius), attack) for radius in radii]
        columns = {"values": np.array(radii, dtype=np.float64), "grey": np.array(gray)}
        about = About(repr(self), str(threat), seed, subject.made_for)
        return _sweep(RadiusSweepRecord, columns, attempts, subject, about, batch_size, path, progress)


@dataclass(frozen=True)
class StepSweep:
    """Robust accuracy over the steps of Auto-PGD on the cross-entropy: it must fall, and then level off."""

    steps: tuple[int, ...] = (5, 10, 20, 50, 100, 200, 500, 1000)
    """Numbers of steps, ascending."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("a step sweep needs at least one number of steps")
        _check_steps(*self.steps)
        _check_ascending("steps", self.steps)

    def __call__(
        self,
        subject: Subject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> StepSweepRecord:
        """Sweep over the numbers of steps.

        Raises:
            ValueError: images or logits are invalid, or `path` is a record of something else.
        """
        attempts = [(subject.threat, APGD(steps, cross_entropy)) for steps in self.steps]
        columns = {"values": np.array(self.steps, dtype=np.int64)}
        about = About(repr(self), str(subject.threat), seed, subject.made_for)
        return _sweep(StepSweepRecord, columns, attempts, subject, about, batch_size, path, progress)


def _default_radii(eps: float, gray: float) -> tuple[float, ...]:
    if eps == 0:
        raise ValueError("a radius sweep needs a threat model with eps above 0, got 0; pass radii=...")
    top = max(gray, eps)
    return (*(multiple * eps for multiple in _MULTIPLES if multiple * eps < top), top)


def _check_steps(*counts: int) -> None:
    for steps in counts:
        if steps != int(steps) or steps < 1:
            raise ValueError(f"steps must be whole numbers from 1 up, got {steps:g}")


def _check_ascending(name: str, values: tuple[float, ...]) -> None:
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError(f"{name} must ascend, got {', '.join(f'{value:g}' for value in values)}")


@torch.no_grad()
def _sweep(
    kind: type[AnySweep],
    columns: dict[str, np.ndarray],
    attempts: list[tuple[ThreatModel, APGD]],
    subject: Subject,
    about: About,
    batch_size: int,
    path: Path | None,
    progress: Progress,
) -> AnySweep:
    """Run every attempt on every image that is classified correctly when clean, saving and resuming at `path`."""
    images, labels = subject.images, subject.labels
    check_images(images, labels)
    ids = content_ids(images.cpu().numpy())
    with evaluating(subject.model):
        model = BatchInvariant(subject.model)
        sweep = kind.resume_on(path, about, ids, labels.cpu().numpy())
        if sweep is None:
            sweep = _untried(kind, columns, model, images, labels, about, ids, len(attempts), batch_size)
        if sweep.finished and path is not None and path.exists():
            return sweep
        pace = SaveInterval()
        costs = [attack.steps if threat.eps else 0 for threat, attack in attempts]
        right = int(sweep.right.sum())
        for at, (threat, attack) in enumerate(attempts):
            rows = np.flatnonzero(sweep.stands[:, at] == PENDING)
            for first in range(0, len(rows), batch_size):
                here = rows[first : first + batch_size]
                index = torch.from_numpy(here).to(images.device)
                rng = rng_for(about.seed, "analyse", "sweep", device=images.device).each(ids[here])
                stands, margins = _attempt(model, images[index], labels[index], threat, attack, rng)
                sweep.stands[here, at], sweep.margin[here, at] = stands, margins
                if path is not None and pace.due():
                    with pace.saving():
                        sweep.save(path)
                robust = sweep.accuracy(at)
                done = right * sum(costs[:at]) + costs[at] * int((sweep.stands[sweep.right, at] != PENDING).sum())
                note = f"{sweep.axis} {sweep.show(at)}, {robust.count} of {robust.total} robust"
                progress(done, right * sum(costs), "passes", note)
        if path is not None:
            sweep.save(path)
    return sweep


def _untried(
    kind: type[AnySweep],
    columns: dict[str, np.ndarray],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    about: About,
    ids: np.ndarray,
    values: int,
    batch_size: int,
) -> AnySweep:
    """The state before the first attack: images that are misclassified when clean are BROKEN at all values."""
    logits = torch.cat([model(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])
    check_logits(logits, labels)
    right = ((logits.argmax(1) == labels) & torch.isfinite(logits).all(1)).cpu().numpy()
    rows: dict[str, Any] = {
        "ids": ids,
        "labels": labels.cpu().numpy(),
        "right": right,
        "stands": np.where(right[:, None], PENDING, BROKEN).astype(np.int8).repeat(values, axis=1),
        "margin": np.full((len(images), values), np.nan, dtype=np.float32),
    }
    return kind(about=about, **rows, **columns)


def _attempt(
    model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, attack: APGD, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) ROBUST or BROKEN, and (n,) the margin at the attack's result.

    Results are verified: the model classifies them again, and images outside the threat model do not count.
    """
    points = attack(model, images, labels, threat, rng) if threat.eps else images
    logits = model(points)
    wrong = (logits.argmax(1) != labels) | ~torch.isfinite(logits).all(1)
    fell = wrong & threat.contains(points, images)
    return np.where(fell.cpu().numpy(), BROKEN, ROBUST), margin(logits, labels).float().cpu().numpy()
