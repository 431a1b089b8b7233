"""Record of the bound on how robustness transfers from generated to real images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustgen.records.record import ProxyRecord
from robustgen.records.tables import Table
from robustgen.records.transport import resampled_class_means, weighted_class_mean
from robustgen.stats.bootstrap import percentile_interval
from robustgen.stats.formatting import number, number_range


@dataclass(frozen=True)
class TransferRecord(ProxyRecord):
    """Average robustness of a classifier on real and on generated images, and the bound on their difference.

        | Rob(real) - Rob(generated) | <= cwd(real, generated),   Rob = mean distance to the nearest misclassified image

    holds for every classifier if both sets have the same class frequencies (arXiv:2104.09425, Theorem 1). Here both
    sets are weighted by the class frequencies of the real images.

    shares  (K,) class frequencies of the real images
    real_label, generated_label        (n,), (m,)
    real_distance, generated_distance  (n,), (m,) to the nearest misclassified image found; 0 where the clean image is
                                       misclassified, NaN while pending
    real_broken, generated_broken      (n,), (m,) bool: one was found; else the distance is the largest within [0, 1]
    cwd     (2,) lower and upper bound of the conditional Wasserstein distance between these images
    """

    kind: ClassVar[str] = "transfer"

    shares: np.ndarray
    real_label: np.ndarray
    generated_label: np.ndarray
    real_distance: np.ndarray
    generated_distance: np.ndarray
    real_broken: np.ndarray
    generated_broken: np.ndarray
    cwd: np.ndarray

    @property
    def finished(self) -> bool:
        return not (np.isnan(self.real_distance).any() or np.isnan(self.generated_distance).any())

    @property
    def robustness(self) -> tuple[float, float]:
        """Average robustness on real and on generated images."""
        return (
            weighted_class_mean(self.real_distance, self.real_label, self.shares),
            weighted_class_mean(self.generated_distance, self.generated_label, self.shares),
        )

    def _draws(self) -> tuple[np.ndarray, np.ndarray]:
        rng = self.resampling()
        real = resampled_class_means(self.real_distance, self.real_label, self.shares, rng)
        return real, resampled_class_means(self.generated_distance, self.generated_label, self.shares, rng)

    @property
    def intervals(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """95 % bootstrap intervals of both, with images resampled within classes."""
        real, generated = self._draws()
        return percentile_interval(real), percentile_interval(generated)

    @property
    def gap(self) -> float:
        """Average robustness on real images minus that on generated images."""
        real, generated = self.robustness
        return real - generated

    @property
    def gap_interval(self) -> tuple[float, float]:
        real, generated = self._draws()
        return percentile_interval(real - generated)

    @property
    def holds(self) -> bool:
        """Whether the bound holds on these images. It must if distances and transport are exact to a thousandth."""
        return abs(self.gap) <= float(self.cwd[1]) * 1.001 + 1e-6

    @property
    def summary(self) -> str:
        real, generated = self.robustness
        verdict = "at most" if self.holds else "MORE than"
        return (
            f"average robustness is {real:.4g} on real and {generated:.4g} on generated images; the difference "
            f"{abs(self.gap):.4g} is {verdict} the conditional Wasserstein distance {self.cwd[1]:.4g}"
        )

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        if not self.holds:
            found.append(
                f"the robustness gap {abs(self.gap):.4g} exceeds the distance {self.cwd[1]:.4g}, which is impossible "
                "for exact distances: the attack misses closer adversarial examples; use a stronger attack"
            )
        unbroken = int((~self.real_broken).sum()), int((~self.generated_broken).sum())
        if any(unbroken):
            found.append(
                f"the attack found no adversarial example for {unbroken[0]} real and {unbroken[1]} generated images; "
                "their distance counts as the largest possible within [0, 1]"
            )
        return tuple(found)

    def table(self) -> Table:
        (real, generated), (of_real, of_generated) = self.robustness, self.intervals
        rows = (
            ("average robustness, real", number(real), number_range(of_real)),
            ("average robustness, generated", number(generated), number_range(of_generated)),
            ("gap", f"{self.gap:+.4g}", number_range(self.gap_interval)),
            ("conditional Wasserstein distance", number(self.cwd[1]), ""),
            ("gap within the distance", "yes" if self.holds else "no", ""),
        )
        return Table(("", self.about.threat, "95 %"), rows)
