"""Real images, by the names that recipes use, and how they are split."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robustgen.config.recipe import DataConfig
from robustgen.datasets import (
    afhq,
    celeba,
    cifar,
    digits,
    folder,
    hf,
    imagenet64,
    mnist,
    npz,
    svhn,
    tiny_imagenet,
    webdataset,
)
from robustgen.datasets.sizes import Loaded, Reading, at_any_size
from robustgen.images import DatasetInfo, ImageSet
from robustgen.randomness import rng_for
from robustgen.runtime.distributed import place
from robustgen.storage.files import Note
from robustgen.storage.kinds import kind_of_images
from robustgen.units import show_class, show_names

DATASETS: dict[str, Callable[..., Loaded]] = {
    "digits": at_any_size(digits.load),
    "mnist": at_any_size(mnist.load),
    "cifar10": at_any_size(cifar.load),
    "cifar100": at_any_size(cifar.load_100),
    "svhn": at_any_size(svhn.load),
    "tiny-imagenet": tiny_imagenet.load,
    "imagenet64": at_any_size(imagenet64.load),
    "celeba": celeba.load,
    "afhq": afhq.load,
    "npz": npz.load,
    "folder": folder.load,
    "webdataset": webdataset.load,
    "hf-data": hf.load,
}
"""Training images, and test images where there are any; from a place or the usual one, at a size or their own.

Those in OWN are also given a `Reading`.
"""

OWN = ("npz", "folder", "webdataset", "hf-data")
"""Images of one's own."""


INFOS: dict[str, DatasetInfo] = {
    info.name: info for info in (digits.INFO, mnist.INFO, cifar.INFO, cifar.INFO_100, svhn.INFO)
}
"""Facts of the data sets that are known without their files."""


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
    everything, test = load_all(data)
    _tell(everything, test)
    everything, test = everything.rounded(), None if test is None else test.rounded()
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
        test = _first(test, data)
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


def load_test(data: DataConfig, classes: tuple[str, ...] | None = None, where: str = "") -> ImageSet:
    """The test images alone: those of `load_splits`, or all there are when the data set has no test set of its own
    and no number is given. Of images that are `only_test`, the first so many.

    Floats are not rounded. With `test_path` nothing else is read.

    Args:
        classes: names of the classes of a classifier, by which labels of one's own images are numbered.
        where: what they are of.
    """
    if data.test_path is not None:
        everything, test = _test_of(data), None
    else:
        everything, test = load_all(data)
    found = everything if test is None else test
    own = data.test_path is not None or data.name in OWN
    if classes is not None and own:
        found = in_classes(found, classes, where)
    _tell(found)
    if data.test is None or test is not None or data.only_test or data.test_path is not None:
        return _chosen(found, data)
    _first(found, data)
    return found.take(_order(data, everything)[: data.test])


def _chosen(images: ImageSet, data: DataConfig) -> ImageSet:
    """The images that are judged; warns where the first of images of one's own lack classes, as in sorted files."""
    chosen = _first(images, data)
    if len(chosen) < len(images) and (data.test_path is not None or data.name in OWN) and place()[0] == 0:
        seen, known = len(np.unique(chosen.labels)), len(np.unique(images.labels))
        if seen < min(known, len(chosen)):
            warnings.warn(
                f"the first {len(chosen)} of the {len(images)} images of {images.origin} are of {seen} of {known} "
                "classes; --balanced takes images of each class in turn",
                Note,
                stacklevel=3,
            )
    return chosen


def _first(images: ImageSet, data: DataConfig) -> ImageSet:
    """The first `data.test` images, or the first of each class in turn, or all."""
    if data.test is None:
        return images
    if data.test > len(images):
        name = data.test_path or data.name
        raise ValueError(f"data.test asks for {data.test} images, {name} has {len(images)} to test on")
    return images.take(balanced(images.labels, data.test) if data.balanced_test else np.arange(data.test))


def _order(data: DataConfig, images: ImageSet) -> np.ndarray:
    return rng_for(data.split_seed, "split", data.name).permutation(len(images))


def unknown_dataset(name: str) -> str:
    """What is known in place of an unknown dataset; the path of images that exist needs its layout."""
    hint = f"did you mean --data {kind_of_images(Path(name))}={name}? " if Path(name).exists() else ""
    return f"unknown data set {name!r}; {hint}known: {', '.join(DATASETS)}"


