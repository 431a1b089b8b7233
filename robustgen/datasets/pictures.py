"""Image files, wherever they lie, brought to one size and one kind of colors, and what was done to them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from robustgen.datasets.npz import info_from
from robustgen.datasets.sizes import squared
from robustgen.images import ImageSet
from robustgen.storage.files import first_line
from robustgen.units import show_names

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SIZES = (8, 16, 28, 32, 48, 64, 96, 128, 224)
MOST_DIFFERENT = 2
"""Times that the largest image may be larger than the smallest when no size is given."""

_GRAY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
_KINDS = {"P": "palette", "PA": "palette", "1": "black-and-white", "LA": "gray", "La": "gray", "L": "gray"}
_Header = tuple[tuple[int, int], str]
"""Size (width, height) and Pillow's mode of an image."""


@dataclass(frozen=True)
class Pictures:
    """Encoded images with labels.

    origin    where they lie
    names     (N,) what each is called in messages
    open      the file, or its content, of the image at a position
    labels    (N,) int64
    classes   names of the classes; None where labels are bare numbers
    notes     conversions, one line each
    """

    origin: str
    names: tuple[str, ...]
    open: Callable[[int], Path | BinaryIO]
    labels: np.ndarray
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def image_set(
    found: Pictures,
    size: int | None,
    skip: bool,
    name: str,
    *,
    like: ImageSet | None = None,
    quiet: bool = False,
) -> ImageSet:
    """Images (N, S, S, C) uint8: the largest square about the center; gray if all are.

    Args:
        size: pixels a side; when not given that of the smallest image's shorter side, rounded down to one of SIZES
            when images differ.
        skip: leave out unreadable files.
        name: what the data set is called.
        like: images whose size and colors they get, and whose facts.
        quiet: note nothing about colors and sizes.

    Raises:
        ValueError: unreadable images, all of which are named, or sizes that differ much.
    """
    bad: dict[int, str] = {}
    headers = {i: header for i in range(len(found.names)) if (header := _header(found, i, bad)) is not None}
    notes = list(found.notes)
    if not headers:
        _refuse(found, bad)
    asked = size is not None
    mode = "L" if {kind for _, kind in headers.values()} <= _GRAY else "RGB"
    if like is not None:
        size, mode = like.info.shape[1], "L" if like.info.shape[0] == 1 else "RGB"
    if size is None:
        size = _common_size(headers, found)
    pixels = np.empty((len(found.names), size, size, len(mode)), dtype=np.uint8)
    transparent = deep = 0
    for i in headers:
        try:
            picture, was_transparent, was_deep = _decoded(found.open(i), mode)
            pixels[i] = np.asarray(squared(picture, size)).reshape(pixels.shape[1:])
        except Exception as error:  # damaged files make Pillow raise nearly anything
            bad[i] = first_line(error)
        else:
            transparent, deep = transparent + was_transparent, deep + was_deep
    if bad and not skip:
        _refuse(found, bad)
    labels = found.labels
    if bad:
        good = np.array([i not in bad for i in range(len(found.names))])
        pixels, labels = pixels[good], labels[good]
        lost = sorted(set(found.labels.tolist()) - set(labels.tolist()))
        if lost:
            names = [found.classes[k] if found.classes else str(k) for k in lost]
            raise ValueError(f"{found.origin}: no readable images of {show_names(names)}")
        notes.append(f"{found.origin}: left out {_listed(found, bad)}")
    if not quiet:
        notes += _conversions(
            found.origin, [header for i, header in headers.items() if i not in bad], mode, size, asked
        )
        if transparent:
            notes.append(f"{found.origin}: {transparent} transparent images were blended over white")
        if deep:
            notes.append(f"{found.origin}: {deep} images of 16 bits were rounded to 8")
    info = info_from(name, pixels, labels, found.classes)
    return ImageSet(pixels, labels, info, found.origin, notes=tuple(notes), numbered=found.classes is None)


def _header(found: Pictures, i: int, bad: dict[int, str]) -> _Header | None:
    """The header of an image; what cannot be opened is added to `bad`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(found.open(i)) as image:
            if image.mode == "F":
                raise ValueError("its pixels are floats of unknown range; save 8 or 16 bits")
            return image.size, image.mode
    except UnidentifiedImageError:
        bad[i] = "not an image, or damaged"
    except FileNotFoundError:
        bad[i] = "a broken link"
    except Exception as error:  # damaged files make Pillow raise nearly anything
        bad[i] = first_line(error)
    return None


def _decoded(file: Path | BinaryIO, mode: str) -> tuple[Any, bool, bool]:
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


def _common_size(headers: dict[int, _Header], found: Pictures) -> int:
    """Pixels a side to which images are brought when nothing is said.

    Raises:
        ValueError: sizes that differ so much that the smallest image would decide about all.
    """
    sides = {i: min(size) for i, (size, _) in headers.items()}
    small, large = min(sides, key=lambda i: sides[i]), max(sides, key=lambda i: sides[i])
    if sides[large] > MOST_DIFFERENT * sides[small]:
        raise ValueError(
            f"{found.origin}: sizes differ too much to choose one: {found.names[small]} has {_shown(headers[small])} "
            f"pixels, {found.names[large]} has {_shown(headers[large])}; say which to bring all to with "
            "--set data.resize=N, or remove the odd images"
        )
    if len({size for size, _ in headers.values()}) == 1:
        return sides[small]
    return max((side for side in SIZES if side <= sides[small]), default=sides[small])


def _conversions(origin: str, kept: list[_Header], mode: str, size: int, asked: bool) -> list[str]:
    """What was done to images, a line each: colors and sizes."""
    kinds = Counter(_KINDS.get(kind, kind) for _, kind in kept if kind[0] != "I" and kind not in (mode, "RGBA", "RGBa"))
    notes = []
    if mode == "L":
        kinds.pop("gray", None)
    if kinds:
        said = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        notes.append(f"{origin}: {said} of {len(kept)} images became {'RGB' if mode == 'RGB' else 'gray'}")
    sizes = sorted({found for found, _ in kept}, key=lambda found: (min(found), found))
    if sizes != [(size, size)] and not asked:
        first, last = (f"{width}x{height}" for width, height in (sizes[0], sizes[-1]))
        of = first if len(sizes) == 1 else f"{first} to {last}"
        notes.append(f"{origin}: images of {of} pixels were cropped to a square and brought to {size}x{size}")
    return notes


def _shown(header: _Header) -> str:
    return f"{header[0][0]}x{header[0][1]}"


def _refuse(found: Pictures, bad: dict[int, str]) -> None:
    if len(bad) == 1:
        ((i, reason),) = bad.items()
        said = f"{found.origin}: {found.names[i]} cannot be read as an image ({reason})"
    else:
        said = f"{found.origin}: {_listed(found, bad)}"
    raise ValueError(f"{said}; mend or remove {'it' if len(bad) == 1 else 'them'}, or add --set data.skip_bad=true")


def _listed(found: Pictures, bad: dict[int, str]) -> str:
    """All unreadable files with the reasons, in one line; of very many the first."""
    names = [f"{found.names[i]} ({bad[i]})" for i in sorted(bad)]
    return f"{len(bad)} of {len(found.names)} files that cannot be read as images: {show_names(names, 50)}"
