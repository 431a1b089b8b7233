"""Share of the gap between two classifiers that a third one closes, with a bootstrap interval. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robustgen.stats.bootstrap import percentile_interval

_RESAMPLES = 10_000
"""Bootstrap resamples; the ends of the 95 % intervals vary by about a percent of their length."""


@dataclass(frozen=True)
class GapClosed:
    """(accuracy - lower) / (upper - lower), in means over seeds.

    gain, gap       accuracy - lower, and upper - lower
    interval        95 % percentile bootstrap interval of the share; NaN where the share is
    gap_interval    that of the gap
    """

    gain: float
    gap: float
    interval: tuple[float, float]
    gap_interval: tuple[float, float]

    @property
    def value(self) -> float:
        """The share; NaN unless the interval of the gap is above 0, because a share of no gap means nothing."""
        return self.gain / self.gap if self.known else math.nan

    @property
    def known(self) -> bool:
        return self.gap_interval[0] > 0


def gap_closed(ours: np.ndarray, lower: np.ndarray, upper: np.ndarray, seed: int = 0) -> GapClosed:
    """The share of the gap between `lower` and `upper` that `ours` closes.

    Args (S seeds, N test images, the same for all):
        ours, lower, upper: (S, N) bool, whether a classifier is right on an image.
        seed: seed of the resampling.

    The bootstrap resamples images, the same for all classifiers and seeds, and seeds if there are several. So the
    interval is paired. It covers the choice of test images, and with several seeds also retraining; with two or three
    seeds that part is too narrow, as every bootstrap of so few values is. Resamples with a gap of 0 or less count as an
    infinite share, with the sign of the gain.

    Raises:
        ValueError: shapes differ, or there are no images.
    """
    if not (ours.shape == lower.shape == upper.shape and ours.ndim == 2 and ours.size):
        raise ValueError(f"expected three arrays (S, N) of one shape, got {ours.shape}, {lower.shape}, {upper.shape}")
    steps = np.concatenate([ours.astype(np.int8) - lower, upper.astype(np.int8) - lower])
    kinds, counts = np.unique(steps, axis=1, return_counts=True)
    rng = np.random.Generator(np.random.Philox(key=seed % 2**64))
    images, seeds = int(counts.sum()), len(ours)
    weights = rng.multinomial(images, counts / images, size=_RESAMPLES) / images
    drawn = (weights @ kinds.T).reshape(_RESAMPLES, 2, seeds)
    if seeds > 1:
        drawn = np.take_along_axis(drawn, rng.integers(0, seeds, (_RESAMPLES, 1, seeds)), axis=2)
    gain, gap = drawn.mean(2).T
    mean = steps.mean(1).reshape(2, seeds).mean(1)
    gap_interval, interval = percentile_interval(gap), (math.nan, math.nan)
    if gap_interval[0] > 0:
        shares = np.where(gap > 0, gain / np.where(gap > 0, gap, 1.0), np.where(gain > 0, np.inf, -np.inf))
        low, high = np.quantile(shares, [0.025, 0.975], method="inverted_cdf")  # does not interpolate up to infinity
        interval = float(low), float(high)
    return GapClosed(float(mean[0]), float(mean[1]), interval, gap_interval)
