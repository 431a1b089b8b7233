"""An inner attack whose strength grows during training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from robustgen.contracts import Attack, Batch, Loss
from robustgen.losses.common import loss_at, with_attack
from robustgen.losses.trades import TRADES
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class WeakToStrong:
    """A loss whose inner attack starts with few steps and a small radius, and ends at full strength.

        steps = first_steps + ceil(share * (steps + 1 - first_steps)) - 1,    each number for an equal part of the run
        eps   = eps * (first_eps + (1 - first_eps) * share),                  first_eps as a share of eps

    Without `first_steps` the number of steps is constant. `at(share)` is the loss at that share of the training, 0 to
    1; `share` is 1 by default, the end of the training.

    Source: Cui et al. 2023, arXiv:2305.13948, whose code goes from 2 to 5 steps and from radius 0.
    """

    loss: Loss = field(default_factory=TRADES)
    first_steps: int | None = 2
    first_eps: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.first_steps is not None and self.first_steps < 1:
            raise ValueError(f"first_steps must be at least 1, got {self.first_steps}")
        if not 0 <= self.first_eps <= 1:
            raise ValueError(f"first_eps is a share of eps, 0 to 1, got {self.first_eps}")

    def at(self, share: float) -> Loss:
        return replace(self, loss=loss_at(self.loss, share), share=share)

    def steps_of(self, last: int) -> int:
        """Current number of steps of an attack that ends with `last` steps."""
        assert self.first_steps is not None
        return min(last, self.first_steps + max(0, math.ceil(self.share * (last + 1 - self.first_steps)) - 1))

    def _weaker(self, attack: Attack) -> Attack:
        strong: Any = attack
        if not hasattr(strong, "steps"):
            raise ValueError(f"first_steps needs an inner attack with several steps, got {attack}")
        return replace(strong, steps=self.steps_of(strong.steps))

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        eps = threat.eps * (self.first_eps + (1 - self.first_eps) * self.share)
        loss = self.loss if self.first_steps is None else with_attack(self.loss, self._weaker)
        return loss(model, batch, ThreatModel(threat.norm, eps), rng)
