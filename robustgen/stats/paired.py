"""Statistics of paired accuracies: McNemar's test, bootstrap intervals, power."""

from __future__ import annotations

import math

import numpy as np

from robustgen.stats.intervals import PairedDifference

LEVEL, POWER = 0.05, 0.8
"""Significance level and power of tests; conventional values."""


def mcnemar(difference: PairedDifference) -> float:
    """Two-sided p-value of McNemar's exact test of equal accuracies (McNemar 1947).

        p = min(1, 2 P(X <= min(gained, lost))),    X ~ Binomial(gained + lost, 1/2)

    Only images on which the two differ count; without any, p = 1.
    """
    from scipy.stats import binom

    disputed = difference.gained + difference.lost
    return float(min(1.0, 2 * binom.cdf(min(difference.gained, difference.lost), disputed, 0.5)))


def bootstrap_interval(difference: PairedDifference, level: float = LEVEL) -> tuple[float, float]:
    """Percentile bootstrap interval of (gained - lost) / total, computed exactly instead of by resampling.

    A resampled image is gained, lost or neither with the observed frequencies. The distribution of the sum over `total`
    images is computed by Fourier transform; its quantiles are those of infinitely many resamples.
    """
    n = difference.total
    if not n:
        return math.nan, math.nan
    size = 2 * n + 1
    turn = 2 * np.pi * np.arange(size) / size
    gained, lost = difference.gained / n, difference.lost / n
    characteristic = (1 - gained - lost + gained * np.exp(1j * turn) + lost * np.exp(-1j * turn)) ** n
    chances = np.fft.fftshift(np.fft.fft(characteristic).real / size).clip(0)
    rises = np.cumsum(chances / chances.sum())
    low, high = (int(np.searchsorted(rises, q - 1e-12)) - n for q in (level / 2, 1 - level / 2))
    return low / n, high / n


def images_needed(difference: float, disputed: float, level: float = LEVEL, power: float = POWER) -> int:
    """Number of images with which McNemar's test detects a difference of accuracies with the given power.

        n = ( z_(1 - level/2) sqrt(disputed) + z_power sqrt(disputed - difference^2) )^2 / difference^2

    Args:
        difference: difference of the two accuracies, not 0.
        disputed: fraction of images that only one of the two classifies correctly; at least |difference|.

    Source: Connor 1987, doi:10.2307/2531961.
    """
    from scipy.stats import norm

    _check(difference, level, power)
    if not abs(difference) <= disputed <= 1:
        raise ValueError(
            f"the fraction of disputed images must be at least the difference, {abs(difference):g}, and at most 1, got "
            f"{disputed:g}"
        )
    root = norm.ppf(1 - level / 2) * math.sqrt(disputed) + norm.ppf(power) * math.sqrt(disputed - difference**2)
    return math.ceil(root**2 / difference**2)


def seeds_needed(difference: float, spread: float, level: float = LEVEL, power: float = POWER) -> int:
    """Number of seeds per arm with which a two-sided t-test detects a difference of mean accuracies.

    It is the smallest s >= 2 for which the noncentral t with 2 (s - 1) degrees of freedom and noncentrality
    |difference| / (spread sqrt(2 / s)) exceeds the critical value with probability `power`.

    Args:
        difference: difference of the mean accuracies, not 0.
        spread: standard deviation of the accuracy over seeds, on the same test images.
    """
    from scipy.stats import nct, t

    _check(difference, level, power)
    if not (math.isfinite(spread) and spread >= 0):
        raise ValueError(f"the standard deviation over seeds must be finite and at least 0, got {spread:g}")
    if spread == 0:
        return 2

    def found(seeds: int) -> bool:
        freedom = 2 * (seeds - 1)
        critical = t.ppf(1 - level / 2, freedom)
        return bool(nct.sf(critical, freedom, abs(difference) / (spread * math.sqrt(2 / seeds))) >= power)

    enough = 2
    while not found(enough):
        enough *= 2
    low = max(1, enough // 2)
    while enough - low > 1:
        middle = (enough + low) // 2
        low, enough = (low, middle) if found(middle) else (middle, enough)
    return enough


def smallest_difference(images: int, disputed: float, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest difference that `images` images detect with the given power; at most `disputed`."""
    if not (images >= 1 and 0 <= disputed <= 1):
        raise ValueError(f"expected at least 1 image and a fraction in [0, 1], got {images} and {disputed:g}")
    low, high = 0.0, disputed
    for _ in range(60):
        middle = (low + high) / 2
        enough = middle > 0 and images_needed(middle, disputed, level, power) <= images
        low, high = (low, middle) if enough else (middle, high)
    return high


def _check(difference: float, level: float, power: float) -> None:
    if not (math.isfinite(difference) and difference):
        raise ValueError(f"the smallest difference of interest must be finite and non-zero, got {difference:g}")
    if not (0 < level < 1 and level < power < 1):
        raise ValueError(f"expected 0 < level < power < 1, got level {level:g} and power {power:g}")
