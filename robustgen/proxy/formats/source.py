"""The contract of formats of published sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK = 4096
"""Number of images in memory at a time."""


@dataclass(frozen=True)
class PublishedSet:
    """An opened published set: labels are read and checked, pixels are still in their files.

    shape    (height, width, channels)
    labels   (N,) int32 in [0, number of classes)
    classes  their names
    blocks   iterator over the images from a position, as uint8 (n, H, W, C), a few thousand at a time; raises
             ValueError if the files are damaged
    """

    shape: tuple[int, int, int]
    labels: np.ndarray
    classes: tuple[str, ...]
    blocks: Callable[[int], Iterator[np.ndarray]]


@dataclass(frozen=True)
class ExportedImages:
    """Labeled images to write, in order.

    shape    (height, width, channels)
    labels   (N,) integers
    classes  their names
    blocks   all images, uint8 (n, H, W, C) a few thousand at a time
    """

    shape: tuple[int, int, int]
    labels: np.ndarray
    classes: tuple[str, ...]
    blocks: Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Format:
    """A member of the family.

    fits   whether the names of files match the format
    read   open files as a source; raises ValueError, one line, for damaged or malicious files and other layouts
    write  write a new file or folder; None if the format is only read
    """

    fits: Callable[[Sequence[Path]], bool]
    read: Callable[[Sequence[Path]], PublishedSet]
    write: Callable[[Path, ExportedImages], None] | None = None


def checked_labels(labels: np.ndarray, count: int, origin: Path) -> np.ndarray:
    """Labels as int32. Raises ValueError unless they are one integer per image, from 0 to less than a million."""
    if labels.shape != (count,):
        raise ValueError(f"{origin}: expected one label for each of {count} images, got shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{origin}: labels must be integers, got {labels.dtype}")
    if count and not (int(labels.min()) >= 0 and int(labels.max()) < 1_000_000):
        raise ValueError(f"{origin}: labels must lie in 0..999999, got {int(labels.min())} to {int(labels.max())}")
    return labels.astype(np.int32)


def numbered(labels: np.ndarray) -> tuple[str, ...]:
    """Names of classes that have none: 0 .. largest label."""
    return tuple(str(k) for k in range(int(labels.max()) + 1))
