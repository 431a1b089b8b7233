"""Record of the Wasserstein transfer bound of a classifier's robustness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustgen.records.closeness import Closeness
from robustgen.records.tables import Table
from robustgen.records.transport import _range, _resampled, _short, _weighed
from robustgen.stats.bootstrap import middle


@dataclass(frozen=True)
class Transfer(Closeness):
    """How robust a classifier is on real and on generated images, and whether these differ by no more than they may.

        | Rob(real) - Rob(generated) | <= cwd(real, generated),   Rob = mean distance to the nearest wrong image

    for every classifier, where both have the same label shares (arXiv:2104.09425, Theorem 1); here both sides are
    weighed by the real ones.

    shares  (K,) of the real labels
    real_label, generated_label        (n,), (m,)
    real_distance, generated_distance  (n,), (m,) to the nearest misclassified image found; 0 where wrong when clean,
                                       NaN while it is pending
    real_broken, generated_broken      (n,), (m,) bool: one was found; else the distance is the box's largest
    cwd     (2,) what the conditional Wasserstein distance of these very images lies within
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
            _weighed(self.real_distance, self.real_label, self.shares),
            _weighed(self.generated_distance, self.generated_label, self.shares),
        )

    def _draws(self) -> tuple[np.ndarray, np.ndarray]:
        rng = self.resampling()
        real = _resampled(self.real_distance, self.real_label, self.shares, rng)
        return real, _resampled(self.generated_distance, self.generated_label, self.shares, rng)

    @property
    def intervals(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """95 % of both, images resampled within classes."""
        real, generated = self._draws()
        return middle(real), middle(generated)

    @property
    def gap(self) -> float:
        """Robustness on real images minus that on generated ones."""
        real, generated = self.robustness
        return real - generated

    @property
    def gap_interval(self) -> tuple[float, float]:
        real, generated = self._draws()
        return middle(real - generated)

    @property
    def holds(self) -> bool:
        """Whether the bound holds on these images. It must, where distances and transport are exact to a thousandth."""
        return abs(self.gap) <= float(self.cwd[1]) * 1.001 + 1e-6

    @property
    def summary(self) -> str:
        real, generated = self.robustness
        verdict = "at most" if self.holds else "MORE than"
        return (
            f"average robustness {real:.4g} on real, {generated:.4g} on generated images: they differ by "
            f"{abs(self.gap):.4g}, {verdict} the conditional Wasserstein distance {self.cwd[1]:.4g}"
        )

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        if not self.holds:
            found.append(
                f"the robustness gap {abs(self.gap):.4g} exceeds the distance {self.cwd[1]:.4g}: impossible for exact "
                "distances, so the attack misses nearer images on one side; use a stronger one"
            )
        unbroken = int((~self.real_broken).sum()), int((~self.generated_broken).sum())
        if any(unbroken):
            found.append(
                f"no misclassified image was found near {unbroken[0]} real and {unbroken[1]} generated images; they "
                "count with the largest distance within the box"
            )
        return tuple(found)

    def table(self) -> Table:
        (real, generated), (of_real, of_generated) = self.robustness, self.intervals
        rows = (
            ("average robustness, real", _short(real), _range(of_real)),
            ("average robustness, generated", _short(generated), _range(of_generated)),
            ("gap", f"{self.gap:+.4g}", _range(self.gap_interval)),
            ("conditional Wasserstein distance", _short(self.cwd[1]), ""),
            ("gap within the distance", "yes" if self.holds else "no", ""),
        )
        return Table(("", self.about.threat, "95 %"), rows)
