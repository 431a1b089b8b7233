"""Statistics of paired accuracies: McNemar's test, bootstrap intervals, power."""

from __future__ import annotations

import math

import numpy as np

from robustgen.stats.intervals import PairedDifference

LEVEL, POWER = 0.05, 0.8
"""Chance of a false alarm, and of finding a difference that is there: the usual ones."""


def mcnemar(difference: PairedDifference) -> float:
    """Two-sided exact p-value that both are right equally often (McNemar 1947; exact: Binomial(gained + lost, 1/2)).

    p = min(1, 2 P(X <= min(gained, lost))). Images on which both agree say nothing; without others p = 1.
    """
    from scipy.stats import binom

    disputed = difference.gained + difference.lost
    return float(min(1.0, 2 * binom.cdf(min(difference.gained, difference.lost), disputed, 0.5)))


def bootstrap_interval(difference: PairedDifference, level: float = LEVEL) -> tuple[float, float]:
    """The percentile bootstrap's interval of (gained - lost) / total, without drawing: its distribution is known.

    A resampled image is gained, lost or neither with the shares seen; the distribution of the sum of `total` such is
    computed by Fourier transform, and its quantiles are what infinitely many resamplings would give.
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
    """Images that McNemar's test needs to find a difference of accuracies with the given chance.

        n = ( z_(1 - level/2) sqrt(disputed) + z_power sqrt(disputed - difference^2) )^2 / difference^2

    Args:
        difference: between the two accuracies, not 0.
        disputed: share of images that only one of the two gets right; at least |difference|.

    Source: Connor 1987, doi:10.2307/2531961.
    """
    from scipy.stats import norm

    _check(difference, level, power)
    if not abs(difference) <= disputed <= 1:
        raise ValueError(
            f"a difference of {difference:g} needs that share of disputed images or more, got {disputed:g}"
        )
    root = norm.ppf(1 - level / 2) * math.sqrt(disputed) + norm.ppf(power) * math.sqrt(disputed - difference**2)
    return math.ceil(root**2 / difference**2)


def seeds_needed(difference: float, spread: float, level: float = LEVEL, power: float = POWER) -> int:
    """Trainings of each kind that a two-sided t-test of their accuracies needs to find a difference of their means.

    The smallest s at least 2 at which the noncentral t with 2 (s - 1) degrees of freedom and noncentrality
    |difference| / (spread sqrt(2 / s)) exceeds the critical value with that chance.

    Args:
        difference: between the mean accuracies, not 0.
        spread: standard deviation of an accuracy from seed to seed, on the same test images.
    """
    from scipy.stats import nct, t

    _check(difference, level, power)
    if not (math.isfinite(spread) and spread >= 0):
        raise ValueError(f"the spread over seeds must be a finite number from 0 up, got {spread:g}")
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
    """The least difference that so many images find with that chance; `disputed` itself where not even that is."""
    if not (images >= 1 and 0 <= disputed <= 1):
        raise ValueError(f"expected at least 1 image and a share in [0, 1], got {images} and {disputed:g}")
    low, high = 0.0, disputed
    for _ in range(60):
        middle = (low + high) / 2
        enough = middle > 0 and images_needed(middle, disputed, level, power) <= images
        low, high = (low, middle) if enough else (middle, high)
    return high


def _check(difference: float, level: float, power: float) -> None:
    if not (math.isfinite(difference) and difference):
        raise ValueError(f"a difference of {difference:g} cannot be found with any number; say what would matter")
    if not (0 < level < 1 and level < power < 1):
        raise ValueError(f"expected 0 < level < power < 1, got level {level:g} and power {power:g}")
