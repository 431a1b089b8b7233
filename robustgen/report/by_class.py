"""What classifiers take images for under attack: by class, as confusion, and in pictures. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robustgen.records.tables import Table
from robustgen.records.verdicts import UNBROKEN, Verdicts, adversarial_file, clean_file
from robustgen.report import figures
from robustgen.report.tables import Results, name_of
from robustgen.stats.intervals import Proportion
from robustgen.units import show_class

MOST_ARMS, MOST_CLASSES = 6, 20
"""Columns of the table by class; classes of which a confusion can still be read."""


def seen_as(verdicts: Verdicts) -> np.ndarray:
    """(N,) the class each image ends as: of the image that broke it, or of the clean one where none did."""
    broken = verdicts.broken_logits
    with_attack = (verdicts.fell_to > 0) & np.isfinite(broken).all(1)
    return np.where(with_attack, np.where(np.isfinite(broken), broken, -np.inf).argmax(1), verdicts.clean_prediction)


def confusion(verdicts: Verdicts) -> np.ndarray:
    """(K, K) images by their class and the class they end as under attack."""
    classes = verdicts.broken_logits.shape[1]
    flat = np.bincount(verdicts.labels * classes + seen_as(verdicts), minlength=classes**2)
    return flat.reshape(classes, classes)


def robust_by_class(verdicts: Verdicts) -> list[Proportion]:
    """Robust accuracy within each class."""
    own = [verdicts.labels == k for k in range(verdicts.broken_logits.shape[1])]
    return [Proportion(int(verdicts.robust[rows].sum()), int(rows.sum())) for rows in own]


def worst(verdicts: Verdicts, classes: list[str]) -> str:
    """The weakest class and the most frequent mistake, in words."""
    shares = robust_by_class(verdicts)
    weakest = min((k for k, share in enumerate(shares) if share.total), key=lambda k: shares[k].value)
    counts = confusion(verdicts)
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    true, taken = np.unravel_index(int(wrong.argmax()), wrong.shape)
    text = f"weakest {show_class(classes[weakest])}, {100 * shares[weakest].value:.1f} % robust"
    if wrong[true, taken]:
        text += (
            f"; under attack most often {classes[true]} is taken for {classes[taken]} "
            f"({wrong[true, taken]} of {counts[true].sum()})"
        )
    return text


def section(results: Results, classes: list[str]) -> dict[str, Any]:
    """What the page shows: sentences, a table by class, confusions and pictures of the arms that say most."""
    arms = shown_arms(results)
    shares = {arm: robust_by_class(results.verdicts[arm]) for arm in arms}
    base = shares[results.baseline]
    order = [k for k in sorted(range(len(base)), key=lambda k: base[k].value) if base[k].total]
    rows = tuple(
        (classes[k], str(base[k].total), *(f"{100 * shares[arm][k].value:.1f}" for arm in arms))
        for k in order[:MOST_CLASSES]
    )
    two = list(dict.fromkeys([results.baseline, best(results)]))
    few = len(classes) <= MOST_CLASSES
    return {
        "sentences": [f"{name_of(results.recipe, arm)}: {worst(results.verdicts[arm], classes)}." for arm in two],
        "table": Table(("class", "images", *(name_of(results.recipe, arm) for arm in arms)), rows),
        "left_out": len(order) - len(rows),
        "confusions": [_heat(results, arm, classes) for arm in two] if few else [],
        "examples": [found for arm in two if (found := _examples(results, arm, classes)) is not None],
    }


def best(results: Results) -> str:
    """The arm with the highest robust accuracy."""
    return max(results.verdicts, key=lambda arm: results.verdicts[arm].robust_accuracy.value)


def shown_arms(results: Results) -> list[str]:
    """All arms in their order, or where these are many the baseline and the most robust."""
    ranked = sorted(results.verdicts, key=lambda arm: -results.verdicts[arm].robust_accuracy.value)
    kept = {results.baseline, *ranked[: MOST_ARMS - 1]}
    return [arm for arm in results.verdicts if len(results.verdicts) <= MOST_ARMS or arm in kept]


def _heat(results: Results, arm: str, classes: list[str]) -> dict[str, Any]:
    """A confusion with the shade of each cell, a share of its row in whole per cent."""
    counts = confusion(results.verdicts[arm])
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = [
        (classes[k], [(int(count), round(share), k == j) for j, (count, share) in enumerate(pairs)])
        for k, pairs in enumerate(zip(line, part, strict=True) for line, part in zip(counts, shares, strict=True))
    ]
    return {"name": name_of(results.recipe, arm), "columns": classes, "rows": rows}


def _examples(results: Results, arm: str, classes: list[str]) -> dict[str, str] | None:
    """A column a class: the clean image, the one that broke it, and what was added, magnified to full contrast."""
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
        told = ", ".join(f"{classes[label]} taken for {taken}" for label, taken in pairs)
        return {
            "title": f"{name_of(results.recipe, arm)}, attacked by {verdicts.suite} within {verdicts.threat}",
            "text": f"Clean, attacked, and the difference, where grey is none and full contrast {most:.3g} of a "
            f"pixel's range. {told[0].upper() + told[1:]}.",
            "uri": figures.data_uri(picture),
        }
    return None


def broken_images(path: Path) -> tuple[Verdicts, np.ndarray, np.ndarray] | None:
    """Verdicts at `path`, clean images (N, H, W, C) and attacked ones in [0, 1]; nothing where they were not kept."""
    files = clean_file(path), adversarial_file(path)
    if not all(file.exists() for file in files):
        return None
    clean, adversarial = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
    verdicts = Verdicts.load(path)
    if len(clean) != len(verdicts) or adversarial.shape != (len(clean), clean.shape[3], *clean.shape[1:3]):
        raise ValueError(f"{files[1]} and {files[0]} are not the images of {path}; evaluate again with --keep-images")
    return verdicts, clean, adversarial.transpose(0, 2, 3, 1)


def examples_of(verdicts: Verdicts, clean: np.ndarray, adversarial: np.ndarray, classes: int) -> np.ndarray:
    """Positions of the first image of each class that an attack has broken and that was kept as broken."""
    found = []
    for k in range(classes):
        for row in np.flatnonzero((verdicts.labels == k) & (verdicts.fell_to != UNBROKEN) & (verdicts.fell_to > 0)):
            if np.abs(adversarial[row] - _unit(clean[row])).max() > 1e-6:
                found.append(int(row))
                break
    return np.array(found[:MOST_CLASSES], dtype=np.int64)


def example_grid(clean: np.ndarray, adversarial: np.ndarray) -> tuple[Image.Image, float]:
    """Three rows of n images each, and the largest difference of a pixel, which is drawn as full contrast."""
    difference = adversarial - _unit(clean)
    most = float(np.abs(difference).max()) or 1.0
    rows = [_bytes(_unit(clean)), _bytes(adversarial), _bytes(0.5 + difference / (2 * most))]
    return figures.image_grid(np.concatenate(rows), len(clean)), most


def _unit(clean: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] of images that were kept as bytes, or as float32 as they were read."""
    return clean / np.float32(255) if clean.dtype == np.uint8 else clean


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 255 + 0.5).clip(0, 255).astype(np.uint8)
