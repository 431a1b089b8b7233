"""Losses for randomized smoothing: accurate and consistent predictions under Gaussian noise.

Noise of standard deviation sigma (pixels of [0, 1]) is added and not clipped, as in certification. Noisy copies of a
batch are concatenated: row j * N + n is copy j of image n. Batch norms see all copies in one pass, and their running
statistics are those of noisy images, the inputs of the smoothed classifier. The threat model is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.contracts import Batch
from robustgen.losses.common import by_origin, check_settings
from robustgen.losses.trades import trades_loss
from robustgen.modes import frozen_bn_stats
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


def noises_for(images: Tensor, sigma: float, draws: int, rng: Rng) -> Tensor:
    """(draws * N, C, H, W) normal noise of standard deviation sigma."""
    return rng.normal((draws * len(images), *images.shape[1:])).mul_(sigma)


def copies_of(values: Tensor, draws: int) -> Tensor:
    """`draws` copies of all rows, concatenated."""
    return values.repeat(draws, *[1] * (values.ndim - 1))


def check_noise(sigma: float, draws: int = 1, **prices: float) -> None:
    """Raise ValueError unless sigma is above 0, draws at least 1 and each other weight at least 0."""
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    for name, price in prices.items():
        if price < 0:
            raise ValueError(f"{name} must be at least 0, got {price}")


@dataclass(frozen=True)
class GaussianNoise:
    """Cross-entropy on noisy images: mean of CE(f(x + n), target) over `draws` noises per image.

    Source: Cohen et al. 2019, arXiv:1902.02918.
    """

    sigma: float = 0.25
    draws: int = 1
    real_weight: float | None = None

    def __post_init__(self) -> None:
        check_noise(self.sigma, self.draws)
        check_settings(real_weight=self.real_weight)

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        noisy = copies_of(batch.images, self.draws) + noises_for(batch.images, self.sigma, self.draws, rng)
        rows = (model(noisy), copies_of(batch.targets, self.draws))
        return by_origin(F.cross_entropy, copies_of(batch.generated, self.draws), self.real_weight, *rows)


@dataclass(frozen=True)
class Stability:
    """Stability training: cross-entropy on clean images plus a divergence between clean and noisy predictions.

        CE(f(x), target) + beta * KL(softmax(f(x)) || softmax(f(x + n)))

    The official code clips noisy images to [0, 1] in training but not in certification; here neither clips.
    Only the noisy pass updates the running statistics.

    Source: Carmon et al. 2019, arXiv:1905.13736; with generated images Sehwag et al. 2021, arXiv:2104.09425.
    """

    sigma: float = 0.25
    beta: float = 6.0
    real_weight: float | None = None

    def __post_init__(self) -> None:
        check_noise(self.sigma, beta=self.beta)
        check_settings(real_weight=self.real_weight)

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        with frozen_bn_stats(model):
            clean_logits = model(batch.images)
        noisy_logits = model(batch.images + noises_for(batch.images, self.sigma, 1, rng))
        rows = (clean_logits, noisy_logits, batch.targets)
        return by_origin(partial(trades_loss, beta=self.beta), batch.generated, self.real_weight, *rows)


def consistency_loss(logits: Tensor, targets: Tensor, *, weight: float, entropy: float) -> Tensor:
    """Cross-entropy of noisy copies, plus their divergence from the mean prediction, plus its entropy.

        mean over n of  1/m sum_j CE(z_jn, target_n) + weight * 1/m sum_j KL(p_n || p_jn) + entropy * H(p_n)
        p_jn = softmax(z_jn),    p_n = 1/m sum_j p_jn

    Args (m copies, N images, K classes):
        logits: (m, N, K).
        targets: (N, K) probabilities.
        weight: lambda in the paper; 10 to 20 at sigma 0.25, 10 at larger sigma.
        entropy: eta in the paper; 0.5.

    Source: Jeong & Shin 2020, arXiv:2006.04062.
    """
    draws = len(logits)
    rows = logits.flatten(0, 1)
    mean = logits.softmax(2).mean(0)
    surprise = F.kl_div(rows.log_softmax(1), copies_of(mean, draws), reduction="batchmean")
    spread = -torch.xlogy(mean, mean).sum(1).mean()
    return F.cross_entropy(rows, copies_of(targets, draws)) + weight * surprise + entropy * spread


@dataclass(frozen=True)
class Consistency:
    """Consistency regularization of the predictions for noisy copies of an image (`consistency_loss`)."""

    sigma: float = 0.25
    draws: int = 2
    weight: float = 10.0
    entropy: float = 0.5

    def __post_init__(self) -> None:
        check_noise(self.sigma, self.draws, weight=self.weight, entropy=self.entropy)

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        noisy = copies_of(batch.images, self.draws) + noises_for(batch.images, self.sigma, self.draws, rng)
        logits = model(noisy).unflatten(0, (self.draws, -1))
        return consistency_loss(logits, batch.targets, weight=self.weight, entropy=self.entropy)
