"""Images of one's own as arrays: `.npz` files with images and labels, or pairs of `.npy` files.

The generated sets of the papers are published as `.npz` files of `image` uint8 (N, H, W, C) and `label` integers (N,).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from robustgen.datasets.arrays import images_of, labels_of
from robustgen.datasets.sizes import Loaded, Reading, resized
from robustgen.images import DatasetInfo, ImageSet
from robustgen.storage.arrays import array_names, load_array, load_arrays, save_arrays
from robustgen.units import show_names

IMAGE_KEYS = ("image", "images", "x", "data", "arr_0")
LABEL_KEYS = ("label", "labels", "y", "targets", "arr_1")
"""Names of arrays by which arrays are found, in lower or upper case."""

_PARTS = ("train", "test", "val", "valid", "validation")
"""What arrays of several parts in one file have in front or behind: x_train, test_images."""


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C), uint8 or float32 in [0, 1], and labels (N,) of a file, checked.

    Raises:
        ValueError: missing, damaged, or arrays that are not images with a label each.
    """
    images = read_arrays(path)
    return images.images, images.labels


def read_arrays(
    path: Path, how: Reading | None = None, part: str = "", classes: tuple[str, ...] | None = None
) -> ImageSet:
    """The images of one file, or of one part of it.

    Args:
        path: an `.npz`, or an `.npy` of images with its labels next to it.
        part: one of PARTS, or the whole file.
        classes: names of the classes in the order of their numbers, where they are known.

    Raises:
        ValueError: missing, damaged, or arrays that are not images with a label each; says what to do.
    """
    how = how or Reading()
    if path.suffix == ".npy":
        label_file = labels_next_to(path, how.label_key)
        names, found, said = (path.stem, label_file.stem), (load_array(path), load_array(label_file)), str(label_file)
    else:
        names = find_keys(path, array_names(path), how, part)
        arrays = load_arrays(path, names)
        found, said = (arrays[names[0]], arrays[names[1]]), str(path)
    pixels, notes = images_of(found[0], names[0], str(path))
    labels = labels_of(found[1], len(pixels), names[1], said, classes)
    return ImageSet(
        pixels,
        labels.labels,
        info_from("npz", pixels, labels.labels, labels.classes),
        f"{path}, {part}" if part else str(path),
        notes=(*notes, *labels.notes),
        numbered=labels.classes is None,
    )


def find_keys(path: Path, names: Collection[str], how: Reading, part: str = "") -> tuple[str, str]:
    """The names of the arrays of images and of labels: those that are given, else the only ones with a usual name.

    Raises:
        ValueError: none or several; lists the arrays, and says how to name one.
    """
    keys = []
    for what, given, usual in (("image", how.image_key, IMAGE_KEYS), ("label", how.label_key, LABEL_KEYS)):
        if given is not None:
            if given not in names:
                raise ValueError(f"{path} has no array {given!r}; it has: {show_names(names, 12) or 'none'}")
            keys.append(given)
            continue
        wanted = {f"{key}_{part}" for key in usual} | {f"{part}_{key}" for key in usual} if part else set(usual)
        found = [name for name in names if name.lower() in wanted]
        if len(found) != 1:
            missing = f"several arrays may be the {what}s" if found else f"no array is known to be the {what}s"
            raise ValueError(
                f"{path}: {missing}: it has {show_names(names, 12) or 'none'}; say which with --{what}-key NAME or "
                f"--set data.{what}_key=NAME (found by themselves: {', '.join(usual)})"
            )
        keys.append(found[0])
    return keys[0], keys[1]


def parts_of(names: Collection[str], how: Reading) -> tuple[str, ...]:
    """The parts of a file whose images have one of the usual names, such as x_train; none where the keys are given."""
    if how.image_key is not None or how.label_key is not None:
        return ()
    low = {name.lower() for name in names}
    return tuple(part for part in _PARTS if any({f"{key}_{part}", f"{part}_{key}"} & low for key in IMAGE_KEYS))


