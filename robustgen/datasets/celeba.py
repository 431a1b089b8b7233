"""CelebA by hair color, from the official aligned images: black, blond, brown, grey (Liu et al. 2015).

Sehwag et al. (arXiv:2104.09425) use 64x64 CelebA in four classes, 109,036 training and 12,376 validation images, and
publish no list of them. The four classes here are ours: images with exactly one of the four hair colors. Numbers on it
do not compare with theirs; their folders, where one has them, are read by the data set `folder`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustgen.datasets.npz import info_from
from robustgen.datasets.sizes import read_files
from robustgen.images import ImageSet

HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
_CLASSES = ("black", "blond", "brown", "grey")
_TRAIN, _VALIDATION = 0, 1
"""Numbers of the official partition; 2 is its test part, which is left alone."""


def load(path: Path | None = None, size: int | None = None) -> tuple[ImageSet, ImageSet | None]:
    """The official training images, and the official validation images as the test set, of one hair color each.

    Args:
        path: the folder that holds `img_align_celeba`, `list_attr_celeba.txt` and `list_eval_partition.txt`;
            `data/celeba` when not given.
        size: pixels a side; 64 when not given.

    Raises:
        ValueError: a file is missing or damaged; says which, and where to get it.
    """
    root = Path("data/celeba") if path is None else path
    pictures, attributes, partition = (
        root / name for name in ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt")
    )
    for place in (pictures, attributes, partition):
        if not place.exists():
            raise ValueError(
                f"no CelebA in {root}: expected img_align_celeba, list_attr_celeba.txt and list_eval_partition.txt "
                f"there, {place.name} is missing; get it from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, and "
                "say where with --set data.path=FOLDER"
            )
    labels = read_hair(attributes)
    parts = dict(line.split()[:2] for line in partition.read_text().splitlines() if len(line.split()) >= 2)
    found = []
    for wanted in (_TRAIN, _VALIDATION):
        names = [name for name, part in parts.items() if part == str(wanted) and name in labels]
        if not names:
            raise ValueError(f"{partition} names no images of part {wanted} with one hair color; is it damaged?")
        images = read_files([pictures / Path(name).name for name in names], size or 64)
        found.append((images, np.array([labels[name] for name in names], dtype=np.int64)))
    info = info_from("celeba", *found[0], _CLASSES)
    train, test = (ImageSet(*part, info, str(root)) for part in found)
    return train, test


def read_hair(path: Path) -> dict[str, int]:
    """Class of each image that has exactly one of the four hair colors, by its name.

    Raises:
        ValueError: not the official list of attributes.
    """
    lines = path.read_text().splitlines()
    header = lines[1].split() if len(lines) > 1 else []
    absent = [name for name in HAIR if name not in header]
    if absent:
        raise ValueError(f"{path} is not the list of CelebA's attributes: its second line lacks {', '.join(absent)}")
    columns = [1 + header.index(name) for name in HAIR]
    labels = {}
    for line in lines[2:]:
        values = line.split()
        if len(values) != 1 + len(header):
            raise ValueError(
                f"{path} is damaged: {len(values)} values in the line {line[:40]!r}, expected {1 + len(header)}"
            )
        colors = [k for k, column in enumerate(columns) if values[column] == "1"]
        if len(colors) == 1:
            labels[values[0]] = colors[0]
    return labels
