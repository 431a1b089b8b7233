"""MART: adversarial training that gives more weight to images that are misclassified when clean."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.attacks.pgd import official_training_attack
from robustgen.contracts import Attack, Batch
from robustgen.losses.common import by_origin, check_settings, clean_and_attacked
from robustgen.objectives import cross_entropy
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


def mart_loss(clean_logits: Tensor, adversarial_logits: Tensor, targets: Tensor, *, beta: float) -> Tensor:
    """Boosted cross-entropy of adversarial examples, plus a KL term weighted by the error on the clean image.

        mean over n of  sum_k q_k (-ln p'_k - ln(1 - max_{j != k} p'_j))  +  beta * KL(p || p') * (1 - sum_k q_k p_k)
        p = softmax(clean_n),   p' = softmax(adversarial_n),   q = target_n

    Args (N images, K classes):
        clean_logits, adversarial_logits: (N, K).
        targets: (N, K) probabilities. For one-hot targets this is the published loss, otherwise its expectation over
            the labels.
        beta: lambda in the paper; 5 and 6 are usual.

    The official code adds 1e-4 inside the second logarithm, which caps it; here it is exact, by a sum over the other
    classes. Source: Wang et al. 2020, openreview.net/forum?id=rklOg6EFwS.
    """
    log_clean, log_adversarial = clean_logits.log_softmax(1), adversarial_logits.log_softmax(1)
    top = adversarial_logits.topk(2, dim=1).indices
    # ln(1 - p'_j) of the top class j and of the second one, which is the best wrong class if the top class is correct.
    others = [log_adversarial.scatter(1, top[:, i : i + 1], -float("inf")).logsumexp(1) for i in (0, 1)]
    right = targets.gather(1, top[:, :1]).squeeze(1)
    boost = -right * others[1] - (targets.sum(1) - right) * others[0]
    doubt = 1 - (targets * log_clean.exp()).sum(1)
    disagreement = F.kl_div(log_adversarial, log_clean, reduction="none", log_target=True).sum(1)
    return F.cross_entropy(adversarial_logits, targets) + (boost + beta * disagreement * doubt).mean()


@dataclass(frozen=True)
class MART:
    """Misclassification-aware adversarial training (`mart_loss`); the attack maximizes the cross-entropy.

    Only the adversarial pass updates the running statistics.
    """

    beta: float = 6.0
    attack: Attack = field(default_factory=lambda: official_training_attack(10, cross_entropy))
    real_weight: float | None = None

    def __post_init__(self) -> None:
        check_settings(real_weight=self.real_weight, beta=self.beta)

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        clean_logits, adversarial = clean_and_attacked(model, batch, self.attack, threat, rng, "targets")
        value = partial(mart_loss, beta=self.beta)
        return by_origin(value, batch.generated, self.real_weight, clean_logits, model(adversarial), batch.targets)
