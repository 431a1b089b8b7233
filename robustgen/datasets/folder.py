"""Images of one's own in a folder for each class, of any size, in any format that Pillow reads.

`FOLDER/CLASS/*.png`, or `FOLDER/train/CLASS/...` with `FOLDER/test/...` (or val) beside it. Classes are numbered in
the order of their names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustgen.datasets.npz import info_from
from robustgen.images import ImageSet

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SIZES = (8, 16, 28, 32, 48, 64, 96, 128, 224)


def load(path: Path | None = None) -> tuple[ImageSet, ImageSet | None]:
    """All images, cropped to a square about the centre and brought to one size: that of the smallest image's shorter
    side, rounded down to one of SIZES when images differ.

    Raises:
        ValueError: no such folder, no classes or images in it, a file that is no image, other classes in the test part.
    """
    if path is None:
        raise ValueError("data set folder needs its place; say which with --data folder=PATH")
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}; expected one folder a class in it")
    parts = {name: path / name for name in ("train", "test", "val") if (path / name).is_dir()}
    if "train" not in parts:
        images, labels, classes = _read(path)
        return ImageSet(images, labels, info_from("folder", images, labels, classes), str(path)), None
    images, labels, classes = _read(parts["train"])
    info = info_from("folder", images, labels, classes)
    train = ImageSet(images, labels, info, str(parts["train"]))
    held_out = parts.get("test", parts.get("val"))
    if held_out is None:
        return train, None
    images, labels, others = _read(held_out, images.shape[1])
    if others != classes:
        raise ValueError(f"{held_out} has classes {', '.join(others)}, {parts['train']} has {', '.join(classes)}")
    return train, ImageSet(images, labels, info, str(held_out))


def _read(folder: Path, size: int | None = None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images (N, S, S, C) uint8, labels, and the names of the classes."""
    from PIL import Image

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
    read = []
    for file, _ in files:
        try:
            with Image.open(file) as image:
                grey = image.mode in ("1", "L", "I", "I;16", "F")
                read.append(image.convert("L" if grey else "RGB"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} is no image that can be read ({error})") from None
    mode = "L" if all(image.mode == "L" for image in read) else "RGB"
    if size is None:
        shortest = min(min(image.size) for image in read)
        alike = len({image.size for image in read}) == 1
        size = shortest if alike else max([s for s in SIZES if s <= shortest], default=shortest)
    pixels = np.stack([np.asarray(_square(image.convert(mode), size)) for image in read])
    return pixels.reshape(len(read), size, size, -1), np.array([label for _, label in files]), classes


def _square(image, size: int):  # type: ignore[no-untyped-def]
    """The largest square about the centre, resized (bicubic, antialiased)."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return image if side == size else image.resize((size, size), Image.Resampling.BICUBIC)
