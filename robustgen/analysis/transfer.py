"""Transfer of robustness from generated to real images, and the Wasserstein distance that bounds the difference."""

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
from robustgen.records.transfer import TransferRecord
from robustgen.records.transport import TransportRecord
from robustgen.storage.files import SaveInterval
from robustgen.storage.weights import weights_digest
from robustgen.threat import ThreatModel


def largest_distance(images: Tensor, norm: str) -> float:
    """The largest distance between two images in [0, 1]: 1 in linf, sqrt(pixels) in l2, pixels in l1."""
    pixels = images[0].numel()
    return {"linf": 1.0, "l2": pixels**0.5, "l1": float(pixels)}[norm]


@torch.no_grad()
def by_bisection(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, attack: Attack, rng: Rng, *, rounds: int = 8
) -> tuple[Tensor, Tensor]:
    """(N,) distance to the nearest misclassified image that `attack` finds, and (N,) whether it finds any.

    The radius is bisected between broken and unbroken values, from the largest distance within [0, 1] on. The result is
    the distance of the nearest image found, which can be smaller than the radius. It is never too small, and for a
    perfect attack at most largest / 2^rounds too large. If nothing is found it is the largest distance.

    Args:
        attack: an attack within a threat model, such as PGD.
        rng: one stream per image.
    """
    largest = largest_distance(images, norm)
    low = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    high = torch.full_like(low, largest)
    nearest = torch.full((len(images),), largest, device=images.device)
    broken = torch.zeros_like(low, dtype=torch.bool)
    for number in range(rounds + 1):
        radius = high if number == 0 else (low + high) / 2
        for eps in radius.unique().tolist():  # an attack has one radius, so images are grouped by theirs
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
            low[broken] = 0  # images unbroken at the largest radius are finished
    return nearest, broken


@torch.no_grad()
def minimal_distances(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, rng: Rng, *, attack: FAB, fallback: Attack
) -> tuple[Tensor, Tensor]:
    """(N,) distance from each image to the nearest misclassified image found, and (N,) whether one was found.

    It is 0 if the image itself is misclassified. FAB runs first, and its results are moved along a straight line
    towards the image while they stay misclassified. Where FAB fails, `by_bisection` runs with `fallback`. The result is
    an upper bound of the true distance.

    Args:
        rng: one stream per image.
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
    """Misclassified points closer to the images, by bisection on the segments from the images to the given points."""
    shape = (-1, *([1] * (images.ndim - 1)))
    low, high = torch.zeros(len(images), device=images.device), torch.ones(len(images), device=images.device)
    for _ in range(rounds):
        middle = (low + high) / 2
        wrong = model(images + middle.view(shape) * (points - images)).argmax(1) != labels
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return images + high.view(shape) * (points - images)


@dataclass(frozen=True)
class Transfer:
    """Average robustness of `subject.model` on real and on generated images, and whether the transfer bound holds.

    The images are those used by `transport` for their conditional Wasserstein distance. On these images the bound is a
    theorem, so a larger gap shows that the attack misses closer adversarial examples.
    """

    transport: Transport = field(default_factory=lambda: Transport(per_class=100))
    steps: int = 30
    """Steps of FAB."""
    fallback_steps: int = 20
    """Steps of Auto-PGD on the margin, where FAB finds nothing."""

    def __post_init__(self) -> None:
        if self.transport.method == "sliced":
            raise ValueError(
                "the transfer bound needs an upper bound of the distance, which method sliced lacks; use method exact "
                "or sinkhorn"
            )

    def __call__(
        self,
        subject: ProxySubject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
        plan: TransportRecord | None = None,
    ) -> TransferRecord:
        """Measure both sides of the bound, saving and resuming at `path`.

        Args:
            plan: the record of `transport` on this subject, if it exists already.

        Raises:
            ValueError: no classifier, a plan of other images, or `path` is a record of something else.
        """
        check_subject(subject)
        if subject.model is None:
            raise ValueError("the transfer bound needs a classifier, got none; pass one as model")
        plan = self._plan(subject, seed, plan)
        norm = subject.threat.norm
        about = About(repr(self), norm, seed, f"{plan.about.made_for} {weights_digest(subject.model)}")
        record = TransferRecord.resume(path, about) or _pending(about, plan)
        pace = SaveInterval()
        images = {"real": (subject.test, plan.real), "generated": (subject.generated, plan.generated)}
        total = len(plan.real) + len(plan.generated)
        with evaluating(subject.model):
            model = BatchInvariant(subject.model)
            for side, (pixels, index) in images.items():
                distance, broken = getattr(record, f"{side}_distance"), getattr(record, f"{side}_broken")
                labels = getattr(record, f"{side}_label")
                pending = np.flatnonzero(np.isnan(distance))
                for first in range(0, len(pending), batch_size):
                    rows = pending[first : first + batch_size]
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
                if path is not None and len(pending):
                    record.save(path)
        return record

    def _plan(self, subject: ProxySubject, seed: int, plan: TransportRecord | None) -> TransportRecord:
        wanted = self.transport.about(subject, seed)
        if plan is None:
            return self.transport(subject, seed=seed)
        if plan.about != wanted:
            raise ValueError(
                "expected a transport record of these images and settings, got one of other images or settings; "
                "measure it again, or leave it out"
            )
        return plan


def _pending(about: About, plan: TransportRecord) -> TransferRecord:
    """The state before the first image."""
    upper = plan.shares * np.nan_to_num(plan.upper)
    lower = plan.shares * np.nan_to_num(plan.lower)
    return TransferRecord(
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
