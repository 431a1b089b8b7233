"""Which images of a proxy set are used."""

from __future__ import annotations

import numpy as np

from robustgen.proxy.store import ProxySet


def top_per_class(labels: np.ndarray, scores: np.ndarray, per_class: int, classes: int) -> np.ndarray:
    """(N,) bool: the `per_class` best-scored images of each label; among equal scores the earlier.

    Raises:
        ValueError: a class has fewer images than that; says which.
    """
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < per_class:
        poorest = int(counts.argmin())
        raise ValueError(
            f"cannot keep {per_class} images of each class: class {poorest} has {counts[poorest]}; "
            "keep fewer, or sample more"
        )
    kept = np.zeros(len(labels), dtype=bool)
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        kept[rows[np.argsort(-scores[rows], kind="stable")[:per_class]]] = True
    return kept


def keep(proxies: ProxySet, rule: str, per_class: int) -> None:
    """Mark the images that are used in the column `kept`.

    top-confidence: the `per_class` images of each pseudo-label with the highest confidence (arXiv:2103.01946,
    App. D). all: every image.

    Raises:
        ValueError: unknown rule, no labels yet, or too few images of a class.
    """
    if rule == "all":
        kept = np.ones(len(proxies), dtype=bool)
    elif rule == "top-confidence":
        try:
            kept = top_per_class(proxies.column("label"), proxies.column("confidence"), per_class, len(proxies.classes))
        except ValueError as error:
            raise ValueError(f"{proxies.folder}: {error}") from None
    else:
        raise ValueError(f"unknown rule {rule!r}; known: top-confidence, all")
    proxies.add_columns({"what": "used for training", "rule": rule, "per_class": per_class}, kept=kept)
