"""Robust accuracy as the radius or the steps of the attack grow: the sweeps of arXiv:2103.01946, App. C.

The attack is Auto-PGD on the cross-entropy with one restart. What is wrong when clean is never attacked; everything
else is attacked from scratch at every value, whether or not it fell before, so that a rise can be seen. An image has
one random start, scaled to the radius, for all values of both sweeps: points differ by the value alone, and the two
sweeps agree where they meet.
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
from robustgen.records import sweeps
from robustgen.records.loading import load_findings
from robustgen.records.record import BROKEN, PENDING, ROBUST, About
from robustgen.storage.files import SaveInterval
from robustgen.threat import ThreatModel

MULTIPLES = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Default radii in units of eps, as far as they stay below the last one."""

AnySweep = TypeVar("AnySweep", bound=sweeps.Sweep)


def grey_radius(images: Tensor, norm: str) -> float:
    """The radius within which every image of [0, 1] can be made the same grey: 1/2 in linf, sqrt(pixels) / 2 in l2.

    From there on no classifier is right on more than the images of one class: nearly nothing may stand.
    """
    return 0.5 if norm == "linf" else 0.5 * images[0].numel() ** 0.5


@dataclass(frozen=True)
class RadiusSweep:
    """Robust accuracy over the radius: it must fall, and reach about 0 (Auto-PGD on the cross-entropy)."""

    steps: int = 100
    radii: tuple[float, ...] = ()
    """In pixels of [0, 1]; if none is given, multiples of eps up to the radius where every image can be made grey."""

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
    ) -> sweeps.RadiusSweep:
        """Raises ValueError where nothing can be evaluated, or `path` holds something else."""
        check_images(subject.images, subject.labels)
        threat = subject.threat
        grey = grey_radius(subject.images, threat.norm)
        radii = self.radii or _default_radii(threat.eps, grey)
        attack = APGD(self.steps, cross_entropy)
        attempts = [(ThreatModel(threat.norm, radius), attack) for radius in radii]
        columns = {"values": np.array(radii, dtype=np.float64), "grey": np.array(grey)}
        about = About(repr(self), str(threat), seed, subject.made_for)
        return _sweep(sweeps.RadiusSweep, columns, attempts, subject, about, batch_size, path, progress)


@dataclass(frozen=True)
class StepSweep:
    """Robust accuracy over the attack's steps: it must fall, and then stay (Auto-PGD on the cross-entropy)."""

    steps: tuple[int, ...] = (5, 10, 20, 50, 100, 200, 500, 1000)

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
    ) -> sweeps.StepSweep:
        """Raises ValueError where nothing can be evaluated, or `path` holds something else."""
        attempts = [(subject.threat, APGD(steps, cross_entropy)) for steps in self.steps]
        columns = {"values": np.array(self.steps, dtype=np.int64)}
        about = About(repr(self), str(subject.threat), seed, subject.made_for)
        return _sweep(sweeps.StepSweep, columns, attempts, subject, about, batch_size, path, progress)


def _default_radii(eps: float, grey: float) -> tuple[float, ...]:
    if eps == 0:
        raise ValueError("a radius sweep needs a threat model with eps above 0, or radii of its own")
    top = max(grey, eps)
    return (*(multiple * eps for multiple in MULTIPLES if multiple * eps < top), top)


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
    """Every attempt on every image that is right when clean; saved as it goes, taken up where it stopped."""
    images, labels = subject.images, subject.labels
    check_images(images, labels)
    ids = content_ids(images.cpu().numpy())
    with evaluating(subject.model):
        model = BatchInvariant(subject.model)
        if path is not None and path.exists():
            found = load_findings(path).check_same(about, ids, labels.cpu().numpy(), path)
            assert isinstance(found, kind)
            sweep = found
        else:
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
                standing = sweep.accuracy(at)
                done = right * sum(costs[:at]) + costs[at] * int((sweep.stands[sweep.right, at] != PENDING).sum())
                note = f"{sweep.axis} {sweep.show(at)}, {standing.count} of {standing.total} stand"
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
    """The state before the first attack: what is wrong when clean fell everywhere."""
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
    """(n,) whether each image stands, and the margin at what was found.

    Never trust an attack: the model is asked again, and an image outside the threat model counts as none.
    """
    points = attack(model, images, labels, threat, rng) if threat.eps else images
    logits = model(points)
    wrong = (logits.argmax(1) != labels) | ~torch.isfinite(logits).all(1)
    fell = wrong & threat.contains(points, images)
    return np.where(fell.cpu().numpy(), BROKEN, ROBUST), margin(logits, labels).float().cpu().numpy()
