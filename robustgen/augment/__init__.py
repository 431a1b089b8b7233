"""Augmentations, by the names that recipes use."""

from __future__ import annotations

from robustgen.augment.crop_flip import CropFlip
from robustgen.contracts import Augment

AUGMENTATIONS: dict[str, Augment | None] = {
    "none": None,
    "shift-1": CropFlip(padding=1, flip=0.0),
    "crop-flip": CropFlip(padding=4, flip=0.5),
}

__all__ = ["AUGMENTATIONS", "CropFlip"]
