"""AutoAugment and RandAugment: Pillow's operations from a learned policy, or drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustgen.augment.operations import OPERATIONS, TWO_WAYS, amount_of, apply_each
from robustgen.images import to_bytes, to_unit
from robustgen.randomness import Rng

Step = tuple[str, float, int]
"""An operation, its probability and its level (0 for operations without a level)."""

POLICIES: dict[str, tuple[tuple[Step, Step], ...]] = {
    "cifar10": (
        (("invert", 0.1, 0), ("contrast", 0.2, 6)),
        (("rotate", 0.7, 2), ("translate-x", 0.3, 9)),
        (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
        (("shear-y", 0.5, 8), ("translate-y", 0.7, 9)),
        (("auto-contrast", 0.5, 0), ("equalize", 0.9, 0)),
        (("shear-y", 0.2, 7), ("posterize", 0.3, 7)),
        (("color", 0.4, 3), ("brightness", 0.6, 7)),
        (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
        (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
        (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
        (("color", 0.7, 7), ("translate-x", 0.5, 8)),
        (("equalize", 0.3, 0), ("auto-contrast", 0.4, 0)),
        (("translate-y", 0.4, 3), ("sharpness", 0.2, 6)),
        (("brightness", 0.9, 6), ("color", 0.2, 8)),
        (("solarize", 0.5, 2), ("invert", 0.0, 0)),
        (("equalize", 0.2, 0), ("auto-contrast", 0.6, 0)),
        (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
        (("color", 0.9, 9), ("equalize", 0.6, 0)),
        (("auto-contrast", 0.8, 0), ("solarize", 0.2, 8)),
        (("brightness", 0.1, 3), ("color", 0.7, 0)),
        (("solarize", 0.4, 5), ("auto-contrast", 0.9, 0)),
        (("translate-y", 0.9, 9), ("translate-y", 0.7, 9)),
        (("auto-contrast", 0.9, 0), ("solarize", 0.8, 3)),
        (("equalize", 0.8, 0), ("invert", 0.1, 0)),
        (("translate-y", 0.7, 9), ("auto-contrast", 0.9, 0)),
    ),
    "svhn": (
        (("shear-x", 0.9, 4), ("invert", 0.2, 0)),
        (("shear-y", 0.9, 8), ("invert", 0.7, 0)),
        (("equalize", 0.6, 0), ("solarize", 0.6, 6)),
        (("invert", 0.9, 0), ("equalize", 0.6, 0)),
        (("equalize", 0.6, 0), ("rotate", 0.9, 3)),
        (("shear-x", 0.9, 4), ("auto-contrast", 0.8, 0)),
        (("shear-y", 0.9, 8), ("invert", 0.4, 0)),
        (("shear-y", 0.9, 5), ("solarize", 0.2, 6)),
        (("invert", 0.9, 0), ("auto-contrast", 0.8, 0)),
        (("equalize", 0.6, 0), ("rotate", 0.9, 3)),
        (("shear-x", 0.9, 4), ("solarize", 0.3, 3)),
        (("shear-y", 0.8, 8), ("invert", 0.7, 0)),
        (("equalize", 0.9, 0), ("translate-y", 0.6, 6)),
        (("invert", 0.9, 0), ("equalize", 0.6, 0)),
        (("contrast", 0.3, 3), ("rotate", 0.8, 4)),
        (("invert", 0.8, 0), ("translate-y", 0.0, 2)),
        (("shear-y", 0.7, 6), ("solarize", 0.4, 8)),
        (("invert", 0.6, 0), ("rotate", 0.8, 4)),
        (("shear-y", 0.3, 7), ("translate-x", 0.9, 3)),
        (("shear-x", 0.1, 6), ("invert", 0.6, 0)),
        (("solarize", 0.7, 2), ("translate-y", 0.6, 7)),
        (("shear-y", 0.8, 4), ("invert", 0.8, 0)),
        (("shear-x", 0.7, 9), ("translate-y", 0.8, 3)),
        (("shear-y", 0.8, 5), ("auto-contrast", 0.7, 0)),
        (("shear-x", 0.7, 2), ("invert", 0.1, 0)),
    ),
}

RANDOM_OPERATIONS = (
    "identity", "auto-contrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast", "brightness",
    "sharpness", "shear-x", "shear-y", "translate-x", "translate-y",
)  # fmt: skip
"""The operations of RandAugment (arXiv:1909.13719)."""


def _bytes_of(images: Tensor) -> Tensor:
    """Convert images to bytes for the operations; exact for images with 256 levels."""
    if images.shape[1] not in (1, 3):
        raise ValueError(f"AutoAugment and RandAugment need images of 1 or 3 channels, got {images.shape[1]}")
    return to_bytes(images)


def _amounts(names: tuple[str, ...], levels: tuple[float, ...], side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Amounts of operations at the given levels, and whether the operations have a sign."""
    values = [amount_of(name, level, side) for name, level in zip(names, levels, strict=True)]
    return (
        torch.tensor(values, dtype=torch.float64, device=like.device),
        torch.tensor([name in TWO_WAYS for name in names], device=like.device),
    )


