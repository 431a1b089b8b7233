"""Fast adaptive boundary attack: the nearest misclassified image (Croce & Hein 2020, arXiv:1907.02044)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustgen.attacks.common import AttackResult, logit_differences, raised, rng_or_default, value_and_grad
from robustgen.objectives import hard_labels, targeted_margin
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class FAB:
    """Move along the decision boundary towards the clean image.

    The boundary is linearized at the current point; d and d0 are the smallest moves (within the box) that bring the
    current point x and the clean image x0 onto it:

        a = min(|d| / (|d| + |d0|), alpha_max);   x <- clip((1 - a) (x + eta d) + a (x0 + eta d0))

    A misclassified x becomes the best point if it is nearer than the best so far, and then x <- x0 + beta (x - x0).
    With targets that are pairs (N, 2) the boundary is that between label and target class; with labels (N,) it is the
    nearest of all K - 1, which takes K - 1 gradients per step.

    Calling it returns an allowed image: the first misclassified one within the threat model, at which the search ends,
    else the clean image. `nearest` always makes all steps and returns the nearest misclassified image at any distance.
    """

    steps: int = 100
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    from_noise: bool = False
    """Start at a random point half the radius away instead of at the clean image."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"an attack needs at least 1 step, got {self.steps}")

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor:
        return self.search(model, images, targets, threat, rng).points

    def search(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> AttackResult:
        """An allowed image for each, the step at which it was found, and the largest margin of allowed iterates."""
        points, step, reached = self._iterate(model, images, targets, threat, rng, stop=True)
        allowed = threat.contains(points, images) & (step >= 0)
        points = torch.where(allowed.view(-1, *([1] * (images.ndim - 1))), points, images)
        return AttackResult(points, torch.where(allowed, step, -1), reached)

    def nearest(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """The nearest misclassified images, and (N,) their distances: infinite where none was found.

        `threat.eps` only sets the scale of a random start. Images that are misclassified from the start are at 0.
        """
        points, step, _ = self._iterate(model, images, targets, threat, rng, stop=False)
        distance = threat.distance(points, images)
        return points, torch.where(step >= 0, distance, torch.full_like(distance, torch.inf))

    @torch.no_grad()
    def _iterate(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None, stop: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        points = images
        if self.from_noise:
            points = (images + (threat.boundary_start(images, rng_or_default(rng, images)) - images) / 2).clamp_(0, 1)
        result = images.clone()
        found_at = torch.full((len(images),), -1, dtype=torch.int64, device=images.device)
        nearest = torch.full((len(images),), torch.inf, device=images.device)
        reached = -nearest
        row = torch.arange(len(images), device=images.device)
        for step in range(1, self.steps + 1):
            value, gradient = self._boundary(model, points, targets, threat)
            points = self._step(points, images, value, gradient, threat)
            logits = model(points)
            fooled = logits.argmax(1) != hard_labels(targets)
            distance = threat.distance(points, images)
            allowed = threat.contains(points, images)
            reached[row] = torch.where(allowed, raised(reached[row], logits, targets), reached[row])
            better = fooled & (distance < nearest[row])
            result[row[better]] = points[better]
            found_at[row[better]] = step
            nearest[row[better]] = distance[better]
            wide = fooled.view(-1, *([1] * (points.ndim - 1)))
            points = torch.where(wide, images + self.beta * (points - images), points)
            if stop:
                stays = ~(fooled & threat.contains(result[row], images))
                if not stays.all():
                    row, points, images, targets = (x[stays] for x in (row, points, images, targets))
                    if not len(row):
                        break
        return result, found_at, reached

    @staticmethod
    def _boundary(model: nn.Module, points: Tensor, targets: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
        """Height over the linearized boundary, negative while on the label's side, and its gradient."""
        if targets.ndim == 2:
            _, value, gradient = value_and_grad(model, points, targets, targeted_margin)
            return value, gradient
        values, gradients = logit_differences(model, points, targets)
        flat = gradients.flatten(2)
        dual = {"linf": 1, "l2": 2, "l1": torch.inf}[threat.norm]
        near = (values.abs() / (flat.norm(p=dual, dim=2) + 1e-12)).argmin(1)
        rows = torch.arange(len(points), device=points.device)
        return values[rows, near], gradients[rows, near]

    def _step(self, points: Tensor, images: Tensor, value: Tensor, gradient: Tensor, threat: ThreatModel) -> Tensor:
        flat, clean, slope = points.flatten(1), images.flatten(1), gradient.flatten(1)
        # The linearized boundary is value + slope.(z - points) = 0; both points are projected onto it.
        at_clean = value + (slope * (clean - flat)).sum(1)
        both = to_hyperplane(
            torch.cat([flat, clean]), torch.cat([slope, slope]), torch.cat([value, at_clean]), threat.norm
        )
        length = threat.length(both).clamp_min(1e-8)
        here, there = length[: len(points)], length[len(points) :]
        share = (here / (here + there)).clamp(0, self.alpha_max)[:, None]
        move, from_clean = both[: len(points)], both[len(points) :]
        moved = (1 - share) * (flat + self.eta * move) + share * (clean + self.eta * from_clean)
        return moved.clamp_(0, 1).view_as(points)


def to_hyperplane(points: Tensor, slope: Tensor, value: Tensor, norm: str) -> Tensor:
    """Smallest moves d (N, D) with value + slope.d = 0 and points + d in [0, 1]; as far as the box allows if none.

    Each coordinate moves against the sign of value * slope, at most by its room r to the box. In linf all move by
    t, in l2 by t |slope|, each up to its room: the total change g(t) = sum |slope| min(t .., r) is concave and
    piecewise linear, and Newton's method from the left reaches g(t) = |value| exactly, after a few pieces. In l1
    coordinates move to the end of their room one after the other, the steepest first.
    """
    steep = slope.abs()
    down = value[:, None] * slope > 0
    room = torch.where(down, points, 1 - points)
    wanted = value.abs()[:, None]
    full = steep * room  # change by a coordinate that moved to the end of its room
    if norm == "l1":
        order = steep.argsort(dim=1, descending=True)
        gains = full.gather(1, order)
        before = gains.cumsum(1) - gains
        used = ((wanted - before) / steep.gather(1, order).clamp_min(1e-30)).clamp_min(0)
        size = torch.zeros_like(room).scatter(1, order, used.minimum(room.gather(1, order)))
        return torch.where(down, -size, size)
    weight = steep if norm == "linf" else steep.square()
    corner = room if norm == "linf" else room / steep.clamp_min(1e-30)
    t = wanted / weight.sum(1, keepdim=True).clamp_min(1e-30)
    for _ in range(steep.shape[1]):
        moving = corner > t
        left = (weight * moving).sum(1, keepdim=True)
        done = full.sum(1, keepdim=True) - (full * moving).sum(1, keepdim=True)
        further = torch.where(left > 0, (wanted - done) / left.clamp_min(1e-30), torch.full_like(t, torch.inf))
        if not (further > t * (1 + 1e-6)).any():
            break
        t = further.maximum(t)
    size = room.minimum(t if norm == "linf" else t * steep)
    size = torch.where(steep > 0, size, torch.zeros_like(size))
    return torch.where(down, -size, size)
