"""CIFAR-10 from the official files: the Python version or the binary version (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustgen.images import DatasetInfo, ImageSet
from robustgen.unpickling import load_plain_pickle

INFO = DatasetInfo(
    "cifar10",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (3, 32, 32),
    (0.4914, 0.4822, 0.4465),
    (0.2471, 0.2435, 0.2616),
)

PYTHON_FOLDER, BINARY_FOLDER = "cifar-10-batches-py", "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))


def load(path: Path | None = None) -> tuple[ImageSet, ImageSet | None]:
    """Training and test images, in the official order.

    Args:
        path: the folder that holds `cifar-10-batches-py` or `cifar-10-batches-bin`, or one of these; `data/cifar10`
            when not given. Fewer than five training batches are taken as they are.

    Raises:
        ValueError: nothing there, or a damaged file; says where to get it.
    """
    root = Path("data/cifar10") if path is None else path
    for folder in (root, root / PYTHON_FOLDER, root / BINARY_FOLDER):
        for suffix, read in (("", read_python_batch), (".bin", read_binary_batch)):
            batches = [folder / (name + suffix) for name in TRAIN if (folder / (name + suffix)).is_file()]
            test = folder / ("test_batch" + suffix)
            if batches and test.is_file():
                return _joined([read(batch) for batch in batches], folder), _joined([read(test)], folder)
    raise ValueError(
        f"no CIFAR-10 in {root}: expected {PYTHON_FOLDER}/data_batch_1 ... test_batch, or {BINARY_FOLDER}/*.bin there; "
        "get it from https://www.cs.toronto.edu/~kriz/cifar.html, unpack it, and say where with --set data.path=FOLDER"
    )


def _joined(parts: list[tuple[np.ndarray, np.ndarray]], folder: Path) -> ImageSet:
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return ImageSet(images, labels, INFO, str(folder))


def read_python_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of one pickled batch; no code of the file is run."""
    content = load_plain_pickle(path)
    try:
        data, labels = np.asarray(content[b"data"]), np.asarray(content[b"labels"], dtype=np.int64)
        if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            raise ValueError(f"data is {data.dtype} of shape {data.shape}, expected uint8 (N, 3072)")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a CIFAR-10 batch ({error})") from None
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def read_binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same from the binary version: records of one label byte and 3,072 pixel bytes, channel by channel."""
    records = np.fromfile(path, dtype=np.uint8)
    if not len(records) or len(records) % 3073:
        raise ValueError(
            f"{path} is not a whole CIFAR-10 batch: {len(records)} bytes are no multiple of 3,073; was it cut off?"
        )
    records = records.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int64)
