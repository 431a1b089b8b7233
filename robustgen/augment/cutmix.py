"""CutMix: a window of each image comes from another."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustgen.augment.cutout import span
from robustgen.augment.mixup import partners
from robustgen.randomness import Rng


@dataclass(frozen=True)
class CutMix:
    """A window is replaced by what another image of the batch has there, and labels are mixed by area.

        side_h = floor(H sqrt(1 - lambda)),   side_w = floor(W sqrt(1 - lambda)),    lambda ~ U(0, 1)
        image <- image outside the window, partner inside;   target <- kept * target + (1 - kept) * partner's

    The window lies around a uniform pixel, half a side each way (an odd side loses a pixel), and is clipped at the
    border; `kept` is the share outside what is left of it. The partner is the batch in a random order, real and
    generated images alike.

    window   a side in pixels instead of a random one (arXiv:2103.01946, App. B)
    each     a window for each image, not one for the batch
    repeats  how often each original stands in the batch; partners then keep to sub-batches (`mixup.partners`)

    Source: Yun et al. 2019, arXiv:1905.04899; in the form of google-deepmind/deepmind-research,
    adversarial_robustness/jax/utils.py.
    """

    window: int | None = None
    each: bool = False
    repeats: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if self.window is not None and (not isinstance(self.window, int) or self.window < 1):
            raise ValueError(f"CutMix needs a window of whole pixels, at least 1, got {self.window}")

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        count, _, height, width = images.shape
        draws = rng.uniform((3, count if self.each else 1))
        inside = self._along(draws[0], draws[1], height)[:, :, None] & self._along(draws[0], draws[2], width)[:, None]
        partner = partners(count, self.repeats, rng)
        kept = 1 - inside.float().mean((1, 2))[:, None]
        mixed = torch.where(inside[:, None], images[partner], images)
        return mixed, kept * targets + (1 - kept) * targets[partner]

    def _along(self, kept: Tensor, place: Tensor, side: int) -> Tensor:
        """(windows, side) which positions along an axis the windows cover."""
        centre = (place * side).long()
        if self.window is not None:
            return span(centre, self.window, side)
        return span(centre, 2 * ((1 - kept).sqrt() * side / 2).long(), side)
