"""What several seeds say together: mean, spread, an interval for the mean; rank correlations. NumPy, and scipy's t."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
"""Of a bootstrap: its 95 % intervals move by a few hundredths of their length."""


@dataclass(frozen=True)
class SeedStatistics:
    """One number by several seeds."""

    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation from seed to seed, with one degree of freedom less; NaN for a single seed."""
        count, mean = len(self.values), self.mean
        if count < 2:
            return math.nan
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (count - 1))

    @property
    def range(self) -> tuple[float, float]:
        return (min(self.values), max(self.values)) if self.values else (math.nan, math.nan)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % for the mean over all seeds there could be: mean -+ t_(0.975, s - 1) deviation / sqrt(s); NaN for one.

        Student's t: exact where values are normal. With 3 seeds t is 4.3, with 5 it is 2.8.
        """
        from scipy.stats import t

        count = len(self.values)
        if count < 2:
            return math.nan, math.nan
        half = float(t.ppf(0.975, count - 1)) * self.deviation / math.sqrt(count)
        return self.mean - half, self.mean + half


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's over the last axis: Pearson's of the ranks, equal values sharing theirs; NaN where one is constant."""
    from scipy.stats import rankdata

    ours, theirs = (rankdata(values, axis=-1) for values in (first, second))
    ours, theirs = (ranks - ranks.mean(-1, keepdims=True) for ranks in (ours, theirs))
    length = np.sqrt((ours**2).sum(-1) * (theirs**2).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(length > 1e-12, (ours * theirs).sum(-1) / length, np.nan)


@dataclass(frozen=True)
class RankCorrelation:
    """Of a measure with what it should foretell, over generators.

    value     of the means over seeds
    interval  95 %, by a bootstrap over seeds and over generators
    each      in each seed alone
    """

    value: float
    interval: tuple[float, float]
    each: tuple[float, ...]


def correlate(measure: np.ndarray, bought: np.ndarray, seed: int = 0) -> RankCorrelation:
    """Spearman's correlation of two numbers known of the same generators in the same seeds.

    Seeds and generators are both drawn anew, with replacement, in each of the resamples, so that the interval speaks of
    other trainings and of other generators; resamples in which one of the two does not vary are left out.

    Args (S seeds, G generators):
        measure, bought: (S, G), finite.
        seed: of the resampling.

    Raises:
        ValueError: other shapes, fewer than 3 generators, or numbers that are not finite.
    """
    if measure.shape != bought.shape or measure.ndim != 2 or measure.shape[1] < 3 or not measure.shape[0]:
        raise ValueError(f"expected (S, G) with G at least 3, twice the same, got {measure.shape} and {bought.shape}")
    if not (np.isfinite(measure).all() and np.isfinite(bought).all()):
        raise ValueError("ranks need finite numbers")
    seeds, generators = measure.shape
    rng = np.random.Generator(np.random.Philox(key=seed % 2**64))
    rows = rng.integers(0, seeds, (RESAMPLES, seeds, 1))
    columns = rng.integers(0, generators, (RESAMPLES, 1, generators))
    drawn = rank_correlation(*(values[rows, columns].mean(1) for values in (measure, bought)))
    known = drawn[np.isfinite(drawn)]
    low, high = (float(end) for end in np.quantile(known, [0.025, 0.975])) if len(known) else (math.nan, math.nan)
    return RankCorrelation(
        value=float(rank_correlation(measure.mean(0), bought.mean(0))),
        interval=(low, high),
        each=tuple(rank_correlation(measure, bought).tolist()),
    )
