"""Record of robust discrimination between real and generated images (ARC)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from robustgen.records.record import PENDING, ROBUST, ProxyRecord
from robustgen.records.tables import Table
from robustgen.stats.bootstrap import percentile_interval, resampled_means
from robustgen.stats.exact import shows_gain, shows_other
from robustgen.stats.formatting import percent, percent_range
from robustgen.stats.intervals import PairedDifference, Proportion


@dataclass(frozen=True)
class DiscriminationAccuracy:
    """Balanced accuracy of a discriminator: the mean of its accuracies on real and on generated images."""

    real: Proportion
    generated: Proportion

    @property
    def value(self) -> float:
        return (self.real.value + self.generated.value) / 2

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval that combines the two Wilson intervals (MOVER method, Zou & Donner 2008)."""
        ends = []
        for side in (0, 1):
            squares = sum((share.value - share.interval[side]) ** 2 for share in (self.real, self.generated))
            ends.append(math.sqrt(squares) / 2)
        return max(0.0, self.value - ends[0]), min(1.0, self.value + ends[1])

    @property
    def differs_from_guessing(self) -> bool:
        """Whether generated images are taken for real more or less often than real ones are, by an exact test."""
        mistaken = self.generated.total - self.generated.count
        return shows_other(self.real, Proportion(mistaken, self.generated.total))


@dataclass(frozen=True)
class ARCRecord(ProxyRecord):
    """For each radius, which held-out images the robust discriminator still classifies correctly under attack.

    radii   (P,) ascending, in pixels of [0, 1]
    ids     (N,) identity of each image, a hash of its content
    real    (N,) bool: True for real images, False for generated ones
    stands  (N, P) int8: ROBUST, BROKEN, or PENDING where a radius was not reached or not needed
    score   (N, P) float32: logit "real" minus logit "generated" of the clean image; NaN where pending
    ended   bool: all radii are done, or the last one was not significantly better than chance
    """

    kind: ClassVar[str] = "arc"

    radii: np.ndarray
    ids: np.ndarray
    real: np.ndarray
    stands: np.ndarray
    score: np.ndarray
    ended: np.ndarray

    @property
    def finished(self) -> bool:
        return bool(self.ended)

    @property
    def reached(self) -> int:
        """Number of radii that were measured."""
        return int((self.stands[0] != PENDING).sum())

    def discrimination_accuracy(self, at: int) -> DiscriminationAccuracy:
        """Robust discrimination accuracy at one radius (position in `radii`)."""
        right = self.stands[:, at] == ROBUST
        return DiscriminationAccuracy(
            Proportion(int(right[self.real].sum()), int(self.real.sum())),
            Proportion(int(right[~self.real].sum()), int((~self.real).sum())),
        )

    def _over_half(self) -> np.ndarray:
        return np.array([max(0.0, self.discrimination_accuracy(at).value - 0.5) for at in range(self.reached)])

    @property
    def arc(self) -> float:
        """Area between the robust discrimination curve and 1/2, by the trapezoidal rule up to the last radius.

        A small ARC means that generated images are close to real ones.
        """
        return float(_trapezoids(self.radii[: self.reached], self._over_half()))

    @property
    def arc_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval over the held-out images of both kinds; it does not cover retraining."""
        rng, right = self.resampling(), (self.stands[:, : self.reached] == ROBUST).astype(np.float64)
        curve = sum(resampled_means(right[kind], rng) for kind in (self.real, ~self.real)) / 2
        return percentile_interval(_trapezoids(self.radii[: self.reached], np.maximum(curve - 0.5, 0)))

    @property
    def distance_bound(self) -> float:
        """Lower bound of the 1-Wasserstein distance between the held-out real and generated images.

            4 * sum_k (r_k - r_(k-1)) max_(j >= k) (p_j - 1/2)+

        W >= 4 * (area over 1/2 of the best discriminator of each radius) (arXiv:2104.09425, Theorem 2). An image that
        is classified robustly at r_j is so at every smaller radius, so the step function below the curve gives a bound;
        trapezoids would not. The bound holds for these images, provided that the attack missed no adversarial example.
        """
        best = np.maximum.accumulate(self._over_half()[::-1])[::-1]
        return float(4 * (np.diff(self.radii[: self.reached]) * best[1:]).sum())

    @property
    def summary(self) -> str:
        low, high = self.arc_interval
        return (
            f"ARC {self.arc:.4g} ({low:.4g} to {high:.4g}) in {self.about.threat}; "
            f"Wasserstein distance at least {self.distance_bound:.4g}"
        )

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        fewest = min(int(self.real.sum()), int((~self.real).sum()))
        if fewest < 100:
            found.append(f"only {fewest} held-out images of one kind: the curve is imprecise")
        last = self.discrimination_accuracy(self.reached - 1)
        sure = last.differs_from_guessing
        if self.finished and sure and last.value > 0.5:
            found.append(
                f"discrimination accuracy is still {percent(last.value)} % at the last radius, "
                f"{self.radii[self.reached - 1]:.4g}: the true ARC is larger; add larger radii"
            )
        if sure and last.value < 0.5:
            found.append(
                f"the discriminator at radius {self.radii[self.reached - 1]:.4g} is worse than chance "
                f"({percent(last.value)} %): a better discriminator may exist; add radii before it"
            )
        right = self.stands == ROBUST
        for at in range(1, self.reached):
            lowest = min(range(at), key=lambda k: self.discrimination_accuracy(k).value)
            rise = PairedDifference.of(right[:, at], right[:, lowest])
            if shows_gain(rise) and self.discrimination_accuracy(at).value > self.discrimination_accuracy(lowest).value:
                found.append(
                    f"discrimination accuracy is higher at radius {self.radii[at]:.4g} than at "
                    f"{self.radii[lowest]:.4g}: the discriminator at {self.radii[lowest]:.4g} is not fully trained and "
                    "the true ARC is larger; train longer"
                )
                break
        return tuple(found)

    def table(self) -> Table:
        rows = []
        for at in range(self.reached):
            accuracy = self.discrimination_accuracy(at)
            rows.append(
                (
                    f"{self.radii[at]:.4g}",
                    percent(accuracy.real.value),
                    percent(accuracy.generated.value),
                    percent(accuracy.value),
                    percent_range(accuracy.interval),
                )
            )
        return Table(("radius", "real %", "generated %", "discrimination accuracy %", "95 %"), tuple(rows))


def _trapezoids(x: np.ndarray, y: np.ndarray) -> Any:
    """Trapezoidal rule over the last axis (np.trapezoid exists from NumPy 2 on)."""
    return (np.diff(x) * (y[..., 1:] + y[..., :-1]) / 2).sum(-1)