def labels_next_to(path: Path, given: str | None = None) -> Path:
    """The `.npy` of the labels of an `.npy` of images: images.npy and labels.npy, x_test.npy and y_test.npy.

    Raises:
        ValueError: there is none.
    """
    if given is not None:
        return path.with_name(given if given.endswith(".npy") else f"{given}.npy")
    places = [path.with_name("labels.npy")]
    for images, labels in zip(IMAGE_KEYS, LABEL_KEYS, strict=True):
        pattern = rf"(?<![a-z0-9]){images}(?![a-z0-9])"
        renamed = re.sub(pattern, labels, path.stem, flags=re.IGNORECASE)
        if renamed != path.stem:
            places.insert(0, path.with_name(f"{renamed}.npy"))
    for place in places:
        if place.is_file() and place != path:
            return place
    raise ValueError(
        f"{path} needs its labels next to it, in {' or '.join(dict.fromkeys(place.name for place in places))}; say "
        "which with --label-key FILE.npy or --set data.label_key=FILE.npy"
    )


def info_from(name: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | None = None) -> DatasetInfo:
    """Classes 0..max label unless named; mean and deviation of each channel, of at most 100,000 images."""
    pixels = images[:: max(1, len(images) // 100_000)].reshape(-1, images.shape[3])
    pixels = pixels / 255 if pixels.dtype == np.uint8 else pixels.astype(np.float64)
    mean = tuple(round(float(m), 4) for m in pixels.mean(0))
    std = tuple(max(round(float(s), 4), 1e-3) for s in pixels.std(0))
    height, width, channels = images.shape[1:]
    classes = classes or tuple(str(k) for k in range(int(labels.max()) + 1))
    return DatasetInfo(name, classes, (channels, height, width), mean, std)


def load(path: Path | None = None, size: int | None = None, how: Reading | None = None) -> Loaded:
    """From `FILE.npz` or `FILE.npy`; a test set from the same file, or from `FILE_test.npz` next to it.

    Raises:
        ValueError: no path, or a file that does not fit.
    """
    how = how or Reading()
    if path is None:
        raise ValueError("data set npz needs its file; name it: --data npz=FILE.npz, or --set data.path=FILE.npz")
    parts = parts_of(array_names(path), how) if path.suffix != ".npy" else ()
    first = "train" if "train" in parts else next(iter(parts), "")
    images = read_arrays(path, how, first)
    test: ImageSet | None = None
    held_out = next((part for part in _PARTS[1:] if part in parts and part != first), None)
    test_path = path.with_name(f"{path.stem}_test{path.suffix}")
    known = None if images.numbered else images.info.classes
    if held_out is not None:
        test = read_arrays(path, how, held_out, known)
        unused = [part for part in parts if part not in (first, held_out)]
        if unused:
            images = images.noting(f"{path}: {', '.join(unused)} is not used; validation images are drawn from train")
    elif how.partner and test_path.exists():
        test = read_arrays(test_path, how, "", known)
    if test is not None:
        images, test = of_one_kind(images, test)
    if size is None:
        return images, test
    return resized(images, size), None if test is None else resized(test, size)


def of_one_kind(images: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Training and test images with the same facts; numbered classes are as many as the larger label of both says.

    Raises:
        ValueError: images of other shapes, or labels that the training images do not have.
    """
    if test.info.shape != images.info.shape:
        raise ValueError(
            f"{test.origin} has images of shape {test.info.shape}, {images.origin} of shape {images.info.shape}; "
            "bring them to one size, for instance with data.resize=N, and to as many channels"
        )
    if not (images.numbered or test.numbered or test.info.classes == images.info.classes):
        raise ValueError(
            f"{test.origin} has the classes {show_names(test.info.classes)}, {images.origin} has "
            f"{show_names(images.info.classes)}; number both in one order"
        )
    try:
        return images, replace(test, info=images.info, numbered=images.numbered)
    except ValueError as error:
        raise ValueError(f"{error}; {images.origin} has {len(images.info.classes)} classes") from None


def write_npz(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images in this format."""
    save_arrays(path, {"image": images, "label": labels})
