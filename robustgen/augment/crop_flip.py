"""Pad, random crop and flip: the standard augmentation of the papers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robustgen.randomness import Rng


@dataclass(frozen=True)
class CropFlip:
    """Zero-pad by `padding` pixels, crop at a random position, flip with probability `flip`, independently per image.

    Source: google-deepmind/deepmind-research, adversarial_robustness/jax/datasets.py (padding 4, flip 0.5).
    """

    padding: int = 4
    flip: float = 0.5

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        count, _, height, width = images.shape
        device = images.device
        corner = rng.integers(2 * self.padding + 1, (2, count, 1))
        rows = corner[0] + torch.arange(height, device=device)
        columns = corner[1] + torch.arange(width, device=device)
        mirrored = rng.uniform((count, 1)) < self.flip
        columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(images, (self.padding,) * 4).permute(0, 2, 3, 1)
        which = torch.arange(count, device=device)[:, None, None]
        return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2), targets
