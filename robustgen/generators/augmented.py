"""The training images themselves, augmented: what generators must surpass, in the form of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.augment import build_augmentation
from robustgen.config.generators import SamplerConfig
from robustgen.images import ImageSet, to_unit
from robustgen.randomness import Rng

COMPANY = 16
"""Training images that are augmented together, of which one is kept: some augmentations mix an image with others."""


class Augmented(nn.Module):
    """A random training image of the asked class, as the augmentation leaves it beside 15 others of any class.

    The heuristics beside which arXiv:2103.01946 puts generators (Tables 1 and 5). An augmentation that mixes labels
    gives no image of one class: the asked one is that of the image to which the others are added.
    """

    images: Tensor
    starts: Tensor

    def __init__(self, shape: tuple[int, int, int], classes: int, augment: str, held: int = 0):
        super().__init__()
        self.shape, self.classes, self.held = shape, classes, held
        self.augment = build_augmentation(augment)
        self.register_buffer("images", torch.zeros(held, *shape, dtype=torch.uint8))
        self.register_buffer("starts", torch.zeros(classes + 1, dtype=torch.int64))

    def fit(self, images: ImageSet) -> str:
        """Keep the images, class after class; returns how many.

        Raises:
            ValueError: a class without images.
        """
        counts = np.bincount(images.labels, minlength=self.classes)
        if not counts.all():
            raise ValueError(f"no training image of class {images.info.classes[int(counts.argmin())]} to augment")
        order = np.argsort(images.labels, kind="stable")
        self.held = len(images)
        self.images = torch.from_numpy(np.ascontiguousarray(images.images[order].transpose(0, 3, 1, 2)))
        self.starts = torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
        return f"{self.held} images kept"

    def configure_sampler(self, draw: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]:
        """There is one way."""
        draw.refuse("augmented images", "guidance", "guide", "temperature")
        return {}

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Image by image, each in company of its own, so that it does not depend on its batch."""
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
