"""Bootstrap resampling of rows."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
"""Of a bootstrap: its 95 % intervals move by a few hundredths of their length."""


def resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, ...) means over the first axis of resampled rows."""
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES) / len(values)
    return weights @ values


def middle(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
