"""Images varied without the variation leaking into what is generated: EDM's way, and StyleGAN2-ADA's."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from robustgen.generators.warping import rotation, scaling, shift, warped
from robustgen.randomness import Rng
from robustgen.runtime import distributed


def augmented(images: Tensor, probability: float, rng: Rng) -> tuple[Tensor, Tensor]:
    """Varied images, and what was done to each, which is an input of EDM's network.

    Mirrored left to right with probability 1/2; each of the others with `probability`: mirrored top to bottom (1/2 of
    that), scaled by 2^(0.2 n), turned by any angle, stretched by 2^(0.2 n) along an axis and as much shortened across
    it (the axis is level, or as often at any angle), shifted by 0.125 n of the size; n standard normal.

    Args:
        images: (N, C, H, W) in [-1, 1].
        probability: 0.12 in EDM.

    Returns:
        images (N, C, H, W), which may leave [-1, 1] a little, and (N, 9): left-right, top-bottom, n of the scale,
        cos - 1 and sin of the turn, n cos and n sin of the stretch, n of the shift in x and y. All are 0 where nothing
        was done.

    Source: arXiv:2206.00364, App. F.2.
    """
    count, _, height, width = images.shape
    on = (rng.at("whether").uniform((5, count)) < probability).float()
    across, down = rng.at("mirrors").integers(2, (2, count)).float()
    turn, axis = (rng.at("angles").uniform((2, count)) * 2 - 1) * math.pi
    scale, stretch = rng.at("scales").normal((2, count)) * on[:2]
    down, turn = down * on[2], turn * on[3]
    axis = axis * (rng.at("any axis").uniform((count,)) < 0.5)
    x, y = rng.at("shift").normal((2, count)) * on[4]
    images = _mirrored(_mirrored(images, across, 3), down, 2)
    inverse = (
        scaling((-0.2 * scale).exp2(), (-0.2 * scale).exp2())
        @ rotation(-turn)
        @ rotation(axis)
        @ scaling((-0.2 * stretch).exp2(), (0.2 * stretch).exp2())
        @ rotation(-axis)
        @ shift(-0.125 * width * x, -0.125 * height * y)
    )
    told = [across, down, scale, turn.cos() - 1, turn.sin(), stretch * axis.cos(), stretch * axis.sin(), x, y]
    return warped(images, inverse), torch.stack(told, dim=1)


def varied(images: Tensor, strength: Tensor | float, rng: Rng) -> Tensor:
    """Images as the discriminator of StyleGAN2-ADA sees them, each change made with probability `strength`.

    Geometry, in this order: mirrored (1/2 of that), turned by quarters, shifted by whole pixels up to an eighth of the
    size, scaled by 2^(0.2 n), turned, stretched by 2^(0.2 n) and as much shortened across, turned again, shifted by
    0.125 n of the size. Each of the two turns comes with 1 - sqrt(1 - strength), so one or both do with `strength`.

    Color: brighter by 0.2 n, contrast times 2^(0.5 n), grey parts negated (1/2 of that), hues turned about the grey
    axis, saturation times 2^n. With g the mean over channels and d = x - g an image's difference from grey:

        contrast (+-(g + brightness) + saturation (cos(hue) d + sin(hue) (1, 1, 1) / sqrt(3) cross d))

    Gradients of every order pass through. Below a strength of about 0.8 what is learnt from varied images is the
    distribution without variation.

    Args:
        images: (N, C, H, H), C 1 or 3, in [-1, 1]; grey images have no hue and no saturation.
        strength: at least 0; from 1 on everything is always done.

    Source: arXiv:2006.06676, Sec. 2 and App. B ("bgc").
    """
    count, channels, size, _ = images.shape
    strength = torch.as_tensor(strength, device=images.device)
    on = (rng.at("whether").uniform((11, count)) < strength).float()
    one_of_two = (rng.at("turns").uniform((2, count)) < 1 - (1 - strength).clamp(0, 1).sqrt()).float()
    mirror, negative = rng.at("coins").integers(2, (2, count)) * on[:2]
    quarters = rng.at("quarters").integers(4, (count,)) * on[2]
    steps = ((rng.at("steps").uniform((2, count)) * 2 - 1) * (0.125 * size)).round() * on[3]
    slides = rng.at("slides").normal((2, count)) * (0.125 * size * on[4])
    scale, stretch, brightness, contrast, saturation = rng.at("normal").normal((5, count)) * on[5:10]
    angles = (rng.at("angles").uniform((3, count)) * 2 - 1) * math.pi
    (before, after), hue = angles[:2] * one_of_two, angles[2] * on[10]

    images = _quarter_turned(_mirrored(images, mirror, 3), quarters)
    inverse = (
        shift(*-steps)
        @ scaling((-0.2 * scale).exp2(), (-0.2 * scale).exp2())
        @ rotation(-before)
        @ scaling((-0.2 * stretch).exp2(), (0.2 * stretch).exp2())
        @ rotation(-after)
        @ shift(*-slides)
    )
    images = warped(images, inverse)

    def wide(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    grey = images.mean(1, keepdim=True)
    colored = wide(1 - 2 * negative) * (grey + wide(0.2 * brightness))
    if channels == 3:
        away = images - grey
        across = (away.roll(1, 1) - away.roll(-1, 1)) / math.sqrt(3)
        colored = colored + wide(saturation.exp2()) * (wide(hue.cos()) * away + wide(hue.sin()) * across)
    return wide((0.5 * contrast).exp2()) * colored


class Adaptation:
    """How strongly a discriminator's images are varied: more while it is surer of real images than of others.

        r = mean of sign(D(real images)),   strength <- max(0, strength + sign(r - target) images seen / growth)

    every so many steps. Nothing is read back from the device. Over several processes r is of all their images.

    Source: arXiv:2006.06676, Sec. 3.
    """

    def __init__(self, target: float, growth: float, device: torch.device, every: int = 4):
        self.strength = torch.zeros((), device=device)
        self.target, self.growth, self.every = target, growth, every
        self._signs = torch.zeros(2, device=device)
        self._steps, self._images = 0, 0

    @torch.no_grad()
    def see(self, logits: Tensor) -> None:
        """Take note of logits of real images."""
        self._signs[0] += logits.sign().sum()
        self._signs[1] += logits.numel()

    def after_step(self, images: int) -> None:
        """Adapt the strength after a training step that took `images` images."""
        self._steps, self._images = self._steps + 1, self._images + images
        if self._steps % self.every == 0:
            distributed.mean_over_all([self._signs])
            surer = torch.sign(self._signs[0] / self._signs[1] - self.target)
            self.strength.add_(surer * (self._images / self.growth)).clamp_(min=0)
            self._signs.zero_()
            self._images = 0

    def state_dict(self) -> dict[str, Any]:
        return {"strength": self.strength, "signs": self._signs, "steps": self._steps, "images": self._images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.strength.copy_(state["strength"])
        self._signs.copy_(state["signs"])
        self._steps, self._images = state["steps"], state["images"]


def _mirrored(images: Tensor, whether: Tensor, axis: int) -> Tensor:
    return torch.where((whether > 0).view(-1, 1, 1, 1), images.flip(axis), images)


def _quarter_turned(images: Tensor, quarters: Tensor) -> Tensor:
    chosen = turned = images
    for quarter in (1, 2, 3):
        turned = turned.rot90(1, (2, 3))
        chosen = torch.where((quarters == quarter).view(-1, 1, 1, 1), turned, chosen)
    return chosen
