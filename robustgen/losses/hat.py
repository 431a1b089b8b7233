"""HAT: TRADES plus a cross-entropy term on helper examples beyond the eps-ball."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.attacks.pgd import official_training_attack
from robustgen.contracts import Attack, Batch
from robustgen.losses.common import by_origin, check_settings, clean_and_attacked
from robustgen.losses.trades import trades_loss
from robustgen.modes import evaluating, frozen_bn_stats
from robustgen.objectives import kl_divergence
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


def hat_loss(
    clean_logits: Tensor,
    adversarial_logits: Tensor,
    helper_logits: Tensor,
    targets: Tensor,
    helper_labels: Tensor,
    *,
    beta: float,
    weight: float,
) -> Tensor:
    """`trades_loss(clean, adversarial, targets)` + weight * mean CE(helper_n, helper label_n).

    Source: Rade & Moosavi-Dezfooli 2022, openreview.net/forum?id=Azh9QBQ4tR7; beta 2.5 (3.5 with generated images) and
    weight 0.5 in imrahulr/hat.
    """
    trades = trades_loss(clean_logits, adversarial_logits, targets, beta=beta)
    return trades + weight * F.cross_entropy(helper_logits, helper_labels)


@dataclass(frozen=True)
class HAT:
    """Helper-based adversarial training, which avoids unnecessarily large margins (`hat_loss`).

    For an image x and its adversarial example x' the helper example is x + factor * (x' - x), not clipped. Its label
    is the prediction of a standard classifier for x', as in the official code. So where the prediction of a standard
    classifier changes within the ball, that of the robust one may change beyond it.

    standard  a classifier by standard training. Without one the network in training predicts the label instead, in
              evaluation mode: a substitute that no paper describes.

    Only the adversarial pass updates the running statistics.
    """

    beta: float = 2.5
    weight: float = 0.5
    factor: float = 2.0
    standard: nn.Module | None = None
    attack: Attack = field(default_factory=lambda: official_training_attack(10, kl_divergence))
    aim: str = "predictions"
    real_weight: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.aim, self.real_weight, beta=self.beta, weight=self.weight)
        if not self.factor > 1:
            raise ValueError(f"factor must be above 1 (helper examples lie beyond the attacked), got {self.factor}")

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        clean_logits, adversarial = clean_and_attacked(model, batch, self.attack, threat, rng, self.aim)
        standard = model if self.standard is None else self.standard.to(adversarial.device)
        with torch.no_grad(), evaluating(standard):
            labels = standard(adversarial).argmax(1)
        with frozen_bn_stats(model):
            helper_logits = model(torch.lerp(batch.images, adversarial, self.factor))
        value = partial(hat_loss, beta=self.beta, weight=self.weight)
        rows = (clean_logits, model(adversarial), helper_logits, batch.targets, labels)
        return by_origin(value, batch.generated, self.real_weight, *rows)
