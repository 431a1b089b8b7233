"""A folder per class with one picture file per image: FOLDER/CLASS/NAME.png.

Classes are numbered in the order of their names, as are images within a class. All images have the same size.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from robustgen.proxy.formats.pictures import READABLE_SUFFIXES, decode
from robustgen.proxy.formats.source import BLOCK, ExportedImages, Format, PublishedSet
from robustgen.storage.files import writing_to
from robustgen.units import show_names


def read(paths: Sequence[Path]) -> PublishedSet:
    """Labels from the folders' names; pictures are opened as they are needed."""
    if len(paths) != 1 or not paths[0].is_dir():
        raise ValueError(f"expected one folder with a folder per class in it, got {show_names(paths)}")
    classes = tuple(sorted(place.name for place in paths[0].iterdir() if place.is_dir() and place.name[0] != "."))
    files: list[Path] = []
    counts = []
    for name in classes:
        found = sorted(file for file in (paths[0] / name).iterdir() if file.suffix.lower() in READABLE_SUFFIXES)
        counts.append(len(found))
        files += found
    if not files or not all(counts):
        empty = f": {classes[counts.index(0)]} is empty" if files else ""
        raise ValueError(f"{paths[0]} holds {len(files)} pictures in {len(classes)} class folders{empty}")
    first_picture = decode(files[0], str(files[0]))
    height, width, channels = first_picture.shape
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)

    def blocks(first: int) -> Iterator[np.ndarray]:
        for start in range(first, len(files), BLOCK):
            some = files[start : start + BLOCK]
            yield np.stack([decode(file, str(file), (height, width, channels)) for file in some])

    return PublishedSet((height, width, channels), labels, classes, blocks)


def folder_names(classes: Sequence[str]) -> list[str]:
    """The classes' names if they are sorted and are valid folder names; otherwise with numbers in front."""
    plain = all(name and name[0] != "." and not set(name) & set("/\\\0:") for name in classes)
    if plain and list(classes) == sorted(set(classes)):
        return list(classes)
    digits = len(str(len(classes) - 1))
    if list(classes) == [str(k) for k in range(len(classes))]:
        return [name.zfill(digits) for name in classes]
    kept = ["".join(c if c.isalnum() or c in "-_ " else "_" for c in name) for name in classes]
    return [f"{k:0{digits}d}-{name}" for k, name in enumerate(kept)]


def write(path: Path, export: ExportedImages) -> None:
    """Write pictures named by their position; the folder is written atomically."""
    from PIL import Image

    aside = path.with_name(f".{path.name}.exporting")
    shutil.rmtree(aside, ignore_errors=True)
    names = folder_names(export.classes)
    try:
        with writing_to(path):
            for name in names:
                (aside / name).mkdir(parents=True)
        number, digits = 0, max(6, len(str(len(export.labels) - 1)))
        for block in export.blocks():
            for pixels in block:
                encoded = io.BytesIO()
                Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(encoded, "PNG")
                with writing_to(path):
                    place = aside / names[int(export.labels[number])] / f"{number:0{digits}d}.png"
                    place.write_bytes(encoded.getvalue())
                number += 1
        with writing_to(path):
            aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def fits(paths: Sequence[Path]) -> bool:
    return len(paths) == 1 and paths[0].is_dir()


FORMAT = Format(fits, read, write)
