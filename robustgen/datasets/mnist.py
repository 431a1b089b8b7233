"""MNIST from the original idx files, gzipped or not (LeCun, Cortes, Burges)."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from robustgen.images import DatasetInfo, ImageSet

INFO = DatasetInfo("mnist", tuple("0123456789"), (1, 28, 28), (0.5,), (0.5,))
"""Normalized to [-1, 1], as the released MNIST classifiers do."""

_UNSIGNED_BYTES = 8


def load(path: Path | None = None) -> tuple[ImageSet, ImageSet | None]:
    """Training and test images, in the official order.

    Args:
        path: the folder that holds `train-images-idx3-ubyte` and its like, with .gz or without; `data/mnist` when not
            given.

    Raises:
        ValueError: a file is missing or damaged; says which, and where to get it.
    """
    root = Path("data/mnist") if path is None else path
    parts = []
    for part in ("train", "t10k"):
        images, labels = (read_idx(_place(root, f"{part}-{name}-ubyte")) for name in ("images-idx3", "labels-idx1"))
        if images.shape[1:] != (28, 28):
            raise ValueError(f"{root}: expected {part} images of 28x28, got shape {images.shape}")
        parts.append(ImageSet(images[..., None], labels.astype(np.int64), INFO, f"{root}, {part}"))
    return parts[0], parts[1]


def _place(root: Path, name: str) -> Path:
    for file in (root / name, root / f"{name}.gz"):
        if file.is_file():
            return file
    raise ValueError(
        f"no MNIST in {root}: expected four files such as train-images-idx3-ubyte.gz there, {name} is missing; get it "
        "with robustgen fetch mnist, or from https://ossci-datasets.s3.amazonaws.com/mnist, and say where with "
        "--set data.path=FOLDER"
    )


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an idx file: two zero bytes, the type, the number of dimensions, each as a big-endian 32-bit
    number, then the values.

    Raises:
        ValueError: damaged, cut off, or of another type.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTES:
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    start = 4 + 4 * content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], dtype=">u4")) if len(content) >= start else ()
    if len(content) - start != np.prod(shape, dtype=object):
        raise ValueError(f"{path} is cut off: {len(content)} bytes do not hold values of shape {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
