"""Statistics over seeds: mean, standard deviation, interval of the mean, rank correlations. NumPy and scipy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 2000
"""Bootstrap resamples; the 95 % intervals vary by a few percent of their length."""


@dataclass(frozen=True)
class SeedStatistics:
    """One quantity measured with several seeds."""

    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Sample standard deviation over seeds (divided by count - 1); NaN for a single seed."""
        count, mean = len(self.values), self.mean
        if count < 2:
            return math.nan
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (count - 1))

    @property
    def range(self) -> tuple[float, float]:
        return (min(self.values), max(self.values)) if self.values else (math.nan, math.nan)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Student's t interval of the mean: mean +- t_(0.975, s - 1) deviation / sqrt(s); NaN for a single seed.

        It is exact for normal values. With 3 seeds t is 4.3, with 5 it is 2.8.
        """
        from scipy.stats import t

        count = len(self.values)
        if count < 2:
            return math.nan, math.nan
        half = float(t.ppf(0.975, count - 1)) * self.deviation / math.sqrt(count)
        return self.mean - half, self.mean + half


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation over the last axis, with mean ranks for ties; NaN where one side is constant."""
    from scipy.stats import rankdata

    ours, theirs = (rankdata(values, axis=-1) for values in (first, second))
    ours, theirs = (ranks - ranks.mean(-1, keepdims=True) for ranks in (ours, theirs))
    length = np.sqrt((ours**2).sum(-1) * (theirs**2).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(length > 1e-12, (ours * theirs).sum(-1) / length, np.nan)


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlation of a metric with what it should predict, over generators.

    value     correlation of the means over seeds
    interval  95 % bootstrap interval over seeds and generators
    each      correlation in each seed
    """

    value: float
    interval: tuple[float, float]
    each: tuple[float, ...]


def correlate(metric: np.ndarray, gain: np.ndarray, seed: int = 0) -> RankCorrelation:
    """Spearman's rank correlation of two quantities of the same generators and seeds.

    The bootstrap resamples both seeds and generators with replacement, so the interval covers retraining and the choice
    of generators. Resamples in which one of the quantities is constant are left out.

    Args (S seeds, G generators):
        metric, gain: (S, G), finite.
        seed: seed of the resampling.

    Raises:
        ValueError: shapes differ, there are fewer than 3 generators, or a value is not finite.
    """
    if metric.shape != gain.shape or metric.ndim != 2 or metric.shape[1] < 3 or not metric.shape[0]:
        raise ValueError(f"expected two arrays (S, G) with G at least 3, got {metric.shape} and {gain.shape}")
    if not (np.isfinite(metric).all() and np.isfinite(gain).all()):
        raise ValueError("expected finite numbers to rank, got NaN or inf")
    seeds, generators = metric.shape
    rng = np.random.Generator(np.random.Philox(key=seed % 2**64))
    rows = rng.integers(0, seeds, (_RESAMPLES, seeds, 1))
    columns = rng.integers(0, generators, (_RESAMPLES, 1, generators))
    drawn = rank_correlation(*(values[rows, columns].mean(1) for values in (metric, gain)))
    known = drawn[np.isfinite(drawn)]
    low, high = (float(end) for end in np.quantile(known, [0.025, 0.975])) if len(known) else (math.nan, math.nan)
    return RankCorrelation(
        value=float(rank_correlation(metric.mean(0), gain.mean(0))),
        interval=(low, high),
        each=tuple(rank_correlation(metric, gain).tolist()),
    )
