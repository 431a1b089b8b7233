"""RICAP: images composed of patches of four images."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustgen.augment.mixup import partners, symmetric_beta
from robustgen.randomness import Rng


@dataclass(frozen=True)
class RICAP:
    """Random image cropping and patching: patches of four images meet at a random corner; labels are mixed by area.

        w = round(W b),  h = round(H b'),   b, b' ~ Beta(beta, beta)
        patches w x h, (W - w) x h, w x (H - h), (W - w) x (H - h), each cropped at a uniformly random position

    The four images come from four random permutations of the batch.

    each     draw corner and crops per image, not per batch
    repeats  number of copies of each original in the batch; partners then keep to sub-batches (`mixup.partners`)

    Source: Takahashi et al. 2018, arXiv:1811.09030.
    """

    beta: float = 0.3
    each: bool = False
    repeats: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta of RICAP must be above 0, got {self.beta}")

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
        """(corners, side) source position of each position along an axis of a patch, and the length of the patch."""
        length = side - cut if beyond else cut
        first = (rng.uniform((len(cut), 1)) * (side - length + 1)).long()
        return (place - (cut if beyond else 0) + first).clamp(0, side - 1), length
