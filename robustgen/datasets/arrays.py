"""Images and labels from the arrays in which people keep them: layouts, types, one-hot labels, names of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robustgen.images import check_labels
from robustgen.units import show_names

_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Labels:
    """Labels as integers.

    labels   (N,) int64
    classes  their names where the labels were names, else None
    notes    conversions, one line each
    """

    labels: np.ndarray
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def images_of(array: np.ndarray, name: str, origin: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Images (N, H, W, C), uint8 or float32 in [0, 1], and what was converted, one line each.

    Floats that are whole gray levels, k / 255, become the bytes k, which give the same floats again.

    Args:
        array: uint8, other integers in 0..255, or floats in [0, 1]; (N, H, W, C), (N, C, H, W) or (N, H, W).
        name: what the array is called in messages.
        origin: the file.

    Raises:
        ValueError: another type, shape or range; says what to do.
    """
    images, notes = _channels_last(array, name, origin)
    if not images.size:
        raise ValueError(f"{origin}: {name!r} is empty")
    if np.issubdtype(images.dtype, np.floating):
        images, said = _floats(images, name, origin)
    elif np.issubdtype(images.dtype, np.integer):
        images, said = _integers(images, name, origin)
    else:
        advice = "; multiply by np.uint8(255)" if images.dtype == bool else ""
        raise ValueError(
            f"{origin}: {name!r} must be uint8 (0..255) or floats in [0, 1], got {images.dtype} of shape "
            f"{array.shape}{advice}"
        )
    return np.ascontiguousarray(images), (*notes, *said)


def _channels_last(array: np.ndarray, name: str, origin: str) -> tuple[np.ndarray, tuple[str, ...]]:
    shape = array.shape
    if array.ndim == 3:
        return array[..., None], ()
    if array.ndim != 4:
        advice = "; reshape it" if array.ndim == 2 else ""
        raise ValueError(
            f"{origin}: {name!r} must have the shape (N, H, W, C), (N, C, H, W) or (N, H, W), got {shape}{advice}"
        )
    if shape[3] in (1, 3):
        return array, ()
    if shape[1] in (1, 3):
        return array.transpose(0, 2, 3, 1), (f"{origin}: {name!r} is (N, C, H, W); its channels were moved to the end",)
    advice = ""
    if 4 in (shape[1], shape[3]):
        without = f"{name}[..., :3]" if shape[3] == 4 else f"{name}[:, :3]"
        advice = f"; with an alpha channel, blend the images over a background or save {without}"
    raise ValueError(f"{origin}: {name!r} must have 1 or 3 channels, first or last, got shape {shape}{advice}")


def _floats(images: np.ndarray, name: str, origin: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if not np.isfinite(images).all():
        raise ValueError(f"{origin}: {name!r} holds NaN or infinite values; expected pixels in [0, 1]")
    images = images.astype(np.float32)
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        if low >= 0 and high <= 255:
            advice = "divide by 255, or save uint8"
        elif low >= -1 and high <= 1:
            advice = f"save ({name} + 1) / 2"
        else:
            advice = "undo the normalization, which belongs in the network (--normalize MEAN/DEVIATION)"
        raise ValueError(f"{origin}: {name!r} must lie in [0, 1] as floats, got {low:g} to {high:g}; {advice}")
    levels = (images * 255 + 0.5).astype(np.uint8)
    if np.array_equal(levels.astype(np.float32) / np.float32(255), images):
        return levels, _nearly_black(levels, name, origin)
    return images, (
        f"{origin}: {name!r} are floats in [0, 1]: evaluation keeps them as float32, training rounds them to bytes",
    )


def _integers(images: np.ndarray, name: str, origin: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if images.dtype == np.uint8:
        return images, _nearly_black(images, name, origin)
    low, high = int(images.min()), int(images.max())
    if low < 0 or high > 255:
        deep = images.dtype == np.uint16
        advice = f"save ({name} / 65535).astype(np.float32)" if deep else "save uint8, or floats in [0, 1]"
        raise ValueError(
            f"{origin}: {name!r} must lie in 0..255 as integers, got {images.dtype} from {low} to {high}; {advice}"
        )
    said = f"{origin}: {name!r} are {images.dtype} in 0..255 and were taken as bytes"
    images = images.astype(np.uint8)
    return images, (said, *_nearly_black(images, name, origin))


def _nearly_black(images: np.ndarray, name: str, origin: str) -> tuple[str, ...]:
    if images.max() != 1:
        return ()
    return (f"{origin}: {name!r} are integers no larger than 1 of 255, nearly black; multiply by 255 if 1 is white",)


def labels_of(array: np.ndarray, count: int, name: str, origin: str, classes: tuple[str, ...] | None = None) -> Labels:
    """Labels of `count` images from integers, whole floats, one-hot rows or names of classes.

    Args:
        array: (N,) or (N, 1), or one-hot (N, K).
        name: what the array is called in messages.
        origin: the file.
        classes: names of classes in the order of their numbers; of labels that are names, those that are found, in
            their order, where not given.

    Raises:
        ValueError: none of these, not one label for each image, or a name that is not in `classes`.
    """
    notes: tuple[str, ...] = ()
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "fiub":
        if not ((array == 1).sum(1) == 1).all() or not ((array == 0) | (array == 1)).all():
            raise ValueError(
                f"{origin}: {name!r} of shape {array.shape} is not one-hot: expected a single 1 in each row, and 0 "
                f"elsewhere; save integers, such as {name}.argmax(1)"
            )
        notes = (f"{origin}: {name!r} is one-hot; labels are the positions of its ones",)
        numbered = tuple(str(k) for k in range(array.shape[1]))
        array, classes = array.argmax(1), classes or numbered
    if array.shape != (count,):
        raise ValueError(f"{origin}: expected one label for each of {count} images, got shape {array.shape}")
    if array.dtype.kind in "US":
        return _named(array, name, origin, classes)
    if array.dtype == bool:
        array = array.astype(np.int64)
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and (array == np.floor(array)).all() and (np.abs(array) < 2**31).all()):
            raise ValueError(f"{origin}: labels must be integers, got {array.dtype} that are not whole numbers")
        notes = (f"{origin}: {name!r} are {array.dtype}, all whole numbers, and were taken as integers",)
        array = array.astype(np.int64)
    check_labels(array, count, len(classes) if classes else _MOST_CLASSES, origin)
    return Labels(array.astype(np.int64), classes, notes)


def _named(array: np.ndarray, name: str, origin: str, classes: tuple[str, ...] | None) -> Labels:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    found, places = np.unique(array, return_inverse=True)
    names = tuple(str(one) for one in found)
    if classes is None:
        said = f"{origin}: {name!r} are names of {len(names)} classes: {show_names(names)}"
        return Labels(places.reshape(-1).astype(np.int64), names, (said,))
    unknown = [one for one in names if one not in classes]
    if unknown:
        raise ValueError(
            f"{origin}: {name!r} names {show_names(unknown)}, which the training images do not have; they have "
            f"{show_names(classes)}"
        )
    numbers = np.array([classes.index(one) for one in names], dtype=np.int64)
    return Labels(numbers[places.reshape(-1)], classes)
