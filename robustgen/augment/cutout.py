"""Cutout: a black square."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustgen.randomness import Rng


def span(center: Tensor, length: Tensor | int, side: int) -> Tensor:
    """(N, side) bool: the `length` positions from center - length // 2 on, clipped to the image."""
    start = center - length // 2
    place = torch.arange(side, device=center.device)
    return (place >= start[:, None]) & (place < (start + length)[:, None])


@dataclass(frozen=True)
class Cutout:
    """Draw a black square with a side of `window` pixels around a random pixel of each image, clipped at the border.

    18 is best for robust accuracy on CIFAR-10 (Rebuffi et al. 2021, arXiv:2103.01946, App. B).

    Source: DeVries & Taylor 2017, arXiv:1708.04552 (with 16).
    """

    window: int = 18

    def __post_init__(self) -> None:
        if not isinstance(self.window, int) or self.window < 1:
            raise ValueError(f"the window of Cutout must be a whole number of pixels, at least 1, got {self.window}")

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        count, _, height, width = images.shape
        inside = span(rng.integers(height, (count,)), self.window, height)[:, :, None]
        inside = inside & span(rng.integers(width, (count,)), self.window, width)[:, None, :]
        return torch.where(inside[:, None], 0.0, images), targets  # keeps the memory format, unlike masked_fill
