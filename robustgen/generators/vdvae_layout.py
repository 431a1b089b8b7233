"""Layout strings of the very deep VAE: "32x11,32d2,16x6" going down, "1x1,4m1,4x2" coming up."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a block works.

    size    of its square of positions
    factor  the square is averaged down by it after the block; 1 leaves it
    source  before the block the state of this smaller size is added, repeated; nothing where not given
    """

    size: int
    factor: int = 1
    source: int | None = None


def _places(text: str, mark: str) -> list[Place]:
    found = []
    for part in text.split(","):
        match = re.fullmatch(rf"(\d{{1,4}})(x|{mark})(\d{{1,4}})", part.strip())
        if match is None or not int(match[1]) or not int(match[3]):
            raise ValueError(f"{part.strip()!r} in the layout {text!r} is neither SIZExBLOCKS nor SIZE{mark}NUMBER")
        size, number = int(match[1]), int(match[3])
        if match[2] == "x":
            found += [Place(size)] * number
        else:
            found.append(Place(size, factor=number) if mark == "d" else Place(size, source=number))
    return found


def encoder_places(text: str, image_size: int) -> list[Place]:
    """The encoder's blocks. Raises ValueError where a block is not of the size that the one before it leaves."""
    places, here = _places(text, "d"), image_size
    for place in places:
        if place.size != here:
            raise ValueError(f"the encoder {text!r} has a block of size {place.size} where the image is of size {here}")
        if here % place.factor:
            raise ValueError(f"the encoder {text!r} cannot average size {here} down by {place.factor}")
        here //= place.factor
    return places


def decoder_places(text: str, encoder: list[Place], image_size: int) -> list[Place]:
    """The decoder's blocks. Raises ValueError where sizes do not follow each other, or the encoder has none such."""
    places = _places(text, "m")
    seen = {image_size} | {place.size // place.factor for place in encoder}
    known = {places[0].size}
    for place in places:
        if place.size not in seen:
            raise ValueError(f"the decoder {text!r} has a block of size {place.size}, which the encoder lacks")
        if place.source is not None and (place.source not in known or place.size % place.source):
            raise ValueError(f"the decoder {text!r} adds size {place.source} to size {place.size}, which cannot be")
        if place.source is None and place.size not in known:
            raise ValueError(f"the decoder {text!r} comes to size {place.size} without adding a smaller one to it")
        known.add(place.size)
    if places[-1].size != image_size:
        raise ValueError(f"the decoder {text!r} ends at size {places[-1].size}; the images are of size {image_size}")
    return places
