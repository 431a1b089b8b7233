"""WebDataset: `.tar` archives of samples, a picture KEY.png with its label KEY.cls.

Nothing is unpacked to disk: labels are read in one pass, then pictures directly from the archives.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from robustgen.proxy.formats.pictures import READABLE_SUFFIXES, decode
from robustgen.proxy.formats.source import BLOCK, Format, PublishedSet, checked_labels, numbered
from robustgen.storage.tars import index_tar


def read(paths: Sequence[Path]) -> PublishedSet:
    """The archives, in the order given, as one set."""
    samples = [(path, *sample) for path in paths for sample in index_tar(path, READABLE_SUFFIXES)]
    if not samples:
        raise ValueError(f"{paths[0]} holds no pictures with a .cls of the same name")
    labels = checked_labels(np.array([sample[4] for sample in samples], dtype=np.int64), len(samples), paths[0])

    def picture(place: int, shape: tuple[int, int, int] | None = None) -> np.ndarray:
        path, name, offset, size, _ = samples[place]
        with path.open("rb") as file:
            file.seek(offset)
            return decode(io.BytesIO(file.read(size)), f"{path}: {name!r}", shape)

    height, width, channels = picture(0).shape

    def blocks(first: int) -> Iterator[np.ndarray]:
        for start in range(first, len(samples), BLOCK):
            places = range(start, min(start + BLOCK, len(samples)))
            yield np.stack([picture(place, (height, width, channels)) for place in places])

    return PublishedSet((height, width, channels), labels, numbered(labels), blocks)


def fits(paths: Sequence[Path]) -> bool:
    return all(path.suffix == ".tar" for path in paths)


FORMAT = Format(fits, read)
