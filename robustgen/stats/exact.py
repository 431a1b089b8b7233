"""Exact two-sided tests by which red flags are raised: what the number of images can show, and no less."""

from __future__ import annotations

from robustgen.stats.intervals import PairedDifference, Proportion
from robustgen.stats.paired import mcnemar

FLAG_LEVEL = 0.01
"""Chance that a flag about an accuracy or a share is raised where there is no difference."""


def shows_more(share: Proportion, than: float) -> bool:
    """Whether a share of images is above a fixed one in (0, 1): exact binomial test."""
    return share.value > than and _binomial(share, than) < FLAG_LEVEL


def shows_less(share: Proportion, than: float) -> bool:
    """Whether a share of images is below a fixed one in (0, 1)."""
    return share.value < than and _binomial(share, than) < FLAG_LEVEL


def shows_gain(difference: PairedDifference) -> bool:
    """Whether the first of two is right more often than the second on the same images: McNemar's exact test."""
    return difference.gained > difference.lost and mcnemar(difference) < FLAG_LEVEL


def shows_other(first: Proportion, second: Proportion) -> bool:
    """Whether the shares of two different sets of images differ: Fisher's exact test."""
    if not (first.total and second.total):
        return False
    from scipy.stats import fisher_exact

    table = [[share.count, share.total - share.count] for share in (first, second)]
    return float(fisher_exact(table).pvalue) < FLAG_LEVEL


def _binomial(share: Proportion, expected: float) -> float:
    if not share.total:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(share.count, share.total, expected).pvalue)
