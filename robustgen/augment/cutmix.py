"""CutMix: replace a window of each image by that of another image."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustgen.augment.cutout import span
from robustgen.augment.mixup import partners
from robustgen.randomness import Rng


@dataclass(frozen=True)
class CutMix:
    """Replace a window by the same window of another image of the batch, and mix labels by area.

        side_h = floor(H sqrt(1 - lambda)),   side_w = floor(W sqrt(1 - lambda)),    lambda ~ U(0, 1)
        image <- image outside the window, partner inside;   target <- kept * target + (1 - kept) * partner's target

    The window is centered at a uniformly random pixel and extends half a side in each direction (an odd side is reduced
    by a pixel). It is clipped at the border; `kept` is the fraction of the image outside the clipped window. Partners
    are a random permutation of the batch, which mixes real and generated images.

    window   side of the window in pixels, instead of a random side (arXiv:2103.01946, App. B)
    each     draw a window per image, not per batch
    repeats  number of copies of each original in the batch; partners then keep to sub-batches (`mixup.partners`)

    Source: Yun et al. 2019, arXiv:1905.04899; in the form of google-deepmind/deepmind-research,
    adversarial_robustness/jax/utils.py.
    """

    window: int | None = None
    each: bool = False
    repeats: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if self.window is not None and (not isinstance(self.window, int) or self.window < 1):
            raise ValueError(f"the window of CutMix must be a whole number of pixels, at least 1, got {self.window}")

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        count, _, height, width = images.shape
        draws = rng.uniform((3, count if self.each else 1))
        inside = self._along(draws[0], draws[1], height)[:, :, None] & self._along(draws[0], draws[2], width)[:, None]
        partner = partners(count, self.repeats, rng)
        kept = 1 - inside.float().mean((1, 2))[:, None]
        mixed = torch.where(inside[:, None], images[partner], images)
        return mixed, kept * targets + (1 - kept) * targets[partner]

    def _along(self, kept: Tensor, place: Tensor, side: int) -> Tensor:
        """(windows, side) bool: positions along an axis that the windows cover."""
        center = (place * side).long()
        if self.window is not None:
            return span(center, self.window, side)
        return span(center, 2 * ((1 - kept).sqrt() * side / 2).long(), side)