@dataclass(frozen=True)
class AutoAugment:
    """Apply one of the 25 pairs of operations of a learned policy, drawn at random for each image.

    Images are rounded to bytes. The authors apply pad, crop and flip before, and Cutout of 16 pixels after.

    policy  "cifar10" (also for CIFAR-100) or "svhn"

    Source: Cubuk et al. 2019, arXiv:1805.09501.
    """

    policy: str = "cifar10"

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"unknown policy {self.policy!r}; known: {', '.join(POLICIES)}")

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        pixels, policy, device = _bytes_of(images), POLICIES[self.policy], images.device
        names = tuple(OPERATIONS)
        pair = rng.integers(len(policy), (len(images),))
        for slot in (0, 1):
            operations, probabilities, levels = zip(*(steps[slot] for steps in policy), strict=True)
            amounts, signed = _amounts(operations, levels, images.shape[3], images)
            numbers = torch.tensor([names.index(name) for name in operations], device=device)
            happens = rng.uniform((len(images),)) < torch.tensor(probabilities, device=device)[pair]
            sign = torch.where(signed[pair], 2 * rng.integers(2, (len(images),)) - 1, 1)
            pixels = apply_each(names, torch.where(happens, numbers[pair], -1), amounts[pair] * sign, pixels)
        return to_unit(pixels), targets


@dataclass(frozen=True)
class RandAugment:
    """Apply `number` of fourteen operations, drawn at random for each image, all at the same magnitude.

    Images are rounded to bytes. The magnitude is 0 to 30, three times AutoAugment's level, as in the ports.

    Source: Cubuk et al. 2020, arXiv:1909.13719.
    """

    number: int = 2
    magnitude: float = 14

    def __post_init__(self) -> None:
        if not isinstance(self.number, int) or self.number < 1:
            raise ValueError(f"RandAugment needs at least 1 operation, got {self.number}")
        if not 0 <= self.magnitude <= 30:
            raise ValueError(f"RandAugment needs a magnitude of 0 to 30, got {self.magnitude}")

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        pixels, count = _bytes_of(images), len(images)
        levels = (self.magnitude / 3,) * len(RANDOM_OPERATIONS)
        amounts, signed = _amounts(RANDOM_OPERATIONS, levels, images.shape[3], images)
        for _ in range(self.number):
            chosen = rng.integers(len(RANDOM_OPERATIONS), (count,))
            sign = torch.where(signed[chosen], 2 * rng.integers(2, (count,)) - 1, 1)
            pixels = apply_each(RANDOM_OPERATIONS, chosen, amounts[chosen] * sign, pixels)
        return to_unit(pixels), targets
