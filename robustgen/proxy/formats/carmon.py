"""Pickle of a dictionary with `data` uint8 (N, 32, 32, 3) and `extrapolated_targets`, N integers.

Carmon et al. (arXiv:1905.13736) publish ti_500K_pseudo_labeled.pickle in this format. It is read into memory by an
unpickler for arrays and plain values, which runs no code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from robustgen.proxy.formats.source import BLOCK, Format, PublishedSet, checked_labels, numbered
from robustgen.storage.safe_pickle import load_plain_pickle


def read(paths: Sequence[Path]) -> PublishedSet:
    """Read the file."""
    if len(paths) != 1:
        raise ValueError(f"expected one pickle, got {len(paths)} files")
    content = load_plain_pickle(paths[0])
    if not isinstance(content, dict):
        raise ValueError(f"{paths[0]} holds a {type(content).__name__}; expected a dictionary")
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    missing = [key for key in ("data", "extrapolated_targets") if key not in named]
    if missing:
        trap = "; a file with only pseudo-labels has to be merged with its images first" if missing == ["data"] else ""
        raise ValueError(f"{paths[0]} lacks {' and '.join(missing)}{trap}")
    images = np.asarray(named["data"])
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise ValueError(f"{paths[0]}: data must be uint8 (N, H, W, C), got {images.dtype} {images.shape}")
    labels = checked_labels(np.asarray(named["extrapolated_targets"]), len(images), paths[0])
    height, width, channels = images.shape[1:]

    def blocks(first: int) -> Iterator[np.ndarray]:
        for start in range(first, len(images), BLOCK):
            yield images[start : start + BLOCK]

    return PublishedSet((height, width, channels), labels, numbered(labels), blocks)


def fits(paths: Sequence[Path]) -> bool:
    return len(paths) == 1 and paths[0].suffix in (".pickle", ".pkl")


FORMAT = Format(fits, read)
