"""Images brought to another size; how images of one's own are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path

import numpy as np

from robustgen.images import ImageSet

Loaded = tuple[ImageSet, ImageSet | None]


@dataclass(frozen=True)
class Reading:
    """How images of one's own are read: settings that data sets in official layouts do not have.

    image_key  array or column of the images; one with a usual name when not given
    label_key  the same of the labels
    skip_bad   leave out files that cannot be read as images
    partner    look for a test set next to the file
    """

    image_key: str | None = None
    label_key: str | None = None
    skip_bad: bool = False
    partner: bool = True


def squared(image, size: int):  # type: ignore[no-untyped-def]
    """The largest square about the centre of a Pillow image, resized (bicubic, antialiased)."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return image if side == size else image.resize((size, size), Image.Resampling.BICUBIC)


def resized(images: ImageSet, size: int) -> ImageSet:
    """The same images, `size` x `size`: the largest square about the centre, bicubic, antialiased."""
    from PIL import Image

    channels, height, width = images.info.shape
    if (height, width) == (size, size):
        return images
    pixels = np.empty((len(images), size, size, channels), dtype=images.images.dtype)
    for i, image in enumerate(images.images):
        if images.is_float:  # Pillow has floats for one channel alone; a bicubic filter overshoots
            planes = [np.asarray(squared(Image.fromarray(plane), size)) for plane in image.transpose(2, 0, 1)]
            pixels[i] = np.stack(planes, axis=2).clip(0, 1)
        else:
            pixels[i] = np.asarray(squared(Image.fromarray(image[..., 0] if channels == 1 else image), size)).reshape(
                size, size, channels
            )
    return replace(images, images=pixels, info=replace(images.info, shape=(channels, size, size)))


def at_any_size(load: Callable[[Path | None], Loaded]) -> Callable[[Path | None, int | None], Loaded]:
    """A loader of images of one size that can also be asked for another."""

    @wraps(load)
    def sized(path: Path | None = None, size: int | None = None) -> Loaded:
        train, test = load(path)
        if size is None:
            return train, test
        return resized(train, size), None if test is None else resized(test, size)

    return sized


def read_files(files: Sequence[Path], size: int, mode: str = "RGB") -> np.ndarray:
    """Image files as (N, size, size, C) uint8, in a Pillow mode: RGB, or L for gray.

    Raises:
        ValueError: a file that is not an image; says which.
    """
    from PIL import Image

    pixels = np.empty((len(files), size, size, len(mode)), dtype=np.uint8)
    for i, file in enumerate(files):
        try:
            with Image.open(file) as image:
                pixels[i] = np.asarray(squared(image.convert(mode), size)).reshape(pixels.shape[1:])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{file} cannot be read as an image ({error})") from None
    return pixels
