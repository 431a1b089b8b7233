"""Two runs on the same test images: what differs beyond chance, and what it would take to settle a difference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustgen.records.tables import Table
from robustgen.records.verdicts import Verdicts
from robustgen.stats.intervals import PairedDifference
from robustgen.stats.paired import LEVEL, bootstrap_interval, images_needed, mcnemar, smallest_difference
from robustgen.storage.arrays import load_arrays, save_arrays


@dataclass(frozen=True)
class Comparison:
    """Two classifiers on the same test images, by the same suite and threat model.

    names     of the first and the second
    judged    "aa+mt, linf:8/255"
    made_for  digests of both classifiers, as their verdicts have them
    ids       (N,) the images both were judged on, sorted
    clean     (N, 2) bool: right on the clean image
    robust    (N, 2) bool: ... and on everything that was tried
    left_out  (2,) images that only the first, only the second was judged on
    """

    names: tuple[str, str]
    judged: str
    made_for: tuple[str, str]
    ids: np.ndarray
    clean: np.ndarray
    robust: np.ndarray
    left_out: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def difference(self, of: np.ndarray) -> PairedDifference:
        """The second minus the first, of `clean` or `robust`."""
        return PairedDifference.of(of[:, 1], of[:, 0])

    @property
    def summary(self) -> str:
        robust = self.difference(self.robust)
        verdict = "settled" if mcnemar(robust) < LEVEL else "not settled"
        return f"{self.names[1]} is robust {robust} more often than {self.names[0]}: {verdict} by {len(self)} images"

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        if self.left_out.any():
            found.append(
                f"compared on the {len(self)} images that both were judged on; {self.left_out[0]} of the first and "
                f"{self.left_out[1]} of the second are left out"
            )
        if self.made_for[0] == self.made_for[1] and self.made_for[0]:
            found.append("both are the same classifier")
        return tuple(found)

    def table(self) -> Table:
        rows = []
        for name, of in (("clean", self.clean), ("robust", self.robust)):
            difference, shares = self.difference(of), 100 * of.mean(0)
            disputed = (difference.gained + difference.lost) / len(self)
            value = difference.value
            needed = f"{images_needed(value, disputed):,}" if value else ""
            rows.append(
                (
                    name,
                    f"{shares[0]:.1f}",
                    f"{shares[1]:.1f}",
                    f"{100 * value:+.1f}",
                    _points(difference.interval),
                    _points(bootstrap_interval(difference)),
                    f"+{difference.gained} -{difference.lost}",
                    f"{mcnemar(difference):.2g}",
                    needed,
                    f"{100 * smallest_difference(len(self), disputed):.1f}" if disputed else "",
                )
            )
        columns = (
            "accuracy", f"{self.names[0]} %", f"{self.names[1]} %", "difference", "95 %", "bootstrap 95 %", "images",
            "McNemar p", "images to settle it", "settled by these, points",
        )  # fmt: skip
        return Table(columns, tuple(rows))

    def save(self, path: Path) -> None:
        about = {"kind": "comparison", "names": self.names, "judged": self.judged, "made_for": self.made_for}
        arrays = {"ids": self.ids, "clean": self.clean, "robust": self.robust, "left_out": self.left_out}
        save_arrays(path, {"about": np.array(json.dumps(about)), **arrays})

    @classmethod
    def load(cls, path: Path) -> Comparison:
        arrays = load_arrays(path)
        try:
            about = json.loads(str(arrays.pop("about")))
            if about.pop("kind") != "comparison":
                raise KeyError("kind")
            first, second = about["names"]
            of_first, of_second = about["made_for"]
            return cls((first, second), about["judged"], (of_first, of_second), **arrays)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} does not hold a comparison ({error})") from None


def compare(first: Verdicts, second: Verdicts, names: tuple[str, str] = ("first", "second")) -> Comparison:
    """Pair two classifiers' verdicts by the images' contents, whatever their order; images of one alone are left out.

    Raises:
        ValueError: not finished, another suite or threat model, or no image in common.
    """
    for verdicts, name in zip((first, second), names, strict=True):
        if not verdicts.finished:
            raise ValueError(f"{name} is still being evaluated; repeat its command to finish")
    judged = [f"{verdicts.suite}, {verdicts.threat}" for verdicts in (first, second)]
    if judged[0] != judged[1]:
        raise ValueError(f"{names[0]} was judged by {judged[0]}, {names[1]} by {judged[1]}: compare like with like")
    rows = _common(first.ids, second.ids)
    if not len(rows[0]):
        raise ValueError(f"{names[0]} and {names[1]} have no test image in common")
    if not np.array_equal(first.labels[rows[0]], second.labels[rows[1]]):
        raise ValueError(f"{names[0]} and {names[1]} have other labels for the same images")
    pairs = [(verdicts, index) for verdicts, index in zip((first, second), rows, strict=True)]
    return Comparison(
        names=names,
        judged=judged[0],
        made_for=(first.made_for, second.made_for),
        ids=first.ids[rows[0]],
        clean=np.stack([verdicts.right[index] for verdicts, index in pairs], axis=1),
        robust=np.stack([verdicts.robust[index] for verdicts, index in pairs], axis=1),
        left_out=np.array([len(first) - len(rows[0]), len(second) - len(rows[1])]),
    )


def compare_arms(
    first: Mapping[str, Verdicts], second: Mapping[str, Verdicts], names: tuple[str, str]
) -> dict[str, Comparison]:
    """Every arm that two runs share, by its name.

    Raises:
        ValueError: they share none.
    """
    shared = [arm for arm in first if arm in second]
    if not shared:
        raise ValueError(
            f"{names[0]} and {names[1]} have no evaluated arm in common: "
            f"{', '.join(first) or 'none'} there, {', '.join(second) or 'none'} here"
        )
    return {arm: compare(first[arm], second[arm], names) for arm in shared}


def _common(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the ids that both hold, in rising order of id; the k-th of equal ones goes with the k-th."""
    rows: list[list[int]] = [[], []]
    orders = [np.argsort(ids, kind="stable") for ids in (first, second)]
    i = j = 0
    while i < len(first) and j < len(second):
        ours, theirs = first[orders[0][i]], second[orders[1][j]]
        if ours == theirs:
            rows[0].append(int(orders[0][i]))
            rows[1].append(int(orders[1][j]))
        i, j = i + (ours <= theirs), j + (theirs <= ours)
    return np.array(rows[0], dtype=np.int64), np.array(rows[1], dtype=np.int64)


def _points(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
