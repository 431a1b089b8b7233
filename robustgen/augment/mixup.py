"""MixUp: blend each image with another one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor

from robustgen.randomness import Rng


def shuffled(count: int, rng: Rng) -> Tensor:
    """(count,) a random permutation, computed on the stream's device without synchronization with the host."""
    return rng.integers((1 << 31) - 1, (count,)).argsort(stable=True)


def symmetric_beta(concentration: float, count: int, rng: Rng) -> Tensor:
    """(count,) float32 samples of Beta(concentration, concentration), by the inverse distribution function."""
    uniform = rng.uniform((count,)).double() + 2.0**-25  # centers of the grid of uniform numbers, never 0
    drawn = torch.from_numpy(betaincinv(concentration, concentration, uniform.cpu().numpy()))
    return drawn.float().to(uniform.device)


@dataclass(frozen=True)
class MixUp:
    """lambda * image + (1 - lambda) * partner, and the same for targets; lambda ~ Beta(alpha, alpha).

    Partners are a random permutation of the batch. Small alpha is best for robust accuracy (Rebuffi et al. 2021,
    arXiv:2103.01946, App. B).

    each  draw lambda per image, not per batch

    Source: Zhang et al. 2018, arXiv:1710.09412.
    """

    alpha: float = 0.2
    each: bool = False

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha of MixUp must be above 0, got {self.alpha}")

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        count = len(images)
        share = symmetric_beta(self.alpha, count if self.each else 1, rng)
        partner = shuffled(count, rng)
        mixed = torch.lerp(images[partner], images, share.view(-1, 1, 1, 1))
        return mixed.clamp_(0, 1), torch.lerp(targets[partner], targets, share[:, None])
