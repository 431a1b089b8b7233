"""TRADES: cross-entropy on clean images plus a divergence between clean and adversarial predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.attacks.pgd import official_training_attack
from robustgen.contracts import Attack, Batch
from robustgen.losses.common import by_origin, check_settings
from robustgen.modes import frozen_bn_stats
from robustgen.objectives import kl_divergence
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel

STATISTICS = ("adversarial", "both")


def trades_loss(clean_logits: Tensor, adversarial_logits: Tensor, targets: Tensor, *, beta: float) -> Tensor:
    """Cross-entropy on clean images plus `beta` times the divergence of adversarial predictions.

        mean over n of  CE(clean_n, target_n) + beta * KL(softmax(clean_n) || softmax(adversarial_n))

    Args (N images, K classes):
        clean_logits: (N, K), `model(images)`.
        adversarial_logits: (N, K), `model(attack(images))`.
        targets: labels (N,), or probabilities (N, K) when smoothed or mixed.
        beta: weight of the divergence, at least 0. It is 1/lambda in the paper; 5 and 6 are usual.

    Returns:
        A scalar in nats. Gradients reach the model through both sets of logits.

    Raises:
        ValueError: if the two sets of logits differ in shape, or `beta` is negative.

    Source: Zhang et al. 2019, arXiv:1901.08573.
    """
    if clean_logits.shape != adversarial_logits.shape:
        raise ValueError(
            f"clean and adversarial logits must have the same shape, got {tuple(clean_logits.shape)} and "
            f"{tuple(adversarial_logits.shape)}"
        )
    if beta < 0:
        raise ValueError(f"beta must be at least 0, got {beta}")
    disagreement = F.kl_div(
        adversarial_logits.log_softmax(1), clean_logits.log_softmax(1), reduction="batchmean", log_target=True
    )
    return F.cross_entropy(clean_logits, targets) + beta * disagreement


@dataclass(frozen=True)
class TRADES:
    """TRADES with an inner attack and a single forward pass of the clean images.

    The attack and the loss share the clean logits. Batch norms use batch statistics in every pass. The running
    statistics are updated by the adversarial pass only ("adversarial", the official code) or also by the clean pass
    ("both", the PyTorch ports). By `aim`, the attack maximizes the divergence from the clean predictions, or from the
    batch's targets, as the official code does when labels are mixed (`losses.common.clean_and_attacked`).
    """

    beta: float = 6.0
    attack: Attack = field(default_factory=lambda: official_training_attack(10, kl_divergence))
    statistics: str = "adversarial"
    aim: str = "predictions"
    real_weight: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.aim, self.real_weight, beta=self.beta)
        if self.statistics not in STATISTICS:
            raise ValueError(f"unknown statistics {self.statistics!r}; known: {', '.join(STATISTICS)}")

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        if self.statistics == "both":
            clean_logits = model(batch.images)
        with frozen_bn_stats(model):
            if self.statistics == "adversarial":
                clean_logits = model(batch.images)
            aimed = batch.targets if self.aim == "targets" else clean_logits.detach().softmax(1)
            adversarial = self.attack(model, batch.images, aimed, threat, rng)
        rows = (clean_logits, model(adversarial), batch.targets)
        return by_origin(partial(trades_loss, beta=self.beta), batch.generated, self.real_weight, *rows)
