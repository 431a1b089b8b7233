"""GKL: TRADES with the KL divergence decoupled into two parts that have weights of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.attacks.pgd import official_training_attack
from robustgen.contracts import Attack, Batch
from robustgen.losses.common import by_origin, check_settings, clean_and_attacked
from robustgen.objectives import kl_divergence
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


def pair_distance(clean_logits: Tensor, adversarial_logits: Tensor, weights: Tensor) -> Tensor:
    """(N,) 1/4 sum_jk w_j w_k ((z_j - z_k) - (z'_j - z'_k))^2 of logits z, z' (N, K) and weights w (N, K).

    This is one of the two parts of the divergence KL(softmax(z) || softmax(z')): with w = softmax(z) held fixed, both
    have the same gradient in z. It is half the weighted variance of z - z', times (sum w)^2.
    """
    gap = clean_logits - adversarial_logits
    return 0.5 * (weights.sum(1) * (weights * gap.square()).sum(1) - (weights * gap).sum(1).square())


def gkl_loss(
    clean_logits: Tensor,
    adversarial_logits: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    power: float = 1.0,
) -> Tensor:
    """Cross-entropy on clean images plus the decoupled divergence.

        mean over n of  CE(clean_n, target_n) + alpha * CE(clean prediction_n, adversarial prediction_n)
            + beta * sum_n pair_distance_n / sum_n (sum_k w_nk)^2

    Predictions of the second term are softmax(logits / temperature), with the clean one held fixed. The weights w_n of
    the third term are those of the image's class: the mean clean prediction, at that temperature, over the batch's
    images of the class, raised to `power`. (The official code takes the mean over the previous epoch; here a loss has
    no state.) Gradients reach both sets of logits through the third term.

    Args (N images, K classes):
        clean_logits, adversarial_logits: (N, K).
        targets: (N, K) probabilities; a mixed target takes the mixture of its classes' weights.
        alpha, beta: 4 and 20 in the paper's code, with temperature 4 and power 1.

    Source: Cui et al. 2023, arXiv:2305.13948 (IKL) and its successor GKL; jiequancui/DKL, DKLv2.
    """
    with torch.no_grad():
        predictions = (clean_logits / temperature).softmax(1)
        of_class = targets.T @ predictions / targets.sum(0).clamp_min(1e-12)[:, None]
        weights = (targets @ of_class).pow(power)
        total = weights.sum(1).square().sum()
    alike = -(predictions * (adversarial_logits / temperature).log_softmax(1)).sum(1).mean()
    apart = pair_distance(clean_logits, adversarial_logits, weights).sum() / total
    return F.cross_entropy(clean_logits, targets) + alpha * alike + beta * apart


@dataclass(frozen=True)
class GKL:
    """TRADES with the generalized, decoupled Kullback-Leibler divergence (`gkl_loss`).

    The attack maximizes the KL divergence. Only the adversarial pass updates the running statistics.
    """

    alpha: float = 4.0
    beta: float = 20.0
    temperature: float = 4.0
    power: float = 1.0
    attack: Attack = field(default_factory=lambda: official_training_attack(10, kl_divergence))
    aim: str = "predictions"
    real_weight: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.aim, self.real_weight, alpha=self.alpha, beta=self.beta, power=self.power)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        clean_logits, adversarial = clean_and_attacked(model, batch, self.attack, threat, rng, self.aim)
        value = partial(gkl_loss, alpha=self.alpha, beta=self.beta, temperature=self.temperature, power=self.power)
        rows = (clean_logits, model(adversarial), batch.targets)
        return by_origin(value, batch.generated, self.real_weight, *rows)
