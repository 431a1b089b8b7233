"""Robust accuracy by class, confusion matrices under attack and pictures of adversarial examples. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robustgen.records.tables import Table
from robustgen.records.verdicts import UNBROKEN, Verdicts, adversarial_file, clean_file
from robustgen.report import figures
from robustgen.report.tables import Results, name_of
from robustgen.stats.formatting import percent
from robustgen.stats.intervals import Proportion

_BLOCK = 4096
"""Images whose logits are copied together."""
MOST_ARMS, MOST_CLASSES = 6, 20
"""Most columns of the table by class; most classes for which a confusion matrix is readable."""


def seen_as(verdicts: Verdicts) -> np.ndarray:
    """(N,) predicted class of the adversarial example that broke each image, else of the clean image."""
    seen = verdicts.clean_prediction.copy()
    broken = np.flatnonzero(verdicts.fell_to > 0)
    for first in range(0, len(broken), _BLOCK):
        rows = broken[first : first + _BLOCK]
        logits = verdicts.broken_logits[rows]
        known = np.isfinite(logits).all(1)
        seen[rows[known]] = logits[known].argmax(1)
    return seen


def confusion(verdicts: Verdicts) -> np.ndarray:
    """(K, K) number of images by true class and predicted class under attack."""
    classes = verdicts.broken_logits.shape[1]
    seen = seen_as(verdicts)
    known = seen >= 0  # NaN logits of a clean image predict no class
    flat = np.bincount(verdicts.labels[known] * classes + seen[known], minlength=classes**2)
    return flat.reshape(classes, classes)


def robust_by_class(verdicts: Verdicts) -> list[Proportion]:
    """Robust accuracy of each class."""
    classes = verdicts.broken_logits.shape[1]
    robust = np.bincount(verdicts.labels[verdicts.robust], minlength=classes)
    all_of = np.bincount(verdicts.labels, minlength=classes)
    return [Proportion(int(count), int(total)) for count, total in zip(robust, all_of, strict=True)]


def worst(verdicts: Verdicts, classes: list[str]) -> str:
    """A sentence on the class with the lowest robust accuracy and the most frequent confusion."""
    shares = robust_by_class(verdicts)
    weakest = min((k for k, share in enumerate(shares) if share.total), key=lambda k: shares[k].value)
    counts = confusion(verdicts)
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    true, taken = np.unravel_index(int(wrong.argmax()), wrong.shape)
    text = f"the weakest class is {classes[weakest]} with {percent(shares[weakest].value)} % robust accuracy"
    if wrong[true, taken]:
        text += (
            f"; under attack the most frequent confusion is {classes[true]} classified as {classes[taken]} "
            f"({wrong[true, taken]} of {counts[true].sum()} images)"
        )
    return text


def by_class_section(results: Results, classes: list[str]) -> dict[str, Any]:
    """Content of the page's section: sentences, table by class, and confusion matrices and adversarial examples of the
    baseline and the most robust arm."""
    arms = shown_arms(results)
    shares = {arm: robust_by_class(results.verdicts[arm]) for arm in arms}
    base = shares[results.baseline]
    order = [k for k in sorted(range(len(base)), key=lambda k: base[k].value) if base[k].total]
    rows = tuple(
        (classes[k], str(base[k].total), *(percent(shares[arm][k].value) for arm in arms)) for k in order[:MOST_CLASSES]
    )
    two = list(dict.fromkeys([results.baseline, best(results)]))
    few = len(classes) <= MOST_CLASSES
    return {
        "sentences": [f"{name_of(results.recipe, arm)}: {worst(results.verdicts[arm], classes)}." for arm in two],
        "table": Table(("class", "images", *(name_of(results.recipe, arm) for arm in arms)), rows),
        "left_out": len(order) - len(rows),
        "confusions": [{"name": name_of(results.recipe, arm), **heat(results.verdicts[arm], classes)} for arm in two]
        if few
        else [],
        "examples": [found for arm in two if (found := _examples(results, arm, classes)) is not None],
    }


def best(results: Results) -> str:
    """The arm with the highest robust accuracy."""
    return max(results.verdicts, key=lambda arm: results.verdicts[arm].robust_accuracy.value)


def shown_arms(results: Results) -> list[str]:
    """All arms in their order, or of more than `MOST_ARMS` the baseline and the most robust ones."""
    ranked = sorted(results.verdicts, key=lambda arm: -results.verdicts[arm].robust_accuracy.value)
    kept = {results.baseline, *ranked[: MOST_ARMS - 1]}
    return [arm for arm in results.verdicts if len(results.verdicts) <= MOST_ARMS or arm in kept]


def heat(verdicts: Verdicts, classes: list[str]) -> dict[str, Any]:
    """The confusion matrix for a page; a cell is a count, its percentage of the row, and whether it is correct."""
    counts = confusion(verdicts)
    shares: Any = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = range(len(classes))
    rows = [(classes[k], [(int(counts[k, j]), round(float(shares[k, j])), k == j) for j in size]) for k in size]
    return {"columns": classes, "rows": rows}


def _examples(results: Results, arm: str, classes: list[str]) -> dict[str, str] | None:
    """A picture with a column per class: clean image, adversarial example, and perturbation scaled to full contrast."""
    for path in sorted((results.run.root / "evaluation").glob(f"{arm}.*.npz")):
        kept = broken_images(path)
        if kept is None:
            continue
        verdicts, clean, adversarial = kept
        rows = examples_of(verdicts, clean, adversarial, len(classes))
        if not len(rows):
            continue
        picture, most = example_grid(clean[rows], adversarial[rows])
        seen = [classes[k] for k in seen_as(verdicts)[rows]]
        pairs = zip(verdicts.labels[rows], seen, strict=True)
        changes = ", ".join(f"{classes[label]} classified as {wrong}" for label, wrong in pairs)
        return {
            "title": f"{name_of(results.recipe, arm)}, attacked by {verdicts.suite} within {verdicts.threat}",
            "text": "Clean images, adversarial examples and their differences. In the differences gray is zero, and "
            f"black and white are {most:.3g} of the pixel range. {changes[0].upper() + changes[1:]}.",
            "uri": figures.data_uri(picture),
        }
    return None


def broken_images(path: Path) -> tuple[Verdicts, np.ndarray, np.ndarray] | None:
    """Verdicts at `path`, clean images (N, H, W, C) uint8 and adversarial examples in [0, 1]; None without images.

    Raises:
        ValueError: the image files do not belong to the verdicts.
    """
    files = clean_file(path), adversarial_file(path)
    if not all(file.exists() for file in files):
        return None
    clean, adversarial = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
    verdicts = Verdicts.load(path)
    if len(clean) != len(verdicts) or adversarial.shape != (len(clean), clean.shape[3], *clean.shape[1:3]):
        raise ValueError(
            f"expected the images of {path} in {files[1]} and {files[0]}, got arrays of shape {adversarial.shape} and "
            f"{clean.shape}; evaluate again with --keep-images"
        )
    return verdicts, clean, adversarial.transpose(0, 2, 3, 1)


def examples_of(verdicts: Verdicts, clean: np.ndarray, adversarial: np.ndarray, classes: int) -> np.ndarray:
    """Positions of the first image of each class that was broken by an attack and whose adversarial example is kept."""
    found = []
    for k in range(classes):
        for row in np.flatnonzero((verdicts.labels == k) & (verdicts.fell_to != UNBROKEN) & (verdicts.fell_to > 0)):
            if np.abs(adversarial[row] - _unit(clean[row])).max() > 1e-6:
                found.append(int(row))
                break
    return np.array(found[:MOST_CLASSES], dtype=np.int64)


def example_grid(clean: np.ndarray, adversarial: np.ndarray) -> tuple[Image.Image, float]:
    """Three rows of n images each, and the largest pixel difference, which is drawn at full contrast."""
    difference = adversarial - _unit(clean)
    most = float(np.abs(difference).max()) or 1.0
    rows = [_bytes(_unit(clean)), _bytes(adversarial), _bytes(0.5 + difference / (2 * most))]
    return figures.image_grid(np.concatenate(rows), len(clean)), most


def _unit(clean: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] of images that were kept as bytes, or as float32 as they were read."""
    return clean / np.float32(255) if clean.dtype == np.uint8 else clean


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 255 + 0.5).clip(0, 255).astype(np.uint8)
