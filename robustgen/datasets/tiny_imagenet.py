"""TinyImageNet-200 from the unpacked official archive: 200 classes, 64x64 (CS231n)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from robustgen.datasets.sizes import read_files
from robustgen.images import DatasetInfo, ImageSet

NAME = "tiny-imagenet-200"
MEAN, STD = (0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)


def load(path: Path | None = None, size: int | None = None) -> tuple[ImageSet, ImageSet | None]:
    """Training images, and the official validation images as the test set; gray images become RGB.

    Label k is the k-th WordNet id in the order of their names. The archive's own test part has no labels.

    Args:
        path: the folder that holds `tiny-imagenet-200`, or it; `data/tiny-imagenet` when not given.
        size: other than 64.

    Raises:
        ValueError: nothing there, or a damaged file; says where to get it.
    """
    root = Path("data/tiny-imagenet") if path is None else path
    folder = root if (root / "wnids.txt").is_file() else root / NAME
    if not (folder / "wnids.txt").is_file():
        raise ValueError(
            f"no TinyImageNet in {root}: expected {NAME} with wnids.txt, words.txt, train and val there; get it with "
            f"robustgen fetch tiny-imagenet, or from http://cs231n.stanford.edu/{NAME}.zip, unpack it, and say where "
            "with --set data.path=FOLDER"
        )
    ids = sorted((folder / "wnids.txt").read_text().split())
    number = {wnid: k for k, wnid in enumerate(ids)}
    if len(ids) < 2 or len(number) < len(ids):
        raise ValueError(f"{folder / 'wnids.txt'} names {len(ids)} classes, some of them twice or too few")
    shape = (3, size or 64, size or 64)
    info = DatasetInfo("tiny-imagenet", _names(folder, ids), shape, MEAN, STD)
    train: list[tuple[Path, int]] = []
    for wnid in ids:
        files = sorted((folder / "train" / wnid / "images").glob("*.JPEG"), key=_index_of)
        if not files:
            raise ValueError(f"{folder / 'train' / wnid / 'images'} holds no .JPEG; was the archive unpacked whole?")
        train += [(file, number[wnid]) for file in files]
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise ValueError(f"{annotations} is missing; was the archive unpacked whole?")
    test: list[tuple[Path, int]] = []
    for line in annotations.read_text().splitlines():
        name, wnid = [*line.split("\t"), ""][:2]
        if wnid not in number or "/" in name:
            raise ValueError(f"{annotations} is damaged: {line[:60]!r} names no image and class")
        test.append((folder / "val" / "images" / name, number[wnid]))
    return _read(train, info, folder / "train"), _read(test, info, folder / "val")


def _read(files: list[tuple[Path, int]], info: DatasetInfo, origin: Path) -> ImageSet:
    labels = np.array([label for _, label in files], dtype=np.int64)
    return ImageSet(read_files([file for file, _ in files], info.shape[1]), labels, info, str(origin))


def _index_of(file: Path) -> tuple[int, str]:
    """n01443537_12.JPEG after n01443537_2.JPEG."""
    last = file.stem.rpartition("_")[2]
    return (int(last) if last.isdigit() else 0, file.name)


def _names(folder: Path, ids: list[str]) -> tuple[str, ...]:
    """The first word for each class in words.txt; where there is none, or two classes share it, the WordNet id."""
    words = {}
    if (folder / "words.txt").is_file():
        for line in (folder / "words.txt").read_text().splitlines():
            wnid, _, text = line.partition("\t")
            words[wnid] = text.split(",")[0].strip()
    shared = Counter(words.get(wnid) for wnid in ids)
    return tuple(words[wnid] if words.get(wnid) and shared[words[wnid]] == 1 else wnid for wnid in ids)
