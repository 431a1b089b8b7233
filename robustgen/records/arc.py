"""Record of the adversarial robust cross-entropy analysis (ARC)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from robustgen.records.closeness import Closeness, _percent
from robustgen.records.record import PENDING, ROBUST
from robustgen.records.tables import Table
from robustgen.stats.bootstrap import middle, resampled_means
from robustgen.stats.exact import shows_gain, shows_other
from robustgen.stats.intervals import PairedDifference, Proportion


@dataclass(frozen=True)
class DiscriminationAccuracy:
    """How many real and how many generated images are recognised; both kinds count alike, however many there are."""

    real: Proportion
    generated: Proportion

    @property
    def value(self) -> float:
        return (self.real.value + self.generated.value) / 2

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: the two Wilson intervals combined by their squares (Zou & Donner 2008)."""
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
class ARCResult(Closeness):
    """Which held-out images a discriminator tells rightly whatever is done to them within a radius; one a radius.

    radii   (P,) ascending, in pixels of [0, 1]
    ids     (N,) identity of each image, from its content
    real    (N,) bool: real, or generated
    stands  (N, P) int8: ROBUST, BROKEN, or PENDING where a radius was not reached or not needed
    score   (N, P) float32: logit of real minus that of generated of the clean image; NaN where pending
    ended   bool: the radii are done, or one was reached at which chance explains what is told apart
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
        """How many radii were measured."""
        return int((self.stands[0] != PENDING).sum())

    def discrimination_accuracy(self, at: int) -> DiscriminationAccuracy:
        """At one radius."""
        right = self.stands[:, at] == ROBUST
        return DiscriminationAccuracy(
            Proportion(int(right[self.real].sum()), int(self.real.sum())),
            Proportion(int(right[~self.real].sum()), int((~self.real).sum())),
        )

    def _over_half(self) -> np.ndarray:
        return np.array([max(0.0, self.discrimination_accuracy(at).value - 0.5) for at in range(self.reached)])

    @property
    def arc(self) -> float:
        """Area under the curve of robust discrimination accuracy, over 1/2, by trapezoids: small is close.

        Nothing is counted beyond the last radius.
        """
        return float(_trapezoids(self.radii[: self.reached], self._over_half()))

    @property
    def arc_interval(self) -> tuple[float, float]:
        """95 %, by resampling the held-out images of each kind; says nothing of other trainings."""
        rng, right = self.resampling(), (self.stands[:, : self.reached] == ROBUST).astype(np.float64)
        curve = sum(resampled_means(right[kind], rng) for kind in (self.real, ~self.real)) / 2
        return middle(_trapezoids(self.radii[: self.reached], np.maximum(curve - 0.5, 0)))

    @property
    def distance_bound(self) -> float:
        """At least so far apart, in 1-Wasserstein distance, are the held-out images of both kinds.

            4 * sum_k (r_k - r_(k-1)) max_(j >= k) (p_j - 1/2)+

        W >= 4 * (area over 1/2 of the best discriminator of each radius) (arXiv:2104.09425, Theorem 2). What a
        discriminator tells rightly within r_j it also does within less, so steps under the curve, not trapezoids,
        make a bound. It is proven for these very images as far as the attack found all there is.
        """
        best = np.maximum.accumulate(self._over_half()[::-1])[::-1]
        return float(4 * (np.diff(self.radii[: self.reached]) * best[1:]).sum())

    @property
    def summary(self) -> str:
        low, high = self.arc_interval
        return (
            f"ARC {self.arc:.4g} ({low:.4g} to {high:.4g}) in {self.about.threat}; "
            f"at least {self.distance_bound:.4g} apart"
        )

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        fewest = min(int(self.real.sum()), int((~self.real).sum()))
        if fewest < 100:
            found.append(f"only {fewest} held-out images of one kind: the curve is rough")
        last = self.discrimination_accuracy(self.reached - 1)
        sure = last.differs_from_guessing
        if self.finished and sure and last.value > 0.5:
            found.append(
                f"still told apart at the last radius, {self.radii[self.reached - 1]:.4g} ({100 * last.value:.1f} %): "
                "ARC is more than this; add larger radii"
            )
        if sure and last.value < 0.5:
            found.append(
                f"the discriminator at radius {self.radii[self.reached - 1]:.4g} does worse than guessing "
                f"({100 * last.value:.1f} %): a better one may tell more apart there; add radii before it"
            )
        right = self.stands == ROBUST
        for at in range(1, self.reached):
            lowest = min(range(at), key=lambda k: self.discrimination_accuracy(k).value)
            rise = PairedDifference.of(right[:, at], right[:, lowest])
            if shows_gain(rise) and self.discrimination_accuracy(at).value > self.discrimination_accuracy(lowest).value:
                found.append(
                    f"told apart better at radius {self.radii[at]:.4g} than at {self.radii[lowest]:.4g}: the "
                    "discriminator there has not learnt enough, ARC is more than this; train longer"
                )
                break
        return tuple(found)

    def table(self) -> Table:
        rows = []
        for at in range(self.reached):
            told = self.discrimination_accuracy(at)
            rows.append(
                (
                    f"{self.radii[at]:.4g}",
                    f"{100 * told.real.value:.1f}",
                    f"{100 * told.generated.value:.1f}",
                    f"{100 * told.value:.1f}",
                    _percent(told.interval),
                )
            )
        return Table(("radius", "real %", "generated %", "told apart %", "95 %"), tuple(rows))


def _trapezoids(x: np.ndarray, y: np.ndarray) -> Any:
    """Over the last axis; np.trapezoid is NumPy 2's name."""
    return (np.diff(x) * (y[..., 1:] + y[..., :-1]) / 2).sum(-1)
