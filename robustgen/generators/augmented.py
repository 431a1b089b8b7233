"""The training images themselves, augmented: the baseline of generators, in the form of one."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from robustgen.augment import build_augmentation
from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.generators import AugmentedConfig
from robustgen.generators.contracts import Generator, stored_size
from robustgen.images import DatasetInfo, ImageSet, to_unit
from robustgen.randomness import Rng
from robustgen.units import show_class

COMPANY = 16
"""Training images augmented together to make one sample: some augmentations mix an image with others."""


class Augmented(Generator):
    """A random training image of the class, augmented together with 15 others of any class.

    The heuristics that arXiv:2103.01946 compares generators with (Tables 1 and 5). Where an augmentation mixes images
    of several classes, the label is that of the image to which the others are added.
    """

    kind = "augmented"
    images: Tensor
    starts: Tensor

    def __init__(self, shape: tuple[int, int, int], classes: int, augment: str):
        super().__init__()
        self.shape, self.classes = shape, classes
        self.augment = build_augmentation(augment)
        self.register_buffer("images", torch.zeros(0, *shape, dtype=torch.uint8))
        self.register_buffer("starts", torch.zeros(classes + 1, dtype=torch.int64))

    @classmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        assert isinstance(config, AugmentedConfig)
        return cls(info.shape, len(info.classes), config.augment)

    @property
    def held(self) -> int:
        return len(self.images)

    def buffer_sizes(self) -> dict[str, int]:
        return {"held": self.held}

    def resize(self, sizes: dict[str, Any]) -> None:
        self.images = torch.zeros(stored_size(sizes, "held"), *self.shape, dtype=torch.uint8)

    def fit(self, images: ImageSet) -> str:
        """Keep the training images, sorted by class; returns how many.

        Raises:
            ValueError: a class without images.
        """
        counts = np.bincount(images.labels, minlength=self.classes)
        if not counts.all():
            raise ValueError(f"no training image of {show_class(images.info.classes[int(counts.argmin())])} to augment")
        order = np.argsort(images.labels, kind="stable")
        self.images = torch.from_numpy(np.ascontiguousarray(images.images[order].transpose(0, 3, 1, 2)))
        self.starts = torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
        return f"{self.held} images kept"

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """One image at a time, mixed with its own random partners, so the result is batch-independent."""
        counts = self.starts.diff()
        drawn = torch.empty(len(labels), *self.shape, device=self.images.device)
        for row, label in enumerate(labels.tolist()):
            own = rng.rows(torch.tensor(row, device=labels.device))
            first = self.starts[label] + own.at("image").integers(int(counts[label]), (1,))
            others = own.at("company").integers(self.held, (COMPANY - 1,))
            images = to_unit(self.images[torch.cat([first, others])])
            if self.augment is not None:
                images, _ = self.augment(images, torch.zeros(COMPANY, 1, device=images.device), own.at("augment"))
            drawn[row] = images[0]
        return drawn.clamp_(0, 1)
