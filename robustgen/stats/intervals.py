"""Proportions of images, and paired differences on the same images, with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robustgen.stats.formatting import percent_range, points, points_range

_Z = 1.959963984540054
"""97.5 % quantile of the standard normal: two-sided 95 % intervals."""


@dataclass(frozen=True)
class Proportion:
    """A count out of a total, with its 95 % Wilson interval, which is valid near 0 and 1 too."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % Wilson interval; NaN for a total of 0."""
        if not self.total:
            return math.nan, math.nan
        n, p = self.total, self.value
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
        # Rounding must not leave the value outside at 0 and 1.
        return max(0.0, min(middle - half, p)), min(1.0, max(middle + half, p))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({percent_range(self.interval)})" if self.total else "no images"


@dataclass(frozen=True)
class PairedDifference:
    """Difference of the accuracies of two classifiers on the same images.

    gained  images that only the first classifies correctly
    lost    images that only the second classifies correctly
    """

    gained: int
    lost: int
    total: int

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> PairedDifference:
        """From two boolean arrays (correct or not) over the same images in the same order."""
        if first.shape != second.shape:
            raise ValueError(f"expected two arrays over the same images, got shapes {first.shape} and {second.shape}")
        return cls(int((first & ~second).sum()), int((second & ~first).sum()), len(first))

    @property
    def value(self) -> float:
        return (self.gained - self.lost) / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of Bonett & Price 2012 (Wald interval with one image added to each discordant cell)."""
        if not self.total:
            return math.nan, math.nan
        n = self.total + 2
        gained, lost = (self.gained + 1) / n, (self.lost + 1) / n
        middle = gained - lost
        half = _Z * math.sqrt((gained + lost - middle**2) / n)
        return max(-1.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        return f"{points(self.value)} points ({points_range(self.interval)})" if self.total else "no images"
