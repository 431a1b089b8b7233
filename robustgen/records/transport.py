"""How far real images are from generated ones, and from being misclassified: what transport leaves. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustgen.records.closeness import Closeness
from robustgen.records.tables import Table
from robustgen.stats.bootstrap import RESAMPLES, middle, resampled_means


def _weighed(values: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> float:
    """Mean within each class, then over the classes by their shares."""
    present = np.flatnonzero(shares)
    return float(sum(shares[k] * values[labels == k].mean() for k in present))


def _resampled(values: np.ndarray, labels: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES,) of `_weighed`, rows resampled within each class."""
    total = np.zeros(RESAMPLES)
    for k in np.flatnonzero(shares):
        total += shares[k] * resampled_means(values[labels == k], rng)
    return total


@dataclass(frozen=True)
class Transport(Closeness):
    """How far images of each class must be moved to turn real ones into generated ones: conditional transport.

    K classes, n real and m generated images looked at.

    shares            (K,) of the real labels; classes are weighed by them
    generated_shares  (K,) of the generated labels
    real, generated   (n,), (m,) positions of the images looked at
    real_label, generated_label          (n,), (m,)
    real_potential, generated_potential  (n,), (m,) optimal prices: in each class their means add up to `lower`; NaN for
                      `sliced`, which has none
    lower, upper      (K,) what the distance between the two sets lies within; equal where it is exact; `upper` is NaN
                      for `sliced`
    among_real        (K,) between two halves of the real images: what the size of the samples alone makes; NaN where
                      a class has a single real image
    at_half           (K,) between one of these halves and as many generated images: to be compared with it
    """

    kind: ClassVar[str] = "transport"

    shares: np.ndarray
    generated_shares: np.ndarray
    real: np.ndarray
    generated: np.ndarray
    real_label: np.ndarray
    generated_label: np.ndarray
    real_potential: np.ndarray
    generated_potential: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    among_real: np.ndarray
    at_half: np.ndarray

    @property
    def distances(self) -> np.ndarray:
        """(K,) of each class: the upper end of what is known, for `sliced` the lower one."""
        return np.where(np.isnan(self.upper), self.lower, self.upper)

    def _over_classes(self, values: np.ndarray) -> float:
        present = self.shares > 0
        return float((self.shares[present] * values[present]).sum())

    @property
    def cwd(self) -> float:
        """The conditional Wasserstein distance: sum over classes of share times distance (arXiv:2104.09425)."""
        return self._over_classes(self.distances)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % for the distance of samples of this size, by resampling the optimal prices (del Barrio & Loubes 2019).

        It does not hold the distance of the distributions: that is smaller by a bias that `among_real` shows.
        """
        rng = self.resampling()
        draws = _resampled(self.real_potential, self.real_label, self.shares, rng)
        draws += _resampled(self.generated_potential, self.generated_label, self.shares, rng)
        return middle(draws + self.cwd - self._over_classes(self.lower))

    @property
    def bias(self) -> float:
        """What two samples of one distribution are apart, at half the size: the real images' own."""
        return self._over_classes(self.among_real)

    @property
    def excess(self) -> float:
        """How much farther generated images are than other real ones, at that size: 0 is ideal."""
        return self._over_classes(self.at_half - self.among_real)

    @property
    def imbalance(self) -> float:
        """Total variation between the label shares of both sides."""
        return float(np.abs(self.shares - self.generated_shares).sum() / 2)

    @property
    def summary(self) -> str:
        return (
            f"conditional Wasserstein distance {self.cwd:.4g} in {self.about.threat}; at half the images "
            f"{self._over_classes(self.at_half):.4g}, among real ones {self.bias:.4g}"
        )

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        fewest = int(np.bincount(self.real_label, minlength=len(self.shares))[self.shares > 0].min())
        if fewest < 20:
            found.append(f"only {fewest} real images of one class: the distance is mostly that of small samples")
        if self.imbalance > 0.01:
            found.append(
                f"label shares differ by {100 * self.imbalance:.1f} points: both sides are weighed by the shares of "
                "the real images, as the transfer bound wants"
            )
        return tuple(found)

    def table(self) -> Table:
        sides = self.real_label, self.generated_label
        counts = np.stack([np.bincount(labels, minlength=len(self.shares)) for labels in sides])
        values = (self.lower, self.upper, self.at_half, self.among_real)
        rows = [
            (str(k), *map(str, counts[:, k]), *(_short(value[k]) for value in values))
            for k in np.flatnonzero(self.shares)
        ]
        whole = [self._over_classes(value) for value in values]
        rows.append(("all", *map(str, counts.sum(1)), *map(_short, whole)))
        columns = ("class", "real", "generated", "at least", "at most", "at half the images", "among real")
        return Table(columns, tuple(rows))


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.4g} to {interval[1]:.4g}"
