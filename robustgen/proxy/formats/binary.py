"""Raw `.bin` of CIFAR-sized images, 3,072 bytes each in (H, W, C) order, with an `.npy` of labels.

Sehwag et al. (arXiv:2104.09425) publish their set in this format: NAME_images.bin and NAME_labels.npy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from robustgen.proxy.formats.source import BLOCK, Format, PublishedSet, checked_labels, numbered
from robustgen.proxy.store import read_array
from robustgen.units import show_names

SHAPE = (32, 32, 3)
BYTES = 3072


def read(paths: Sequence[Path]) -> PublishedSet:
    """Read a `.bin`, with labels from the `.npy` given with it or next to it."""
    images = [path for path in paths if path.suffix == ".bin"]
    labels = [path for path in paths if path.suffix == ".npy"]
    if len(images) != 1 or len(labels) > 1 or len(paths) > 2:
        raise ValueError(f"expected one .bin and one .npy of labels, got {show_names([path.name for path in paths])}")
    neighbor = images[0].with_name(f"{images[0].stem.removesuffix('_images')}_labels.npy")
    where = labels[0] if labels else neighbor
    for path in (images[0], where):
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
    size = images[0].stat().st_size
    count = size // BYTES
    if not count or size % BYTES:
        raise ValueError(
            f"{images[0]} is cut off or not a raw CIFAR file: its {size:,} bytes are not a multiple of {BYTES:,}"
        )
    found = checked_labels(read_array(where, mapped=True).view(np.ndarray), count, where)

    def blocks(first: int) -> Iterator[np.ndarray]:
        mapped = np.memmap(images[0], np.uint8, "r", shape=(count, *SHAPE)).view(np.ndarray)
        for start in range(first, count, BLOCK):
            yield mapped[start : start + BLOCK]

    return PublishedSet(SHAPE, found, numbered(found), blocks)


def fits(paths: Sequence[Path]) -> bool:
    return any(path.suffix == ".bin" for path in paths) and all(path.suffix in (".bin", ".npy") for path in paths)


FORMAT = Format(fits, read)
