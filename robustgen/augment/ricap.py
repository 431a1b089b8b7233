"""RICAP: images patched together from four."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustgen.augment.mixup import partners, symmetric_beta
from robustgen.randomness import Rng


@dataclass(frozen=True)
class RICAP:
    """Random image cropping and patching: four pieces of four images meet in a random corner; labels by area.

        w = round(W b),  h = round(H b'),   b, b' ~ Beta(beta, beta)
        pieces w x h, (W - w) x h, w x (H - h), (W - w) x (H - h), each cropped at a uniform place of its image

    The four images are the batch in four random orders.

    each     a corner and crops for each image, not one for the batch
    repeats  how often each original stands in the batch; partners then keep to sub-batches (`mixup.partners`)

    Source: Takahashi et al. 2018, arXiv:1811.09030.
    """

    beta: float = 0.3
    each: bool = False
    repeats: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"RICAP needs a beta above 0, got {self.beta}")

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        count, _, height, width = images.shape
        corners = count if self.each else 1
        across = (symmetric_beta(self.beta, corners, rng) * width).round().long()[:, None]
        down = (symmetric_beta(self.beta, corners, rng) * height).round().long()[:, None]
        row, column = torch.arange(height, device=across.device), torch.arange(width, device=across.device)
        whose = rows = columns = torch.zeros((), dtype=torch.int64, device=across.device)
        mixed = torch.zeros_like(targets)
        for lower, right in ((False, False), (False, True), (True, False), (True, True)):
            here = (row >= down if lower else row < down)[:, :, None]
            here = here & (column >= across if right else column < across)[:, None, :]
            from_rows, tall = self._crop(row, down, height, lower, rng)
            from_columns, wide = self._crop(column, across, width, right, rng)
            source = partners(count, self.repeats, rng)
            whose = torch.where(here, source[:, None, None], whose)
            rows = torch.where(here, from_rows[:, :, None], rows)
            columns = torch.where(here, from_columns[:, None, :], columns)
            mixed = mixed + (tall * wide / (height * width)) * targets[source]
        return images.permute(0, 2, 3, 1)[whose, rows, columns].permute(0, 3, 1, 2), mixed

    @staticmethod
    def _crop(place: Tensor, cut: Tensor, side: int, beyond: bool, rng: Rng) -> tuple[Tensor, Tensor]:
        """Where along an axis each position of a piece is taken from (corners, side), and how long the piece is."""
        length = side - cut if beyond else cut
        first = (rng.uniform((len(cut), 1)) * (side - length + 1)).long()
        return (place - (cut if beyond else 0) + first).clamp(0, side - 1), length
