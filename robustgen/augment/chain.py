"""A sequence of augmentations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustgen.contracts import Augment
from robustgen.randomness import Rng


@dataclass(frozen=True)
class Chain:
    """Apply augmentations in order, each with its own random stream."""

    parts: tuple[Augment, ...]

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        for number, part in enumerate(self.parts):
            images, targets = part(images, targets, rng.at("part", number))
        return images, targets
