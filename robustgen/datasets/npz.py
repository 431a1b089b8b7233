"""Images of one's own in an `.npz`: `image` uint8 (N, H, W, C) and `label` integers (N,).

The format in which the generated sets of the papers are published.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustgen.images import DatasetInfo, ImageSet, check_labels
from robustgen.storage.arrays import load_arrays, save_arrays
from robustgen.units import show_names


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, checked.

    Raises:
        ValueError: missing, damaged, without the two arrays, or not uint8 images with a label each.
    """
    arrays = load_arrays(path)
    if not {"image", "label"} <= arrays.keys():
        raise ValueError(f"{path}: expected arrays 'image' and 'label', got {show_names(arrays) or 'none'}")
    images, labels = arrays["image"], arrays["label"]
    if images.ndim == 3:
        images = images[..., None]
    if np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all():
        raise ValueError(f"{path}: 'image' holds NaN or infinite values; expected uint8 pixels in 0..255")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"{path}: 'image' must be uint8 of shape (N, H, W, C) with 1 or 3 channels, got {images.dtype} of shape "
            f"{images.shape}"
        )
    if not len(images):
        raise ValueError(f"{path}: 'image' is empty")
    check_labels(labels, len(images), len(images), str(path))  # no more classes than images
    return images, labels.astype(np.int64)


def info_from(name: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | None = None) -> DatasetInfo:
    """Classes 0..max label unless named; mean and deviation of each channel, of at most 100,000 images."""
    pixels = images[:: max(1, len(images) // 100_000)].reshape(-1, images.shape[3]) / 255
    mean = tuple(round(float(m), 4) for m in pixels.mean(0))
    std = tuple(max(round(float(s), 4), 1e-3) for s in pixels.std(0))
    height, width, channels = images.shape[1:]
    classes = classes or tuple(str(k) for k in range(int(labels.max()) + 1))
    return DatasetInfo(name, classes, (channels, height, width), mean, std)


def load(path: Path | None = None) -> tuple[ImageSet, ImageSet | None]:
    """From `FILE.npz`; a test set from `FILE_test.npz` next to it, when it exists.

    Raises:
        ValueError: no path, or a file that does not fit.
    """
    if path is None:
        raise ValueError("data set npz needs its file; say which with --set data.path=FILE.npz")
    images, labels = read_npz(path)
    info = info_from("npz", images, labels)
    test_path = path.with_name(f"{path.stem}_test{path.suffix}")
    test = ImageSet(*read_npz(test_path), info, str(test_path)) if test_path.exists() else None
    return ImageSet(images, labels, info, str(path)), test


def write_npz(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images in this format."""
    save_arrays(path, {"image": images, "label": labels})
