"""What `run auto` knows: the images, the speed of the device; and a choice that it makes, with its reason. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFacts:
    """What is known of a user's images.

    count, test     training images, and those of a test set of its own (0 where there is none)
    shape           (channels, height, width)
    classes         their number
    rarest, largest images of the rarest and of the most frequent class
    """

    count: int
    test: int
    shape: tuple[int, int, int]
    classes: int
    rarest: int
    largest: int


@dataclass(frozen=True)
class Speed:
    """What was measured on the device, at the chosen size of images.

    passes   seconds of a forward pass an image, by network; a training pass counts as three
    diffusion  seconds of a training image, by channels of the diffusion model
    jobs     stages that run side by side without slowing each other down
    device   cpu or cuda
    normalized  whether the network has normalization layers; one of the user's own may have none
    """

    passes: Mapping[str, float]
    diffusion: Mapping[int, float]
    jobs: int
    device: str
    normalized: bool = True


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen, and why."""

    what: str
    value: str
    why: str
