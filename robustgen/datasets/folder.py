"""Images of one's own in a folder for each class, of any size, in any format that Pillow reads.

`FOLDER/CLASS/*.png`, or `FOLDER/train/CLASS/...` with `FOLDER/test/...` (or val) next to it. Classes are numbered in
the order of their names. Hidden files and what systems leave in folders (`.DS_Store`, `Thumbs.db`, `__MACOSX`) are
ignored, symbolic links are followed.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np

from robustgen.datasets.pictures import SUFFIXES, Pictures, image_set
from robustgen.datasets.sizes import Loaded, Reading
from robustgen.units import show_names

_PARTS = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation")}


def load(path: Path | None = None, size: int | None = None, how: Reading | None = None, name: str = "folder") -> Loaded:
    """All images, cropped to a square about the center and brought to one size.

    Args:
        path: the folder.
        size: pixels a side; when not given that of the smallest image's shorter side, rounded down to one of SIZES
            when images differ.
        how: whether unreadable files are left out.
        name: what the data set is called.

    Raises:
        ValueError: no such folder, no classes or images in it, unreadable images, sizes that differ much, other
            classes in the test part.
    """
    if path is None:
        raise ValueError("data set folder needs its place; say which with --data folder=PATH")
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}; expected one folder a class in it")
    skip, quiet = how is not None and how.skip_bad, name != "folder"
    parts = _parts(path)
    if "train" not in parts:
        place = parts.get("test", parts.get("val", path))
        return image_set(_find(place), size, skip, name, quiet=quiet), None
    train = image_set(_find(parts["train"]), size, skip, name, quiet=quiet)
    held_out = parts.get("test", parts.get("val"))
    if held_out is None:
        return train, None
    found = _find(held_out, fewest=1)
    classes = found.classes or ()
    ours = [one for one in train.info.classes if one not in classes]
    theirs = [one for one in classes if one not in train.info.classes]
    if theirs:
        raise ValueError(
            f"{parts['train']} and {held_out} must have the same classes: only the first has "
            f"{show_names(ours) or 'none'}, only the second {show_names(theirs)}"
        )
    found = replace(
        found,
        classes=train.info.classes,
        labels=np.array([train.info.classes.index(classes[k]) for k in found.labels], dtype=np.int64),
    )
    test = image_set(found, size, skip, name, like=train, quiet=quiet)
    if ours:
        test = test.noting(f"{held_out} has no images of {show_names(ours)}")
    if "val" in parts and not quiet:
        unused = "is the test set" if "test" not in parts else "is not used; validation images are drawn from train"
        train = train.noting(f"{parts['val']} {unused}")
    return train, replace(test, info=train.info)


def _parts(path: Path) -> dict[str, Path]:
    """Folders of training, test and validation images by part; without one for training, all folders must be parts."""
    entries = [entry for entry in path.iterdir() if entry.is_dir() and not _ignored(entry)]
    found = {
        part: entry
        for part, names in _PARTS.items()
        for entry in entries
        if entry.name.lower() in names and any(inner.is_dir() and not _ignored(inner) for inner in entry.iterdir())
    }
    return found if "train" in found or len(found) == len(entries) else {}


def _ignored(entry: Path) -> bool:
    return entry.name[0] == "." or entry.name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _find(folder: Path, fewest: int = 2) -> Pictures:
    """The image files in the folders of the classes, at least so many, in the order of their names."""
    places = {
        unicodedata.normalize("NFC", place.name): place
        for place in folder.iterdir()
        if place.is_dir() and not _ignored(place)
    }
    classes = tuple(sorted(places))
    per_class = [_images_below(places[name]) for name in classes]
    count = sum(map(len, per_class))
    loose = sum(entry.suffix.lower() in SUFFIXES and not _ignored(entry) for entry in folder.iterdir())
    if len(classes) < fewest or not count:
        outside = f", and {loose} outside of them" if loose else ""
        raise ValueError(
            f"{folder} holds {len(classes)} class folders and {count} images in them{outside}; expected "
            f"FOLDER/CLASS/*.png with at least {fewest} {'classes' if fewest > 1 else 'class'}"
        )
    for name, files in zip(classes, per_class, strict=True):
        if not files:
            raise ValueError(f"{places[name]} holds no images")
    notes = (f"{folder}: {loose} images outside the folders of classes are left out",) if loose else ()
    files = [file for files in per_class for file in files]
    labels = np.repeat(np.arange(len(classes)), list(map(len, per_class)))
    names = tuple(str(file.relative_to(folder)) for file in files)
    return Pictures(str(folder), names, files.__getitem__, labels, classes, notes)


def _images_below(folder: Path) -> list[Path]:
    """Files with an image's ending, also behind links, which may lead in a circle; broken links are among them."""
    found, seen = [], set()
    for root, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(root))
        inner = [Path(root, name) for name in folders]
        folders[:] = [one.name for one in inner if not _ignored(one) and os.path.realpath(one) not in seen]
        files = (Path(root, name) for name in names)
        found += [file for file in files if file.suffix.lower() in SUFFIXES and not _ignored(file)]
    return sorted(found)
