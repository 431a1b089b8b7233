"""Real images, by the names that recipes use, and how they are split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustgen.config.recipe import DataConfig
from robustgen.datasets import afhq, celeba, cifar, digits, folder, imagenet64, mnist, npz, svhn, tiny_imagenet
from robustgen.datasets.sizes import Loaded, at_any_size
from robustgen.images import ImageSet
from robustgen.randomness import rng_for
from robustgen.units import show_class, show_names

DATASETS: dict[str, Callable[[Path | None, int | None], Loaded]] = {
    "digits": at_any_size(digits.load),
    "mnist": at_any_size(mnist.load),
    "cifar10": at_any_size(cifar.load),
    "cifar100": at_any_size(cifar.load_100),
    "svhn": at_any_size(svhn.load),
    "tiny-imagenet": tiny_imagenet.load,
    "imagenet64": at_any_size(imagenet64.load),
    "celeba": celeba.load,
    "afhq": afhq.load,
    "npz": at_any_size(npz.load),
    "folder": folder.load,
}
"""Training images, and test images where there are any; from a place or the usual one, at a size or their own."""


@dataclass(frozen=True)
class Splits:
    """Disjoint images to train on, to stop and choose by, and to report."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


def load_splits(data: DataConfig) -> Splits:
    """The images a recipe asks for.

    An official test set is the test set, its first `test` images when a number is given. Otherwise test images are
    drawn at random. Validation images are drawn from the training images, then training images, balanced over the
    classes as far as they last. All draws depend on `split_seed` alone.

    Raises:
        ValueError: unknown data set, missing files, or fewer images than asked for.
    """
    everything, test = _load(data)
    order = _order(data, everything)
    if test is None:
        if data.test is None or data.test >= len(everything):
            raise ValueError(
                f"{data.name} has {len(everything)} images and no test set of its own; say how many of them to test on "
                "with --set data.test=N"
            )
        test, order = everything.take(order[: data.test]), order[data.test :]
    elif data.test is not None:
        if data.test > len(test):
            raise ValueError(f"data.test asks for {data.test} images, {data.name} has {len(test)} test images")
        test = test.take(np.arange(data.test))
    needed = data.validation + (data.train or 1)
    if needed > len(order):
        raise ValueError(
            f"data.train and data.validation ask for {needed} images, {data.name} has {len(order)} for them"
        )
    validation, pool = everything.take(order[: data.validation]), order[data.validation :]
    chosen = pool if data.train is None else pool[balanced(everything.labels[pool], data.train)]
    train = everything.take(chosen)
    absent = set(range(len(train.info.classes))) - set(np.unique(train.labels).tolist())
    if absent:
        names = [train.info.classes[k] for k in sorted(absent)]
        of = show_class(names[0]) if len(names) == 1 else f"{len(names)} classes ({show_names(names)})"
        raise ValueError(f"no training images of {of}; set data.train higher")
    return Splits(train, validation, test)


def load_test(data: DataConfig) -> ImageSet:
    """The test images alone: those of `load_splits`, or all there are when the data set has no test set of its own
    and no number is given. Of images that are `only_test`, the first so many."""
    everything, test = _load(data)
    found = everything if test is None else test
    count = len(found) if data.test is None else data.test
    if count > len(found):
        raise ValueError(f"data.test asks for {count} images, {data.name} has {len(found)} to test on")
    if data.test is None:
        return found
    in_order = test is not None or data.only_test
    return found.take(np.arange(count) if in_order else _order(data, everything)[:count])


def _order(data: DataConfig, images: ImageSet) -> np.ndarray:
    return rng_for(data.split_seed, "split", data.name).permutation(len(images))


def _load(data: DataConfig) -> tuple[ImageSet, ImageSet | None]:
    if data.name not in DATASETS:
        raise ValueError(f"unknown data set {data.name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[data.name](Path(data.path) if data.path else None, data.resize)


def balanced(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` images, the first of each class in turn while they last, in rising order."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rank[rows] = np.arange(len(rows))
    return np.sort(np.lexsort((labels, rank))[:count])
