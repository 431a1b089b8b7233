"""Projected gradient descent (PGD), in the variants of the papers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustgen.attacks.common import AttackResult, raised, rng_or_default, value_and_grad
from robustgen.modes import evaluating, updating_bn_stats
from robustgen.objectives import Objective, cross_entropy, hard_labels
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel

OPTIMIZERS = ("steepest", "adam")
MODES: dict[str, Callable[[nn.Module], AbstractContextManager[None]] | None] = {
    "as-is": None,
    "eval": evaluating,
    "updating": updating_bn_stats,
}
"""Mode of the network during the attack."""

OFFICIAL_STEP = 0.1 / (8 / 255)
"""The official code's Adam step of 0.1 at eps 8/255, as a share of eps."""

NEAR_START = 0.001
"""Standard deviation of the noise of the start in TRADES's code (arXiv:1901.08573), in pixels of [0, 1]."""


@dataclass(frozen=True)
class PGD:
    """Ascent from a random start in the ball, projected after every step (arXiv:1706.06083).

    steepest   x <- project(x + a * ascend(gradient)); the sign of the gradient in linf
    adam       x <- project(x + a * m / (sqrt(v) + 1e-9)), m and v bias-corrected averages (0.9, 0.999) of the gradient
               and of its square: of each pixel in linf, of the whole image's length in l2 and l1

    In l2 and l1 a single v per image keeps the direction of the gradient; with a v per pixel, steps along a constant
    gradient would go along its sign. (The papers' l2 settings are not published.) The step size is a = step_size * eps
    * (factor of the phase). The last iterate is returned.
    """

    steps: int = 10
    step_size: float = 0.25
    """Length of a step as a share of eps: 0.25 is 2/255 when eps is 8/255."""
    optimizer: str = "steepest"
    decay: tuple[tuple[float, float], ...] = ()
    """(share of the steps, factor): from that share on, the step size is multiplied by that factor."""
    objective: Objective = cross_entropy
    until_fooled: bool = False
    """Return the first misclassified iterate of each image, and stop attacking that image."""
    deviation: float | None = None
    """Start from normal noise of this standard deviation, in pixels of [0, 1], instead of uniformly from the ball."""
    mode: str = "as-is"
    """eval: batch norms use their running statistics during the attack. updating: in a training step, the attack's
    passes update the running statistics too."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"an attack needs at least 1 step, got {self.steps}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}; known: {', '.join(OPTIMIZERS)}")
        if self.mode not in MODES:
            raise ValueError(f"unknown mode {self.mode!r}; known: {', '.join(MODES)}")
        if self.deviation is not None and not self.deviation >= 0:
            raise ValueError(f"deviation of the start must be at least 0, got {self.deviation}")

    def step_at(self, step: int) -> float:
        """Step size of a step, counted from 0, as a share of eps."""
        factors = [factor for share, factor in self.decay if step >= share * self.steps]
        return self.step_size * (factors[-1] if factors else 1.0)

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor:
        return self.search(model, images, targets, threat, rng).points

    def search(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> AttackResult:
        """The last iterate, or the first misclassified one with `until_fooled`, and then its step and the margin.

        That margin is the largest of the iterates whose gradient was taken: the last point has not been classified.
        """
        mode, rng = MODES[self.mode], rng_or_default(rng, images)
        with mode(model) if mode else nullcontext():
            return self._search(model, images, targets, threat, rng)

    def _search(self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng) -> AttackResult:
        if self.deviation is None:
            points = threat.random_start(images, rng)
        else:
            points = threat.project(images + self.deviation * rng.normal(images.shape), images)
        result = torch.empty_like(points)
        rows = torch.arange(len(images), device=images.device)
        found_at = torch.full_like(rows, -1)
        reached = points.new_full((len(images),), -torch.inf) if self.until_fooled else None
        momentum = torch.zeros_like(points) if self.optimizer == "adam" else points
        square = torch.zeros_like(points) if self.optimizer == "adam" else points
        for step in range(self.steps):
            logits, _, gradient = value_and_grad(model, points, targets, self.objective)
            if reached is not None:
                reached[rows] = raised(reached[rows], logits, targets)
                fooled = logits.argmax(1) != hard_labels(targets)
                if fooled.any():
                    result[rows[fooled]], found_at[rows[fooled]] = points[fooled], step
                    stays = ~fooled
                    rows, points, images, targets, gradient = (
                        x[stays] for x in (rows, points, images, targets, gradient)
                    )
                    if not len(rows):
                        return AttackResult(result, found_at, reached)
                    momentum, square = (momentum[stays], square[stays])
            length = self.step_at(step)
            if self.optimizer == "adam":
                momentum = momentum.mul(0.9).add_(gradient, alpha=0.1)
                size = gradient.square()
                if threat.norm != "linf":
                    size = size.flatten(1).sum(1).view(-1, *([1] * (size.ndim - 1)))
                square = square.mul(0.999).add(size, alpha=0.001)
                scale = (square / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-9)
                move = momentum / scale * (length * threat.eps / (1 - 0.9 ** (step + 1)))
            else:
                move = threat.ascend(gradient) * (length * threat.eps)
            points = threat.project(points + move, images)
        result[rows] = points
        return AttackResult(result, found_at, reached)


def official_training_attack(steps: int, objective: Objective) -> PGD:
    """The inner attack of the official code: Adam, 0.1 for the first half and 0.01 for the second at eps 8/255.

    Source: google-deepmind/deepmind-research, adversarial_robustness/jax; arXiv:2103.01946, App. A.
    """
    return PGD(steps, OFFICIAL_STEP, "adam", ((0.5, 0.1),), objective)


def evaluation_attack(steps: int, objective: Objective, decay: str = "paper") -> PGD:
    """The papers' evaluation attack: Adam, 0.1 at eps 8/255, smaller after half and after three quarters.

    decay "paper": factors 0.1 and 0.01 (arXiv:2103.01946, App. A). decay "code": 0.1 and 0.001, as in the official
    code, where the second factor multiplies a step size that is already scaled.
    """
    last = {"paper": 0.01, "code": 0.001}[decay]
    return PGD(steps, OFFICIAL_STEP, "adam", ((0.5, 0.1), (0.75, last)), objective, until_fooled=True)
