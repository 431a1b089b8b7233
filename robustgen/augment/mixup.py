"""MixUp: blend each image with another one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from scipy.special import betaincinv
from torch import Tensor

from robustgen.randomness import Rng


def shuffled(count: int, rng: Rng) -> Tensor:
    """(count,) a random permutation, computed on the stream's device without synchronization with the host."""
    return rng.integers((1 << 31) - 1, (count,)).argsort(stable=True)


def partners(count: int, repeats: int, rng: Rng) -> Tensor:
    """(count,) the row with which each row of a batch is mixed: the batch in a random order.

    Where each original stands `repeats` times, copy next to copy, row i is mixed with

        repeats * p(i // repeats) + i % repeats,    p a random order of 0 .. count / repeats - 1

    so that the copies of an image are mixed with the copies of one partner, and never with each other. Rows i with the
    same i % repeats are a sub-batch, which has each original once; all sub-batches share the order p.

    Raises:
        ValueError: `repeats` does not divide the batch.

    Source: google-deepmind/deepmind-research, adversarial_robustness/jax/utils.py (`cutmix`, with `split`).
    """
    if count % repeats:
        raise ValueError(
            f"a batch of {count} images cannot hold each original {repeats} times; expected a multiple of {repeats}"
        )
    order = shuffled(count // repeats, rng)
    if repeats == 1:
        return order
    row = torch.arange(count, device=order.device)
    return order[row // repeats] * repeats + row % repeats


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

    each     draw lambda per image, not per batch
    repeats  number of copies of each original in the batch; partners then keep to sub-batches (`partners`)

    Source: Zhang et al. 2018, arXiv:1710.09412.
    """

    alpha: float = 0.2
    each: bool = False
    repeats: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha of MixUp must be above 0, got {self.alpha}")

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        count = len(images)
        share = symmetric_beta(self.alpha, count if self.each else 1, rng)
        partner = partners(count, self.repeats, rng)
        mixed = torch.lerp(images[partner], images, share.view(-1, 1, 1, 1))
        return mixed.clamp_(0, 1), torch.lerp(targets[partner], targets, share[:, None])
