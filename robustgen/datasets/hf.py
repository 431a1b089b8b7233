"""Images of one's own as saved by Hugging Face `datasets` (`save_to_disk`): one table, or one for each split.

The package `datasets` reads them; nothing is downloaded, and no code of the data set is run.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.datasets.arrays import images_of, labels_of
from robustgen.datasets.npz import IMAGE_KEYS, LABEL_KEYS, info_from, of_one_kind
from robustgen.datasets.pictures import Pictures, image_set
from robustgen.datasets.sizes import Loaded, Reading, resized
from robustgen.images import ImageSet
from robustgen.storage.files import first_line
from robustgen.units import show_names

_IMAGES = (*IMAGE_KEYS, "img", "pixel_values")
_LABELS = (*LABEL_KEYS, "fine_label", "class", "target")


def load(path: Path | None = None, size: int | None = None, how: Reading | None = None) -> Loaded:
    """The split `train`, and `test` (else `validation`) as the test set; a table without splits is read whole.

    Raises:
        ValueError: nothing there, no package `datasets`, damaged files, columns that are not images with a label each.
    """
    if path is None:
        raise ValueError("data set hf-data needs its folder; say which with --data hf-data=FOLDER")
    how, stored = how or Reading(), _open(path)
    if not hasattr(stored, "keys"):
        return _read(stored, str(path), size, how), None
    parts = list(stored)
    first = "train" if "train" in parts else next((part for part in ("test", *parts) if part in parts), None)
    if first is None:
        raise ValueError(f"{path} holds no splits")
    images = _read(stored[first], f"{path}, {first}", size, how)
    held_out = next((part for part in ("test", "validation", "valid", "val") if part in parts and part != first), None)
    unused = [part for part in parts if part not in (first, held_out)] if first == "train" else []
    if unused:
        images = images.noting(f"{path}: the splits {show_names(unused)} are not used")
    if first != "train" or held_out is None:
        return images, None
    return of_one_kind(images, _read(stored[held_out], f"{path}, {held_out}", size, how, images))


def _open(path: Path) -> Any:
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}; expected one that Hugging Face datasets saved by save_to_disk")
    try:
        from datasets import load_from_disk
    except ImportError:
        raise ValueError(
            "hf-data needs the package datasets; install it with pip install 'robustgen[datasets]'"
        ) from None
    try:
        return load_from_disk(str(path))
    except Exception as error:  # damaged files make it and Arrow raise nearly anything
        raise ValueError(f"{path} cannot be read as a folder of save_to_disk ({first_line(error)})") from None


def _read(table: Any, origin: str, size: int | None, how: Reading, like: ImageSet | None = None) -> ImageSet:
    """The images of one table; those `like` others get their size, colors and classes."""
    from datasets import Image

    if not len(table):
        raise ValueError(f"{origin} is empty")
    features = table.features
    pictures = [name for name, feature in features.items() if isinstance(feature, Image)]
    image_key = _column(origin, features, "image", how.image_key, pictures or _named(features, _IMAGES))
    label_key = _column(origin, features, "label", how.label_key, _labels(features))
    classes = getattr(features[label_key], "names", None)
    known = tuple(classes) if classes else (None if like is None or like.numbered else like.info.classes)
    labels = labels_of(_array(table, label_key, origin), len(table), label_key, origin, known)
    if image_key in pictures:
        encoded = table.cast_column(image_key, Image(decode=False))
        cells = encoded.select_columns([image_key])

        def opened(i: int) -> Path | io.BytesIO:
            cell = cells[i][image_key]
            if cell is None:
                raise ValueError("an empty cell")
            return io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"])

        names = tuple(f"row {i}" for i in range(len(table)))
        found = Pictures(origin, names, opened, labels.labels, labels.classes, labels.notes)
        return image_set(found, size, how.skip_bad, "hf-data", like=like)
    pixels, notes = images_of(_array(table, image_key, origin), image_key, origin)
    info = info_from("hf-data", pixels, labels.labels, labels.classes)
    images = ImageSet(
        pixels, labels.labels, info, origin, notes=(*notes, *labels.notes), numbered=labels.classes is None
    )
    return images if size is None else resized(images, size)


def _array(table: Any, key: str, origin: str) -> np.ndarray:
    try:
        return np.asarray(table.select_columns([key]).with_format("numpy")[:][key])
    except Exception as error:  # columns of any kind
        raise ValueError(f"{origin}: column {key!r} is not an array ({first_line(error)})") from None


def _named(features: Any, usual: tuple[str, ...]) -> list[str]:
    return [name for name in features if name.lower() in usual]


def _labels(features: Any) -> list[str]:
    """Columns that may be the labels: those with names of classes, else those with a usual name."""
    from datasets import ClassLabel

    return [name for name, feature in features.items() if isinstance(feature, ClassLabel)] or _named(features, _LABELS)


def _column(origin: str, features: Any, what: str, given: str | None, found: list[str]) -> str:
    if given is not None:
        if given not in features:
            raise ValueError(f"{origin} has no column {given!r}; it has: {show_names(features, 12)}")
        return given
    if len(found) != 1:
        missing = f"several columns may be the {what}s" if found else f"no column is known to be the {what}s"
        raise ValueError(
            f"{origin}: {missing}: it has {show_names(features, 12)}; say which with --{what}-key NAME or "
            f"--set data.{what}_key=NAME"
        )
    return found[0]
