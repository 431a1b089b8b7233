"""Cross-entropy on clean images (standard training) and on adversarial examples (adversarial training)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.attacks.pgd import official_training_attack
from robustgen.contracts import Attack, Batch
from robustgen.losses.common import by_origin, check_settings
from robustgen.modes import frozen_bn_stats
from robustgen.objectives import cross_entropy
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Plain:
    """Standard training: cross-entropy on the clean images; the threat model is ignored."""

    real_weight: float | None = None

    def __post_init__(self) -> None:
        check_settings(real_weight=self.real_weight)

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        rows = (model(batch.images), batch.targets)
        return by_origin(F.cross_entropy, batch.generated, self.real_weight, *rows)


@dataclass(frozen=True)
class Adversarial:
    """Adversarial training: cross-entropy on adversarial examples only (Madry et al. 2018, arXiv:1706.06083).

    The attack uses batch statistics and does not change the running ones; the training pass updates them.
    """

    attack: Attack = field(default_factory=lambda: official_training_attack(10, cross_entropy))
    real_weight: float | None = None

    def __post_init__(self) -> None:
        check_settings(real_weight=self.real_weight)

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        with frozen_bn_stats(model):
            adversarial = self.attack(model, batch.images, batch.targets, threat, rng)
        rows = (model(adversarial), batch.targets)
        return by_origin(F.cross_entropy, batch.generated, self.real_weight, *rows)
