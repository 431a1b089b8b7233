"""Sets of labeled images, kept as uint8; test images may be float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.units import show_value


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about all images of a dataset.

    name     as in `robustgen list datasets`
    classes  names of the classes; label k is classes[k]
    shape    (channels, height, width)
    mean     per channel, of training pixels in [0, 1]; the model normalizes with it
    std      per channel
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def unnormalized(self) -> DatasetInfo:
        """The same with mean 0 and std 1: a network for it does not normalize pixels."""
        return replace(self, mean=(0.0,) * len(self.mean), std=(1.0,) * len(self.std))


@dataclass(frozen=True)
class ImageSet:
    """N labeled images.

    images    (N, H, W, C) uint8, possibly memory-mapped; or float32 in [0, 1], for test sets that must not be rounded
    labels    (N,) int64 in [0, number of classes)
    rows      (N,) int64: position of each image in the file or dataset it was taken from; None for 0 .. N - 1
    notes     how the images were converted when they were read, one line each
    numbered  the classes are 0 .. the largest label found: a classifier may have more

    Raises:
        ValueError: shapes, types or labels do not fit `info`; says which.
    """

    images: np.ndarray
    labels: np.ndarray
    info: DatasetInfo
    origin: str = field(default="images")
    rows: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    numbered: bool = False

    def __post_init__(self) -> None:
        channels, height, width = self.info.shape
        if self.images.dtype not in (np.uint8, np.float32):
            raise ValueError(
                f"{self.origin}: images must be uint8 (0..255) or float32 in [0, 1], got {self.images.dtype}"
            )
        if self.is_float and not ((self.images >= 0) & (self.images <= 1)).all():
            raise ValueError(f"{self.origin}: float32 images must lie in [0, 1]")
        if self.images.shape[1:] != (height, width, channels):
            raise ValueError(
                f"{self.origin}: images must have shape (N, {height}, {width}, {channels}), got {self.images.shape}"
            )
        check_labels(self.labels, len(self.images), len(self.info.classes), self.origin)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray) -> ImageSet:
        """The images at these positions, in this order."""
        return replace(self, images=self.images[index], labels=self.labels[index], rows=self.source_rows[index])

    def noting(self, *notes: str) -> ImageSet:
        """The same with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    @property
    def is_float(self) -> bool:
        """Whether pixels are float32 in [0, 1] instead of bytes."""
        return self.images.dtype == np.float32

    def rounded(self) -> ImageSet:
        """The same with pixels rounded to bytes."""
        return replace(self, images=to_bytes(torch.from_numpy(self.images)).numpy()) if self.is_float else self

    @property
    def source_rows(self) -> np.ndarray:
        """(N,) int64: `rows`, written out."""
        return np.arange(len(self)) if self.rows is None else self.rows

    def pixels(self, device: torch.device | str = "cpu") -> Tensor:
        """(N, C, H, W) on a device, uint8 or float32 in [0, 1], in channels-last memory format like the stored ones."""
        return torch.from_numpy(np.ascontiguousarray(self.images)).to(device).permute(0, 3, 1, 2)

    def targets(self, device: torch.device | str = "cpu") -> Tensor:
        """(N,) int64 labels on a device."""
        return torch.from_numpy(np.ascontiguousarray(self.labels)).to(device)


LARGEST_SIDE = 4096
"""Pixels of a side, or channels, of images that models and generators are built for."""


def check_shape(about: Mapping[str, Any]) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """(channels, height, width) and the names of the classes that a file says a model is for.

    Raises:
        ValueError: they are missing, or none that there could be.
    """
    shape, classes, name = about.get("shape"), about.get("classes"), about.get("dataset")
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        raise ValueError(f"shape must be three numbers, (channels, height, width), got {show_value(shape)}")
    if not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in shape):
        raise ValueError(f"shape must be three numbers in 1..{LARGEST_SIDE}, got {show_value(shape)}")
    if not isinstance(classes, list | tuple) or not classes or not all(isinstance(one, str) for one in classes):
        raise ValueError(f"classes must be a list of names, got {show_value(classes)}")
    if not isinstance(name, str):
        raise ValueError(f"dataset must be a name, got {show_value(name)}")
    return (shape[0], shape[1], shape[2]), tuple(classes)


def check_labels(labels: np.ndarray, count: int, classes: int, origin: str) -> None:
    """Raise ValueError unless `labels` are `count` integers in [0, classes)."""
    if labels.shape != (count,):
        raise ValueError(f"{origin}: expected one label for each of {count} images, got shape {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{origin}: labels must be integers, got {labels.dtype}")
    if count and (labels.min() < 0 or labels.max() >= classes):
        wrong = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
        raise ValueError(f"{origin}: labels must lie in 0..{classes - 1}, got {int(labels[wrong])} at image {wrong}")


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]: divided by 255. Floats are in [0, 1] and stay as they are."""
    if pixels.is_floating_point():
        return pixels
    return pixels.float().div_(255)


def to_bytes(images: Tensor) -> Tensor:
    """[0, 1] to uint8, rounding half up: floor(255 u + 0.5), as in the published generated sets.

    (clamp(127.5 x + 128, 0, 255) truncated, for x = 2u - 1, is the same number.)
    """
    return (images * 255 + 0.5).clamp_(0, 255).to(torch.uint8)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(N, K) float32."""
    return torch.nn.functional.one_hot(labels, classes).float()
