"""ImageNet downsampled to 64x64, from the official batches, npz or pickled (arXiv:1707.08819)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustgen.images import DatasetInfo, ImageSet
from robustgen.storage.arrays import load_arrays
from robustgen.storage.safe_pickle import load_plain_pickle

INFO = DatasetInfo(
    "imagenet64",
    tuple(str(k) for k in range(1, 1001)),
    (3, 64, 64),
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)
"""The official batches number the classes 1..1000 in an order of their own (map_clsloc.txt); label k is class k + 1."""

_TRAIN = tuple(f"train_data_batch_{i}" for i in range(1, 11))


def load(path: Path | None = None) -> tuple[ImageSet, ImageSet | None]:
    """Training images and the official validation images, which are the test set, in the official order.

    Args:
        path: the folder that holds `train_data_batch_1.npz` ... and `val_data.npz` (or the same without .npz, pickled);
            `data/imagenet64` when not given. Fewer than ten training batches are taken as they are; all ten need 16 GB
            of memory.

    Raises:
        ValueError: nothing there, or a damaged file; says where to get it.
    """
    root = Path("data/imagenet64") if path is None else path
    batches = [file for name in _TRAIN for file in _versions(root, name)]
    test = _versions(root, "val_data")
    if not batches or not test:
        raise ValueError(
            f"no ImageNet-64 in {root}: expected train_data_batch_1.npz ... train_data_batch_10.npz and val_data.npz "
            "there; log in at https://image-net.org/download-images, take the three archives of 64x64 in npz format, "
            "unpack them, and say where with --set data.path=FOLDER"
        )
    images: np.ndarray | None = None
    labels: list[np.ndarray] = []
    for number, batch in enumerate(batches):
        data, some = read_batch(batch)
        if images is None:  # the batches are equal but the last, so this much holds all of them
            images = np.empty((len(batches) * len(data), 64, 64, 3), dtype=np.uint8)
        have = sum(map(len, labels))
        if have + len(data) > len(images):
            images = np.concatenate([images, np.empty(((len(batches) - number) * len(data), 64, 64, 3), np.uint8)])
        images[have : have + len(data)] = data.reshape(-1, 3, 64, 64).transpose(0, 2, 3, 1)
        labels.append(some)
    assert images is not None
    everything = np.concatenate(labels)
    data, some = read_batch(test[0])
    return (
        ImageSet(images[: len(everything)], everything, INFO, str(root)),
        ImageSet(data.reshape(-1, 3, 64, 64).transpose(0, 2, 3, 1), some, INFO, str(test[0])),
    )


def _versions(root: Path, name: str) -> list[Path]:
    return [file for file in (root / f"{name}.npz", root / name) if file.is_file()][:1]


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 12288) uint8, channel by channel, and labels (N,) from 0 of one batch; no code of it is run.

    Raises:
        ValueError: damaged, or no such batch.
    """
    content = load_arrays(path) if path.suffix == ".npz" else load_plain_pickle(path, encoding="latin1")
    try:
        data, labels = np.asarray(content["data"]), np.asarray(content["labels"])
        if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * 64 * 64:
            raise ValueError(f"data is {data.dtype} of shape {data.shape}, expected uint8 (N, 12288)")
        if labels.shape != (len(data),) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}, expected integers, one an image")
        if len(labels) and not 1 <= labels.min() <= labels.max() <= 1000:
            raise ValueError(f"labels lie in {labels.min()}..{labels.max()}, expected 1..1000")
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not a batch of ImageNet-64 ({error})") from None
    return data, labels.astype(np.int64) - 1
