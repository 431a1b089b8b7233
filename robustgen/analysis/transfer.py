"""Robustness carried over from generated to real images, and the distance that bounds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.analysis.contracts import ProxySubject
from robustgen.analysis.subjects import check_subject, to_floats
from robustgen.analysis.transport import Transport
from robustgen.attacks import APGD, FAB
from robustgen.contracts import Attack, Progress, silent
from robustgen.modes import BatchInvariant, evaluating
from robustgen.objectives import margin
from robustgen.randomness import Rng, content_ids, rng_for
from robustgen.records.record import About
from robustgen.records.transfer import Transfer as Record
from robustgen.records.transport import Transport as Plan
from robustgen.storage.files import SaveInterval
from robustgen.storage.weights import weights_digest
from robustgen.threat import ThreatModel


def largest_distance(images: Tensor, norm: str) -> float:
    """Between any two images within [0, 1]: 1 in linf, sqrt(pixels) in l2, pixels in l1."""
    pixels = images[0].numel()
    return {"linf": 1.0, "l2": pixels**0.5, "l1": float(pixels)}[norm]


@torch.no_grad()
def by_bisection(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, attack: Attack, rng: Rng, *, rounds: int = 8
) -> tuple[Tensor, Tensor]:
    """(N,) distance to the nearest misclassified image that `attack` finds, and (N,) whether it finds any.

    The radius is halved between what was broken and what was not, from the largest distance within the box on; the
    distance is that of the nearest image found, which may be nearer than the radius. Where the attack is perfect it is
    right to within largest / 2^rounds; it is never too small. Where nothing is found it is the largest.

    Args:
        attack: within a given threat model, pgd or the like.
        rng: a stream for each image.
    """
    largest = largest_distance(images, norm)
    low = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    high = torch.full_like(low, largest)
    nearest = torch.full((len(images),), largest, device=images.device)
    broken = torch.zeros_like(low, dtype=torch.bool)
    for number in range(rounds + 1):
        radius = high if number == 0 else (low + high) / 2
        for eps in radius.unique().tolist():  # an attack has one radius: images asked for the same one go together
            rows = (radius == eps).nonzero().squeeze(1)
            threat = ThreatModel(norm, eps)
            found = attack(model, images[rows], labels[rows], threat, rng.rows(rows))
            fell = (model(found).argmax(1) != labels[rows]) & threat.contains(found, images[rows])
            closer = torch.where(fell, threat.distance(found, images[rows]), nearest[rows])
            nearest[rows] = closer.minimum(nearest[rows])
            high[rows] = torch.where(fell, radius[rows], high[rows])
            low[rows] = torch.where(fell, low[rows], radius[rows])
            broken[rows] |= fell
        if number == 0:
            low[broken] = 0  # where nothing falls within the whole box there is nothing to look for
    return nearest, broken


@torch.no_grad()
def minimal_distances(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, rng: Rng, *, attack: FAB, fallback: Attack
) -> tuple[Tensor, Tensor]:
    """(N,) distance from each image to the nearest misclassified one found, and (N,) whether one was found.

    0 where the image itself is misclassified. FAB first; what it found is pulled straight towards the image as long
    as it stays misclassified; where it found nothing, `by_bisection` with `fallback`. Never smaller than the true one.

    Args:
        rng: a stream for each image.
    """
    logits = model(images)
    right = (logits.argmax(1) == labels) & torch.isfinite(logits).all(1)
    distance = torch.zeros(len(images), device=images.device)
    broken = torch.ones_like(right)
    rows = right.nonzero().squeeze(1)
    if not len(rows):
        return distance, broken
    clean, truth = images[rows], labels[rows]
    geometry = ThreatModel(norm, 0.0)
    points, found = attack.nearest(model, clean, truth, geometry, rng.rows(rows))
    points = _pulled_in(model, clean, truth, points)
    lost = ~torch.isfinite(found)
    nearest = geometry.distance(points, clean)
    fallen = ~lost
    if lost.any():
        nearest[lost], fallen[lost] = by_bisection(
            model, clean[lost], truth[lost], norm, fallback, rng.rows(rows[lost])
        )
    distance[rows], broken[rows] = nearest, fallen
    return distance, broken


def _pulled_in(model: nn.Module, images: Tensor, labels: Tensor, points: Tensor, rounds: int = 16) -> Tensor:
    """The nearest misclassified points found by bisection on the segments from the images to the given ones."""
    shape = (-1, *([1] * (images.ndim - 1)))
    low, high = torch.zeros(len(images), device=images.device), torch.ones(len(images), device=images.device)
    for _ in range(rounds):
        middle = (low + high) / 2
        wrong = model(images + middle.view(shape) * (points - images)).argmax(1) != labels
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return images + high.view(shape) * (points - images)


@dataclass(frozen=True)
class Transfer:
    """Average robustness of `subject.model` on real and on generated images, and whether the bound holds.

    The images are those whose conditional Wasserstein distance `transport` has found: on these very samples the bound
    is a theorem, so a gap above it would show an attack that misses nearer images.
    """

    transport: Transport = field(default_factory=lambda: Transport(per_class=100))
    steps: int = 30
    """Of FAB."""
    fallback_steps: int = 20
    """Of Auto-PGD on the margin, where FAB finds nothing."""

    def __post_init__(self) -> None:
        if self.transport.method == "sliced":
            raise ValueError("the transfer bound needs an upper end of the distance: method exact or sinkhorn")

    def __call__(
        self,
        subject: ProxySubject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
        plan: Plan | None = None,
    ) -> Record:
        """Measure; saved as it comes, taken up where it stopped.

        Args:
            plan: what `transport` has found of this subject, if it is there already.

        Raises:
            ValueError: no classifier, a plan of other images, or `path` holds something else.
        """
        check_subject(subject)
        if subject.model is None:
            raise ValueError("the transfer bound is of a classifier: give one")
        plan = self._plan(subject, seed, plan)
        norm = subject.threat.norm
        about = About(repr(self), norm, seed, f"{plan.about.made_for} {weights_digest(subject.model)}")
        record = Record.resume(path, about) or _owed(about, plan)
        pace = SaveInterval()
        images = {"real": (subject.test, plan.real), "generated": (subject.generated, plan.generated)}
        total = len(plan.real) + len(plan.generated)
        with evaluating(subject.model):
            model = BatchInvariant(subject.model)
            for side, (pixels, index) in images.items():
                distance, broken = getattr(record, f"{side}_distance"), getattr(record, f"{side}_broken")
                labels = getattr(record, f"{side}_label")
                owed = np.flatnonzero(np.isnan(distance))
                for first in range(0, len(owed), batch_size):
                    rows = owed[first : first + batch_size]
                    some = to_floats(pixels[torch.from_numpy(index[rows]).to(pixels.device)])
                    rng = rng_for(seed, "transfer", device=some.device).each(content_ids(some.cpu().numpy()))
                    found = minimal_distances(
                        model,
                        some,
                        torch.from_numpy(labels[rows]).to(some.device),
                        norm,
                        rng,
                        attack=FAB(self.steps),
                        fallback=APGD(self.fallback_steps, margin),
                    )
                    distance[rows], broken[rows] = (values.cpu().numpy() for values in found)
                    done = int((~np.isnan(record.real_distance)).sum() + (~np.isnan(record.generated_distance)).sum())
                    progress(done, total, "images")
                    if path is not None and pace.due():
                        with pace.saving():
                            record.save(path)
                if path is not None and len(owed):
                    record.save(path)
        return record

    def _plan(self, subject: ProxySubject, seed: int, plan: Plan | None) -> Plan:
        wanted = self.transport.about(subject, seed)
        if plan is None:
            return self.transport(subject, seed=seed)
        if plan.about != wanted:
            raise ValueError("the distance given is of other images or settings; measure it anew, or leave it out")
        return plan


def _owed(about: About, plan: Plan) -> Record:
    upper = plan.shares * np.nan_to_num(plan.upper)
    lower = plan.shares * np.nan_to_num(plan.lower)
    return Record(
        about=about,
        shares=plan.shares,
        real_label=plan.real_label,
        generated_label=plan.generated_label,
        real_distance=np.full(len(plan.real), np.nan, dtype=np.float32),
        generated_distance=np.full(len(plan.generated), np.nan, dtype=np.float32),
        real_broken=np.ones(len(plan.real), dtype=bool),
        generated_broken=np.ones(len(plan.generated), dtype=bool),
        cwd=np.array([lower.sum(), upper.sum()]),
    )
