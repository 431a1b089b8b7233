"""Shared functions of proxy analyses: checks of the subject, digests, pairwise distances in blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from robustgen.analysis.contracts import ProxySubject
from robustgen.images import to_unit

DISCRIMINATOR_CLASSES = ("generated", "real")
"""Classes of a discriminator."""
GENERATED, REAL = 0, 1

_BLOCK = 256


def to_floats(images: Tensor) -> Tensor:
    """Convert uint8 or float images to float32 in [0, 1]."""
    return to_unit(images) if images.dtype == torch.uint8 else images.float()


def digest(*tensors: Tensor) -> str:
    """A hash of the types, shapes and contents of tensors, 16 hexadecimal digits."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def check_subject(subject: ProxySubject) -> None:
    """Check that all images have the dataset's shape, values in [0, 1], and one valid label each.

    Raises:
        ValueError: what is expected and what came.
    """
    classes = len(subject.info.classes)
    for name in ("train", "test", "generated"):
        images, labels = getattr(subject, name), getattr(subject, f"{name}_labels")
        if images.ndim != 4 or tuple(images.shape[1:]) != tuple(subject.info.shape):
            raise ValueError(
                f"{name} images must be (N, {', '.join(map(str, subject.info.shape))}), got {tuple(images.shape)}"
            )
        if not len(images):
            raise ValueError(f"expected at least one {name} image, got none")
        if images.dtype != torch.uint8 and not (images.is_floating_point() and 0 <= images.min() <= images.max() <= 1):
            raise ValueError(f"{name} images must be uint8, or floats in [0, 1]; got {images.dtype}")
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"{len(images)} {name} images need one integer label each, got {labels.dtype} {tuple(labels.shape)}"
            )
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"{name} labels must lie in 0..{classes - 1}, got {int(labels.min())} to {int(labels.max())}"
            )


def pairwise_distances(first: Tensor, second: Tensor, norm: str) -> Tensor:
    """(n, m) float32 distances between rows (n, D) and (m, D), computed from differences, not from matrix products."""
    return torch.cdist(
        first.float(),
        second.float(),
        p={"linf": torch.inf, "l2": 2.0, "l1": 1.0}[norm],
        compute_mode="donot_use_mm_for_euclid_dist",
    )


def blocks(first: Tensor, second: Tensor, norm: str) -> Iterator[tuple[slice, Tensor]]:
    """Pairwise distances of images (N, ...), uint8 or float, in blocks of rows of `first`: (slice, distances)."""
    flat = to_floats(second).flatten(1)
    for start in range(0, len(first), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(first)))
        yield rows, pairwise_distances(to_floats(first[rows]).flatten(1), flat, norm)
