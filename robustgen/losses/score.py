"""SCORE: TRADES with squared errors of probabilities in place of cross-entropy and KL divergence."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from robustgen.attacks.pgd import official_training_attack
from robustgen.contracts import Attack, Batch
from robustgen.losses.common import by_origin, check_settings, clean_and_attacked
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) |softmax(logits) - q|^2 of probabilities q (N, K): the Brier score, at most 2. The attack maximizes it."""
    return (logits.softmax(1) - targets).square().sum(1)


def score_loss(clean_logits: Tensor, adversarial_logits: Tensor, targets: Tensor, *, beta: float) -> Tensor:
    """mean over n of  |softmax(clean_n) - target_n|^2 + beta * |softmax(adversarial_n) - softmax(clean_n)|^2

    Args (N images, K classes):
        clean_logits, adversarial_logits: (N, K). Gradients reach the model through both.
        targets: (N, K) probabilities.
        beta: 4 in the paper's code, 3 for its released weights.

    A distance, unlike a divergence, satisfies the triangle inequality, so the two terms bound the error of adversarial
    examples. Source: Pang et al. 2022, arXiv:2202.10103; `trades_loss_LSE` of P2333/SCORE.
    """
    error = squared_error(clean_logits, targets)
    return (error + beta * squared_error(adversarial_logits, clean_logits.softmax(1))).mean()


@dataclass(frozen=True)
class SCORE:
    """SCORE in the form of TRADES, with squared errors in the loss and in the attack (`score_loss`).

    Only the adversarial pass updates the running statistics.
    """

    beta: float = 4.0
    attack: Attack = field(default_factory=lambda: official_training_attack(10, squared_error))
    aim: str = "predictions"
    real_weight: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.aim, self.real_weight, beta=self.beta)

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        clean_logits, adversarial = clean_and_attacked(model, batch, self.attack, threat, rng, self.aim)
        value = partial(score_loss, beta=self.beta)
        rows = (clean_logits, model(adversarial), batch.targets)
        return by_origin(value, batch.generated, self.real_weight, *rows)
