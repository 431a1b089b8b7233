"""Decode picture files to arrays, for folders and tar archives of pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np

READABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm")
_KINDS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")
_CHANNELS = {"L": 1, "1": 1, "RGB": 3, "P": 3}
MOST_BYTES = 16 * 1024**2
"""Bytes of a picture's file."""
_LARGEST = 1024
"""Maximal side length in pixels; larger pictures are refused before they are decoded."""


def decode(source: Path | BinaryIO, name: str, shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """A picture as uint8 (H, W, C).

    Args:
        name: for messages.
        shape: required shape, compared with the header; default any. Gray is converted to color if required.

    Raises:
        ValueError: not a picture, or a damaged, too large one, or one of another shape.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(source, Path):  # Pillow asks a file for as many bytes as a damaged length says
            size = source.stat().st_size
            if size > MOST_BYTES:
                raise ValueError(f"it has {size:,} bytes, expected at most {MOST_BYTES:,}")
            source = io.BytesIO(source.read_bytes())
        with Image.open(source, formats=_KINDS) as image:
            channels = _CHANNELS.get(image.mode, 0)
            if shape is not None and channels == 1:
                channels = shape[2]
            found = (image.height, image.width, channels)
            if not channels or max(image.size) > _LARGEST:
                raise ValueError(
                    f"{image.mode} of {image.width}x{image.height} pixels; expected gray or RGB, not large"
                )
            if shape is not None and found != shape:
                raise ValueError(f"its shape is {found}, that of the first image {shape}")
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = "not a picture, or damaged" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{name} cannot be used: {reason}") from None
    return pixels.reshape(found)
