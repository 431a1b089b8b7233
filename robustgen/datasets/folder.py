"""Images of one's own in a folder for each class, of any size, in any format that Pillow reads.

`FOLDER/CLASS/*.png`, or `FOLDER/train/CLASS/...` with `FOLDER/test/...` (or val) next to it. Classes are numbered in
the order of their names. Hidden files and what systems leave in folders (`.DS_Store`, `Thumbs.db`, `__MACOSX`) are
ignored, symbolic links are followed.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.datasets.npz import info_from
from robustgen.datasets.sizes import Loaded, Reading, squared
from robustgen.images import ImageSet
from robustgen.storage.files import first_line
from robustgen.units import show_names

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SIZES = (8, 16, 28, 32, 48, 64, 96, 128, 224)
MOST_DIFFERENT = 2
"""Times that the largest image may be larger than the smallest when no size is given."""

_PARTS = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation")}
_GRAY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
_KINDS = {"P": "palette", "PA": "palette", "1": "black-and-white", "LA": "gray", "La": "gray", "L": "gray"}

_Header = tuple[tuple[int, int], str]
"""Size (width, height) and Pillow's mode of an image."""


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
    skip = how is not None and how.skip_bad
    parts = _parts(path)
    if "train" not in parts:
        place = parts.get("test", parts.get("val", path))
        return _image_set(_find(place), size, skip, name), None
    train = _image_set(_find(parts["train"]), size, skip, name)
    held_out = parts.get("test", parts.get("val"))
    if held_out is None:
        return train, None
    found = _find(held_out, fewest=1)
    ours = [one for one in train.info.classes if one not in found.classes]
    theirs = [one for one in found.classes if one not in train.info.classes]
    if theirs:
        raise ValueError(
            f"{parts['train']} and {held_out} must have the same classes: only the first has "
            f"{show_names(ours) or 'none'}, only the second {show_names(theirs)}"
        )
    found = replace(
        found,
        classes=train.info.classes,
        labels=np.array([train.info.classes.index(found.classes[k]) for k in found.labels], dtype=np.int64),
    )
    mode = "L" if train.info.shape[0] == 1 else "RGB"
    test = _image_set(found, train.info.shape[1], skip, name, mode, asked=size is not None)
    if ours:
        test = test.noting(f"{held_out} has no images of {show_names(ours)}")
    if name == "folder" and "val" in parts:
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


@dataclass(frozen=True)
class _Files:
    """Image files of a folder; labels number the classes."""

    folder: Path
    files: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def _find(folder: Path, fewest: int = 2) -> _Files:
    """The image files in the folders of the classes, at least so many, in the order of their names."""
    places = {
        unicodedata.normalize("NFC", place.name): place
        for place in folder.iterdir()
        if place.is_dir() and not _ignored(place)
    }
    classes = tuple(sorted(places))
    per_class = [_images_below(places[name]) for name in classes]
    count = sum(map(len, per_class))
    if len(classes) < fewest or not count:
        raise ValueError(f"{folder} holds {len(classes)} class folders and {count} images; expected FOLDER/CLASS/*.png")
    for name, files in zip(classes, per_class, strict=True):
        if not files:
            raise ValueError(f"{places[name]} holds no images")
    loose = sum(entry.suffix.lower() in SUFFIXES and not _ignored(entry) for entry in folder.iterdir())
    notes = (f"{folder}: {loose} images outside the folders of classes are left out",) if loose else ()
    labels = np.repeat(np.arange(len(classes)), list(map(len, per_class)))
    return _Files(folder, tuple(file for files in per_class for file in files), labels, classes, notes)


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


def _image_set(
    found: _Files, size: int | None, skip: bool, name: str, mode: str | None = None, asked: bool | None = None
) -> ImageSet:
    """Images (N, S, S, C) uint8; gray if all images are, unless `mode` is given.

    Args:
        skip: leave out unreadable files.
        asked: whether the user gave the size.
    """
    bad: dict[Path, str] = {}
    headers = {file: header for file in found.files if (header := _header(file, bad)) is not None}
    notes = list(found.notes)
    if not headers:
        _refuse(found, bad)
    if asked is None:
        asked = size is not None
    if size is None:
        size = _common_size(headers, found.folder)
    mode = mode or ("L" if {kind for _, kind in headers.values()} <= _GRAY else "RGB")
    pixels = np.empty((len(found.files), size, size, len(mode)), dtype=np.uint8)
    transparent = deep = 0
    for row, file in enumerate(found.files):
        if file in headers:
            try:
                picture, was_transparent, was_deep = _decoded(file, mode)
                pixels[row] = np.asarray(squared(picture, size)).reshape(pixels.shape[1:])
            except Exception as error:  # damaged files make Pillow raise nearly anything
                bad[file] = first_line(error)
            else:
                transparent, deep = transparent + was_transparent, deep + was_deep
    if bad and not skip:
        _refuse(found, bad)
    labels = found.labels
    if bad:
        good = np.array([file not in bad for file in found.files])
        pixels, labels = pixels[good], labels[good]
        lost = [found.classes[k] for k in sorted(set(found.labels.tolist()) - set(labels.tolist()))]
        if lost:
            raise ValueError(f"{found.folder}: no readable images of {show_names(lost)}")
        notes.append(f"{found.folder}: left out {_listed(found, bad)}")
    if name == "folder":
        notes += _conversions(found.folder, headers, bad, mode, size, asked)
        if transparent:
            notes.append(f"{found.folder}: {transparent} transparent images were blended over white")
        if deep:
            notes.append(f"{found.folder}: {deep} images of 16 bits were rounded to 8")
    info = info_from(name, pixels, labels, found.classes)
    return ImageSet(pixels, labels, info, str(found.folder), notes=tuple(notes))


