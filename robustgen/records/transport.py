"""Record of the conditional Wasserstein distance between real and generated images. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustgen.records.record import ProxyRecord
from robustgen.records.tables import Table
from robustgen.stats.bootstrap import RESAMPLES, percentile_interval, resampled_means
from robustgen.stats.formatting import number, percent


def weighted_class_mean(values: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> float:
    """Mean of the class means, weighted by the class frequencies `shares`."""
    present = np.flatnonzero(shares)
    return float(sum(shares[k] * values[labels == k].mean() for k in present))


def resampled_class_means(
    values: np.ndarray, labels: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(RESAMPLES,) bootstrap values of `weighted_class_mean`, with rows resampled within classes."""
    total = np.zeros(RESAMPLES)
    for k in np.flatnonzero(shares):
        total += shares[k] * resampled_means(values[labels == k], rng)
    return total


@dataclass(frozen=True)
class TransportRecord(ProxyRecord):
    """Wasserstein distance between real and generated images of each class.

    K classes, n real and m generated images.

    shares            (K,) class frequencies of the real images, the weights of the classes
    generated_shares  (K,) class frequencies of the generated images
    real, generated   (n,), (m,) positions of the images used
    real_label, generated_label          (n,), (m,)
    real_potential, generated_potential  (n,), (m,) optimal dual potentials: in each class their means add up to
                      `lower`; NaN for the method `sliced`
    lower, upper      (K,) bounds of the distance; equal if it is exact; `upper` is NaN for the method `sliced`
    among_real        (K,) distance between two halves of the real images: the bias of the sample size; NaN where a
                      class has a single real image
    at_half           (K,) distance between one of these halves and equally many generated images, to compare with it
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
        """(K,) distance of each class: the upper bound, for `sliced` the lower bound."""
        return np.where(np.isnan(self.upper), self.lower, self.upper)

    def _over_classes(self, values: np.ndarray) -> float:
        present = self.shares > 0
        return float((self.shares[present] * values[present]).sum())

    @property
    def cwd(self) -> float:
        """Conditional Wasserstein distance: sum over classes of frequency times distance (arXiv:2104.09425)."""
        return self._over_classes(self.distances)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the distance at this sample size, by resampling dual potentials (del Barrio & Loubes 2019).

        It does not cover the distance of the distributions, which is smaller by a bias of the order of `among_real`.
        """
        rng = self.resampling()
        draws = resampled_class_means(self.real_potential, self.real_label, self.shares, rng)
        draws += resampled_class_means(self.generated_potential, self.generated_label, self.shares, rng)
        return percentile_interval(draws + self.cwd - self._over_classes(self.lower))

    @property
    def bias(self) -> float:
        """Distance between two halves of the real images, averaged over classes: the bias at half the sample size."""
        return self._over_classes(self.among_real)

    @property
    def excess(self) -> float:
        """Distance of generated images minus that of other real images, both at half the sample size; 0 is ideal."""
        return self._over_classes(self.at_half - self.among_real)

    @property
    def imbalance(self) -> float:
        """Total variation distance between the class frequencies of real and generated images."""
        return float(np.abs(self.shares - self.generated_shares).sum() / 2)

    @property
    def summary(self) -> str:
        return (
            f"conditional Wasserstein distance {self.cwd:.4g} in {self.about.threat}; with half of the images "
            f"{self._over_classes(self.at_half):.4g}, between halves of the real images {self.bias:.4g}"
        )

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        fewest = int(np.bincount(self.real_label, minlength=len(self.shares))[self.shares > 0].min())
        if fewest < 20:
            found.append(f"only {fewest} real images of one class: the distance is dominated by the small sample size")
        if self.imbalance > 0.01:
            found.append(
                f"class frequencies differ by {percent(self.imbalance)} points: both sets are weighted by those of the "
                "real images, as the transfer bound requires"
            )
        return tuple(found)

    def table(self) -> Table:
        sides = self.real_label, self.generated_label
        counts = np.stack([np.bincount(labels, minlength=len(self.shares)) for labels in sides])
        values = (self.lower, self.upper, self.at_half, self.among_real)
        rows = [
            (str(k), *map(str, counts[:, k]), *(number(value[k]) for value in values))
            for k in np.flatnonzero(self.shares)
        ]
        whole = [self._over_classes(value) for value in values]
        rows.append(("all", *map(str, counts.sum(1)), *map(number, whole)))
        columns = ("class", "real", "generated", "lower bound", "upper bound", "half of the images", "halves of real")
        return Table(columns, tuple(rows))
