"""Augmentations by the names that recipes use.

A name is a chain of augmentations joined by `+`, each a kind and its numbers: crop-flip, crop-flip+cutmix,
crop-flip+mixup-0.2, randaugment-2-14+crop-flip. They are applied in that order. Each kind documents its numbers, whose
defaults are the published ones. `-each` draws parameters for every image instead of once per batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from robustgen.augment.autoaugment import AutoAugment, RandAugment
from robustgen.augment.chain import Chain
from robustgen.augment.crop_flip import CropFlip
from robustgen.augment.cutmix import CutMix
from robustgen.augment.cutout import Cutout
from robustgen.augment.mixup import MixUp
from robustgen.augment.ricap import RICAP
from robustgen.contracts import Augment

KINDS: dict[str, Callable[..., Augment]] = {
    "shift": partial(CropFlip, flip=0.0),
    "crop-flip": CropFlip,
    "cutout": Cutout,
    "cutmix": CutMix,
    "cutmix-each": partial(CutMix, each=True),
    "mixup": MixUp,
    "mixup-each": partial(MixUp, each=True),
    "ricap": RICAP,
    "ricap-each": partial(RICAP, each=True),
    "autoaugment": AutoAugment,
    "autoaugment-svhn": partial(AutoAugment, policy="svhn"),
    "randaugment": RandAugment,
}

MIXING = (CutMix, MixUp, RICAP)
"""Kinds that mix images of a batch, and their labels."""

EXAMPLES = {
    "none": "no augmentation",
    "shift-1": "random shift by up to 1 pixel",
    "crop-flip": "pad by 4, random crop, random flip: the standard augmentation of the papers",
    "crop-flip+cutout-18": "then a black window of 18 pixels",
    "crop-flip+cutmix": "then a window from another image, labels mixed by area; one window per batch, as published",
    "crop-flip+cutmix-each": "the same with a window per image",
    "crop-flip+cutmix-20": "the same as cutmix with windows of 20 pixels",
    "crop-flip+mixup-0.2": "then blending with another image by Beta(0.2, 0.2)",
    "crop-flip+ricap-0.3": "then patches of four images with a corner from Beta(0.3, 0.3)",
    "crop-flip+autoaugment+cutout-18": "AutoAugment's policy for CIFAR-10, then Cutout",
    "autoaugment-svhn": "AutoAugment's policy for SVHN, without crop and flip",
    "randaugment-2-14+crop-flip": "2 random operations at magnitude 14 of 30",
}
"""Common names with a short description; other numbers and other chains are possible."""


def build_augmentation(name: str) -> Augment | None:
    """Build an augmentation by name; None for "none".

    Raises:
        ValueError: an unknown kind, or numbers that it does not accept.
    """
    if name == "none":
        return None
    parts = tuple(_part(name, part) for part in name.split("+"))
    return parts[0] if len(parts) == 1 else Chain(parts)


def _part(name: str, part: str) -> Augment:
    found = re.fullmatch(r"([a-z]+(?:-[a-z]+)*)((?:-\d+(?:\.\d+)?)*)", part)
    kind = KINDS.get(found[1]) if found else None
    if not found or kind is None:
        raise ValueError(
            f"unknown augmentation {name!r}; known: none, and {', '.join(KINDS)}, joined by + and with numbers, for "
            "example crop-flip+cutout-18"
        )
    numbers = [float(number) if "." in number else int(number) for number in found[2].split("-")[1:]]
    try:
        return kind(*numbers)
    except TypeError:
        raise ValueError(f"augmentation {name!r} has too many or too few numbers; examples: {_like(part)}") from None


def _like(part: str) -> str:
    """Examples with the same kind."""
    word = part.split("-")[0]
    return ", ".join(name for name in EXAMPLES if word in name)


def mixes_labels(augment: Augment | None) -> bool:
    """Whether an augmentation mixes images of several classes and their labels."""
    parts = augment.parts if isinstance(augment, Chain) else (augment,)
    return any(isinstance(part, MIXING) for part in parts)


def with_repeats(augment: Augment | None, repeats: int) -> Augment | None:
    """The same augmentation, for batches in which each original stands `repeats` times, copy next to copy.

    Parts that mix images then keep to sub-batches with each original once (`mixup.partners`); others do not change.
    """
    if isinstance(augment, Chain):
        parts = (with_repeats(part, repeats) for part in augment.parts)
        return Chain(tuple(part for part in parts if part is not None))
    return replace(augment, repeats=repeats) if isinstance(augment, MIXING) else augment


AUGMENTATIONS: dict[str, Augment | None] = {name: build_augmentation(name) for name in EXAMPLES}

__all__ = [
    "AUGMENTATIONS", "EXAMPLES", "KINDS", "RICAP", "AutoAugment", "Chain", "CropFlip", "CutMix", "Cutout", "MixUp",
    "RandAugment", "build_augmentation", "mixes_labels", "with_repeats",
]  # fmt: skip