def load_all(data: DataConfig) -> Loaded:
    """All images that a dataset has to train on, and its own test images where it has any."""
    if data.name not in DATASETS:
        raise ValueError(unknown_dataset(data.name))
    images, test = _read(data.name, Path(data.path) if data.path else None, data)
    if data.test_path is not None:
        test = in_classes(_test_of(data), images.info.classes, images.origin)
        _, test = npz.of_one_kind(images, test)
    return images, test


def _read(name: str, path: Path | None, data: DataConfig, partner: bool = True) -> Loaded:
    """Images of a data set, in the colors that are wanted."""
    if name in OWN:
        how = Reading(data.image_key, data.label_key, data.skip_bad, partner)
        images, test = DATASETS[name](path, data.resize, how)
    else:
        given = {"image_key": data.image_key, "label_key": data.label_key, "skip_bad": data.skip_bad or None}
        unused = [f"data.{key}" for key, value in given.items() if value is not None]
        if unused and data.test_path is None:
            raise ValueError(f"{name} does not use {' and '.join(unused)}; these are for {', '.join(OWN)}")
        images, test = DATASETS[name](path, data.resize)
    return colored(images, data.color), None if test is None else colored(test, data.color)


def _test_of(data: DataConfig) -> ImageSet:
    """The images of `test_path`: its test part where it has several, else all."""
    assert data.test_path is not None
    path = Path(data.test_path)
    images, test = _read(kind_of_images(path), path, data, partner=False)
    return images if test is None else test


def in_classes(images: ImageSet, classes: tuple[str, ...], where: str) -> ImageSet:
    """The same images, their labels numbered as `classes` are, by their names.

    Numbered classes keep their numbers. So do names of which none is in `classes`, where there are as many.

    Args:
        where: what the classes are of, for messages.

    Raises:
        ValueError: labels or names that are not among the classes.
    """
    own = images.info.classes
    if own == classes:
        return replace(images, numbered=False)
    if images.numbered:
        if len(own) > len(classes):
            raise ValueError(f"{images.origin} has labels up to {len(own) - 1}, {where} has {len(classes)} classes")
        return replace(images, info=replace(images.info, classes=classes), numbered=False)
    unknown = [name for name in own if name not in classes]
    if len(unknown) == len(own) == len(classes):
        note = f"{images.origin} and {where} name their classes otherwise: {own[0]!r} is taken for {classes[0]!r} ..."
        return replace(images, info=replace(images.info, classes=classes)).noting(note)
    if unknown:
        raise ValueError(
            f"{images.origin} has classes that {where} has not: {show_names(unknown)}; it has {show_names(classes)}"
        )
    numbers = np.array([classes.index(name) for name in own], dtype=np.int64)
    note = f"{images.origin}: labels are numbered by the names of the {len(classes)} classes of {where}"
    moved = replace(images, labels=numbers[images.labels], info=replace(images.info, classes=classes))
    return moved.noting(note)


def colored(images: ImageSet, color: str | None) -> ImageSet:
    """The same images as RGB, gray repeated, or as gray, 0.299 R + 0.587 G + 0.114 B."""
    info = images.info
    if color is None or info.shape[0] == {"rgb": 3, "gray": 1}[color]:
        return images
    if color == "rgb":
        info = replace(info, shape=(3, *info.shape[1:]), mean=info.mean * 3, std=info.std * 3)
        note = f"{images.origin}: gray images became RGB by repeating their channel"
        return replace(images, images=np.repeat(images.images, 3, axis=3), info=info).noting(note)
    gray = (images.images @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32)).astype(np.float32)
    gray = gray.clip(0, 1) if images.is_float else (gray + 0.5).clip(0, 255).astype(np.uint8)
    measured = npz.info_from(info.name, gray, images.labels, info.classes)
    return replace(images, images=gray, info=measured).noting(f"{images.origin}: RGB images became gray")


def _tell(*parts: ImageSet | None) -> None:
    """Print how images were converted, once."""
    if place()[0] == 0:
        for note in dict.fromkeys(note for part in parts if part is not None for note in part.notes):
            warnings.warn(note, Note, stacklevel=3)


def balanced(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` images, the first of each class in turn while they last, in rising order."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rank[rows] = np.arange(len(rows))
    return np.sort(np.lexsort((labels, rank))[:count])
