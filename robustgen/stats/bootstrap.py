"""Bootstrap resampling of rows."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
"""Bootstrap resamples; the 95 % intervals vary by a few percent of their length."""


def resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, ...) means of bootstrap resamples of the rows (first axis)."""
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES) / len(values)
    return weights @ values


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % interval between the 2.5 % and 97.5 % quantiles of bootstrap values."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
