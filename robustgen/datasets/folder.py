"""Images of one's own in a folder for each class, of any size, in any format that Pillow reads.

`FOLDER/CLASS/*.png`, or `FOLDER/train/CLASS/...` with `FOLDER/test/...` (or val) next to it. Classes are numbered in
the order of their names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustgen.datasets.npz import info_from
from robustgen.datasets.sizes import Loaded, Reading, read_files
from robustgen.images import ImageSet
from robustgen.units import show_names

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SIZES = (8, 16, 28, 32, 48, 64, 96, 128, 224)


def load(path: Path | None = None, size: int | None = None, how: Reading | None = None, name: str = "folder") -> Loaded:
    """All images, cropped to a square about the centre and brought to one size.

    Args:
        path: the folder.
        size: pixels a side; when not given that of the smallest image's shorter side, rounded down to one of SIZES
            when images differ.
        name: what the data set is called.

    Raises:
        ValueError: no such folder, no classes or images in it, an unreadable image, other classes in the test part.
    """
    if path is None:
        raise ValueError("data set folder needs its place; say which with --data folder=PATH")
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}; expected one folder a class in it")
    parts = {part: path / part for part in ("train", "test", "val") if (path / part).is_dir()}
    if "train" not in parts:
        images, labels, classes = _read(path, size)
        return ImageSet(images, labels, info_from(name, images, labels, classes), str(path)), None
    images, labels, classes = _read(parts["train"], size)
    info = info_from(name, images, labels, classes)
    train = ImageSet(images, labels, info, str(parts["train"]))
    held_out = parts.get("test", parts.get("val"))
    if held_out is None:
        return train, None
    images, labels, others = _read(held_out, images.shape[1], "L" if images.shape[3] == 1 else "RGB")
    if others != classes:
        ours, theirs = (sorted(set(a) - set(b)) for a, b in ((classes, others), (others, classes)))
        raise ValueError(
            f"{parts['train']} and {held_out} must have the same classes: only the first has "
            f"{show_names(ours) or 'none'}, only the second {show_names(theirs) or 'none'}"
        )
    return train, ImageSet(images, labels, info, str(held_out))


def _read(folder: Path, size: int | None, mode: str | None = None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images (N, S, S, C) uint8, labels, and class names; gray if all images are, unless `mode` is given."""
    classes = tuple(sorted(place.name for place in folder.iterdir() if place.is_dir() and place.name[0] != "."))
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((folder / name).rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if len(classes) < 2 or not files:
        raise ValueError(
            f"{folder} holds {len(classes)} class folders and {len(files)} images; expected FOLDER/CLASS/*.png"
        )
    empty = sorted(set(range(len(classes))) - {label for _, label in files})
    if empty:
        raise ValueError(f"{folder / classes[empty[0]]} holds no images")
    if size is None or mode is None:
        found_size, found_mode = _alike([file for file, _ in files])
        size, mode = size or found_size, mode or found_mode
    labels = np.array([label for _, label in files], dtype=np.int64)
    return read_files([file for file, _ in files], size, mode), labels, classes


def _alike(files: list[Path]) -> tuple[int, str]:
    """The size that images are brought to, and the mode of all of them, from their headers."""
    from PIL import Image

    sizes, modes = set(), set()
    for file in files:
        try:
            with Image.open(file) as image:
                sizes.add(image.size)
                modes.add(image.mode)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{file} cannot be read as an image ({error})") from None
    shortest = min(min(size) for size in sizes)
    size = shortest if len(sizes) == 1 else max([s for s in SIZES if s <= shortest], default=shortest)
    return size, "L" if modes <= {"1", "L", "I", "I;16", "F"} else "RGB"