def _header(file: Path, bad: dict[Path, str]) -> _Header | None:
    """Size (width, height) and Pillow's mode of an image; what cannot be opened is added to `bad`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            if image.mode == "F":
                raise ValueError("its pixels are floats of unknown range; save 8 or 16 bits")
            return image.size, image.mode
    except UnidentifiedImageError:
        bad[file] = "not an image, or damaged"
    except FileNotFoundError:
        bad[file] = "a broken link"
    except Exception as error:  # damaged files make Pillow raise nearly anything
        bad[file] = first_line(error)
    return None


def _decoded(file: Path, mode: str) -> tuple[Any, bool, bool]:
    """A Pillow image in a mode, L or RGB; whether it was transparent; whether it had 16 bits."""
    from PIL import Image

    with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
        if image.mode[0] == "I":
            levels = (np.asarray(image).astype(np.float64) / 257 + 0.5).clip(0, 255).astype(np.uint8)
            return Image.fromarray(levels).convert(mode), False, True
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            picture = image.convert("RGBA")
            if np.asarray(picture.getchannel("A")).min() < 255:
                white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
                return Image.alpha_composite(white, picture).convert(mode), True, False
        return image.convert(mode), False, False


def _common_size(headers: dict[Path, _Header], folder: Path) -> int:
    """Pixels a side to which images are brought when nothing is said.

    Raises:
        ValueError: sizes that differ so much that the smallest image would decide about all.
    """
    sides = {file: min(size) for file, (size, _) in headers.items()}
    small, large = min(sides, key=lambda file: sides[file]), max(sides, key=lambda file: sides[file])
    if sides[large] > MOST_DIFFERENT * sides[small]:
        raise ValueError(
            f"{folder}: sizes differ too much to choose one: {small.relative_to(folder)} has {_shown(headers[small])} "
            f"pixels, {large.relative_to(folder)} has {_shown(headers[large])}; say which to bring all to with "
            "--set data.resize=N, or remove the odd images"
        )
    if len({size for size, _ in headers.values()}) == 1:
        return sides[small]
    return max((side for side in SIZES if side <= sides[small]), default=sides[small])


def _conversions(
    folder: Path,
    headers: dict[Path, _Header],
    bad: dict[Path, str],
    mode: str,
    size: int,
    asked: bool,
) -> list[str]:
    """What was done to images of a folder, a line each: colors and sizes."""
    kept = [header for file, header in headers.items() if file not in bad]
    kinds = Counter(_KINDS.get(kind, kind) for _, kind in kept if kind[0] != "I" and kind not in (mode, "RGBA", "RGBa"))
    notes = []
    if mode == "L":
        kinds.pop("gray", None)
    if kinds:
        said = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        notes.append(f"{folder}: {said} of {len(kept)} images became {'RGB' if mode == 'RGB' else 'gray'}")
    sizes = sorted({found for found, _ in kept}, key=lambda found: (min(found), found))
    if sizes != [(size, size)] and not asked:
        first, last = (f"{width}x{height}" for width, height in (sizes[0], sizes[-1]))
        of = first if len(sizes) == 1 else f"{first} to {last}"
        notes.append(f"{folder}: images of {of} pixels were cropped to a square and brought to {size}x{size}")
    return notes


def _shown(header: _Header) -> str:
    return f"{header[0][0]}x{header[0][1]}"


def _refuse(found: _Files, bad: dict[Path, str]) -> None:
    if len(bad) == 1:
        ((file, reason),) = bad.items()
        said = f"{file} cannot be read as an image ({reason})"
    else:
        said = f"{found.folder}: {_listed(found, bad)}"
    raise ValueError(f"{said}; mend or remove {'it' if len(bad) == 1 else 'them'}, or add --set data.skip_bad=true")


def _listed(found: _Files, bad: dict[Path, str]) -> str:
    """All unreadable files with the reasons, in one line; of very many the first."""
    names = [f"{file.relative_to(found.folder)} ({bad[file]})" for file in found.files if file in bad]
    return f"{len(bad)} of {len(found.files)} files that cannot be read as images: {show_names(names, 50)}"
