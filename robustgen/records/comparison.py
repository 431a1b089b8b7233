"""Paired comparison of two classifiers on the same test images: differences, significance and power."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustgen.records.tables import Table
from robustgen.records.verdicts import Verdicts
from robustgen.stats.formatting import percent, points, points_range
from robustgen.stats.intervals import PairedDifference
from robustgen.stats.paired import LEVEL, bootstrap_interval, images_needed, mcnemar, smallest_difference
from robustgen.storage.arrays import load_arrays, save_arrays


@dataclass(frozen=True)
class Comparison:
    """Two classifiers on the same test images, by the same suite and threat model.

    names     names of the first and the second classifier
    judged    suite and threat model: "aa+mt, linf:8/255"
    made_for  digests of both classifiers, from their verdicts
    ids       (N,) images that both were evaluated on, sorted
    clean     (N, 2) bool: correct on the clean image
    robust    (N, 2) bool: correct under every attack
    left_out  (2,) number of images that only the first, and only the second was evaluated on
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
        """Second minus first accuracy, of `clean` or `robust`."""
        return PairedDifference.of(of[:, 1], of[:, 0])

    @property
    def summary(self) -> str:
        robust = self.difference(self.robust)
        verdict = "significant" if mcnemar(robust) < LEVEL else "not significant"
        second, first = self.names[1], self.names[0]
        return f"robust accuracy of {second} minus that of {first}: {robust}, {verdict} on {len(self)} images"

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        if self.left_out.any():
            found.append(
                f"compared on the {len(self)} images that both were evaluated on; {self.left_out[0]} images of the "
                f"first and {self.left_out[1]} of the second are left out"
            )
        if self.made_for[0] == self.made_for[1] and self.made_for[0]:
            found.append("both are the same classifier")
        return tuple(found)

    def table(self) -> Table:
        rows = []
        for name, of in (("clean", self.clean), ("robust", self.robust)):
            difference, shares = self.difference(of), of.mean(0)
            disputed = (difference.gained + difference.lost) / len(self)
            value = difference.value
            needed = f"{images_needed(value, disputed):,}" if value else ""
            rows.append(
                (
                    name,
                    percent(shares[0]),
                    percent(shares[1]),
                    points(value),
                    points_range(difference.interval),
                    points_range(bootstrap_interval(difference)),
                    f"+{difference.gained} -{difference.lost}",
                    f"{mcnemar(difference):.2g}",
                    needed,
                    percent(smallest_difference(len(self), disputed)) if disputed else "",
                )
            )
        columns = (
            "accuracy", f"{self.names[0]} %", f"{self.names[1]} %", "difference", "95 %", "bootstrap 95 %", "images",
            "McNemar p", "images needed", "detectable, points",
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
            raise ValueError(f"expected a comparison in {path}, but cannot read one ({error})") from None


def compare(first: Verdicts, second: Verdicts, names: tuple[str, str] = ("first", "second")) -> Comparison:
    """Pair the verdicts of two classifiers by the contents of the images; images of only one are left out.

    Raises:
        ValueError: an evaluation is not finished, suites or threat models differ, labels of the same image differ, or
            there is no common image.
    """
    for verdicts, name in zip((first, second), names, strict=True):
        if not verdicts.finished:
            raise ValueError(f"the evaluation of {name} is not finished; run its command again to finish it")
    judged = [f"{verdicts.suite}, {verdicts.threat}" for verdicts in (first, second)]
    if judged[0] != judged[1]:
        raise ValueError(
            f"expected the same suite and threat model, got {judged[0]} for {names[0]} and {judged[1]} for {names[1]}; "
            "evaluate both in the same way"
        )
    rows = _common(first.ids, second.ids)
    if not len(rows[0]):
        raise ValueError(f"{names[0]} and {names[1]} have no test image in common; evaluate both on the same images")
    if not np.array_equal(first.labels[rows[0]], second.labels[rows[1]]):
        raise ValueError(f"{names[0]} and {names[1]} have different labels for the same images; evaluate both again")
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
    """Compare every arm that two runs have in common, by its name.

    Raises:
        ValueError: the runs have no arm in common, or see `compare`.
    """
    shared = [arm for arm in first if arm in second]
    if not shared:
        raise ValueError(
            f"expected an evaluated arm in common, got {', '.join(first) or 'none'} of {names[0]} and "
            f"{', '.join(second) or 'none'} of {names[1]}"
        )
    return {arm: compare(first[arm], second[arm], names) for arm in shared}


def _common(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of common ids in ascending order of id; the k-th of several equal ids is paired with the k-th."""
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
