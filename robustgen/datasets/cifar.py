"""CIFAR-10 and CIFAR-100 from the official files: the Python version or the binary version (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustgen.images import DatasetInfo, ImageSet
from robustgen.storage.safe_pickle import load_plain_pickle

INFO = DatasetInfo(
    "cifar10",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (3, 32, 32),
    (0.4914, 0.4822, 0.4465),
    (0.2471, 0.2435, 0.2616),
)

FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
"""Classes of CIFAR-100, in the official order."""
INFO_100 = DatasetInfo(
    "cifar100",
    tuple(FINE.split()),
    (3, 32, 32),
    (0.5071, 0.4865, 0.4409),
    (0.2673, 0.2564, 0.2762),
)
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}

PYTHON_FOLDER, BINARY_FOLDER = "cifar-10-batches-py", "cifar-10-batches-bin"
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))


def load(path: Path | None = None) -> tuple[ImageSet, ImageSet | None]:
    """Training and test images, in the official order.

    Args:
        path: the folder that holds `cifar-10-batches-py` or `cifar-10-batches-bin`, or one of these; `data/cifar10`
            when not given. Fewer than five training batches are taken as they are.

    Raises:
        ValueError: nothing there, or a damaged file; says where to get it.
    """
    root = Path("data/cifar10") if path is None else path
    found = _find(root, (PYTHON_FOLDER, BINARY_FOLDER), _TRAIN, "test_batch", INFO)
    if found is None:
        raise ValueError(
            f"no CIFAR-10 in {root}: expected {PYTHON_FOLDER}/data_batch_1 ... test_batch, or {BINARY_FOLDER}/*.bin "
            "there; get it with robustgen fetch cifar10, or from https://www.cs.toronto.edu/~kriz/cifar.html, unpack "
            "it, and say where with --set data.path=FOLDER"
        )
    return found


def load_100(path: Path | None = None) -> tuple[ImageSet, ImageSet | None]:
    """CIFAR-100 with its hundred fine labels, in the official order; like `load`, with `cifar-100-python` or
    `cifar-100-binary`, and `data/cifar100` when no folder is given."""
    root = Path("data/cifar100") if path is None else path
    found = _find(root, ("cifar-100-python", "cifar-100-binary"), ("train",), "test", INFO_100)
    if found is None:
        raise ValueError(
            f"no CIFAR-100 in {root}: expected cifar-100-python/train and test, or cifar-100-binary/train.bin and "
            "test.bin there; get it with robustgen fetch cifar100, or from https://www.cs.toronto.edu/~kriz/cifar.html,"
            " unpack it, and say where with --set data.path=FOLDER"
        )
    return found


def _find(
    root: Path, folders: tuple[str, str], train: tuple[str, ...], test: str, info: DatasetInfo
) -> tuple[ImageSet, ImageSet] | None:
    """The two parts, in the first place and version where there are files of both."""
    for folder in (root, *(root / name for name in folders)):
        for suffix, read in (("", read_python_batch), (".bin", read_binary_batch)):
            batches = [folder / (name + suffix) for name in train if (folder / (name + suffix)).is_file()]
            if batches and (folder / (test + suffix)).is_file():
                parts = [read(batch, info) for batch in batches]
                images = np.concatenate([images for images, _ in parts])
                labels = np.concatenate([labels for _, labels in parts])
                return (
                    ImageSet(images, labels, info, str(folder)),
                    ImageSet(*read(folder / (test + suffix), info), info, str(folder)),
                )
    return None


def read_python_batch(path: Path, info: DatasetInfo = INFO) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of one pickled batch; no code of the file is run."""
    content = load_plain_pickle(path)
    try:
        labels = np.asarray(content[b"labels" if info is INFO else b"fine_labels"], dtype=np.int64)
        data = np.asarray(content[b"data"])
        if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            raise ValueError(f"data is {data.dtype} of shape {data.shape}, expected uint8 (N, 3072)")
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not a {TITLES[info.name]} batch ({error})") from None
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def read_binary_batch(path: Path, info: DatasetInfo = INFO) -> tuple[np.ndarray, np.ndarray]:
    """The same from the binary version: records of the label's byte (CIFAR-100: coarse label, fine label) and 3,072
    pixel bytes, channel by channel."""
    head = 1 if info is INFO else 2
    records = np.fromfile(path, dtype=np.uint8)
    if not len(records) or len(records) % (head + 3072):
        raise ValueError(
            f"{path} is not a whole {TITLES[info.name]} batch: {len(records)} bytes are no multiple of "
            f"{head + 3072:,}; was it cut off?"
        )
    records = records.reshape(-1, head + 3072)
    return records[:, head:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, head - 1].astype(np.int64)
