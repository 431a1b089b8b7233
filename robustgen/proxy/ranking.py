"""Exact top K per class of any number of images, in memory that does not grow with K."""

from __future__ import annotations

import numpy as np

from robustgen.proxy.store import chunks, class_counts

_BITS = 11
"""Bits of the key that one pass decides: a table of 2048 counts per class."""


def _keys(scores: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of the scores; NaN comes last. float32 and narrower give 32 bits, others 64."""
    wide = scores.dtype.itemsize > 4 or (scores.dtype.kind in "iu" and scores.dtype.itemsize > 2)
    values = scores.astype("f8" if wide else "f4")
    values[np.isnan(values)] = -np.inf
    values[values == 0] = 0  # -0, too
    bits = values.view("u8" if wide else "u4")
    sign = bits.dtype.type(1 << (63 if wide else 31))
    return np.where(bits & sign, ~bits, bits | sign)


def _rank_of_equals(labels: np.ndarray) -> np.ndarray:
    """For each row, the number of earlier rows with the same label."""
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(labels) else np.empty(0, dtype=np.int64)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(starts, np.diff(np.r_[starts, len(labels)]))
    return rank


def check_class_counts(labels: np.ndarray, per_class: int, classes: int, among: np.ndarray | None = None) -> None:
    """Raise ValueError if a class has fewer than `per_class` images (of those `among`)."""
    counts = class_counts(labels, classes, among)
    if counts.min() < per_class:
        poorest = int(counts.argmin())
        raise ValueError(
            f"cannot keep {per_class} images of each class: class {poorest} has {counts[poorest]}; "
            "keep fewer, or sample more"
        )


def top_per_class(
    labels: np.ndarray, scores: np.ndarray, per_class: int, classes: int, among: np.ndarray | None = None
) -> np.ndarray:
    """(N,) bool: the `per_class` best-scored images of each label; the earlier in case of ties. NaN is the worst.

    A radix selection: each pass over the columns decides 11 more bits of the score of the last image kept, by
    counting. Columns may be memory-mapped; besides the result it needs 2048 counts per class.

    Args:
        among: (N,) bool, the images to select from. Default: all.

    Raises:
        ValueError: a class has fewer images than that; says which.
    """
    check_class_counts(labels, per_class, classes, among)
    kept = np.zeros(len(labels), dtype=bool)
    if not per_class:
        return kept
    left = np.full(classes, per_class, dtype=np.int64)
    last = np.zeros(classes, dtype=np.uint64)
    rest = _keys(scores[:1]).dtype.itemsize * 8
    while rest:
        bits = min(_BITS, rest)
        found = np.zeros((classes, 1 << bits), dtype=np.int64)
        for some in chunks(len(labels)):
            label, key = labels[some], _keys(scores[some])
            open_ = np.ones(len(label), dtype=bool) if among is None else among[some].copy()
            if rest < key.dtype.itemsize * 8:
                open_ &= (key >> key.dtype.type(rest)) == last[label]
            digit = (key >> key.dtype.type(rest - bits)) & key.dtype.type((1 << bits) - 1)
            place = (label.astype(np.int64) << bits) + digit.astype(np.int64)
            found += np.bincount(place[open_], minlength=found.size).reshape(found.shape)
        rest -= bits
        from_top = found[:, ::-1].cumsum(1)
        digits = (from_top < left[:, None]).sum(1)
        above = np.where(digits > 0, np.take_along_axis(from_top, np.maximum(digits - 1, 0)[:, None], 1)[:, 0], 0)
        left -= above
        last = (last << np.uint64(bits)) | ((1 << bits) - 1 - digits).astype(np.uint64)
    for some in chunks(len(labels)):
        label, key = labels[some], _keys(scores[some])
        usable = np.ones(len(label), dtype=bool) if among is None else among[some]
        equal = np.flatnonzero((key == last[label]) & usable)
        chosen = (key > last[label]) & usable
        chosen[equal[_rank_of_equals(label[equal]) < left[label[equal]]]] = True
        left -= np.minimum(left, np.bincount(label[equal], minlength=classes))
        kept[some] = chosen
    return kept
