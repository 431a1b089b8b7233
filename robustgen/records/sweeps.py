"""Records of sweeps over the radius and over the number of steps of an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustgen.records.record import PENDING, ROBUST, ClassifierRecord
from robustgen.records.tables import Table
from robustgen.stats.exact import shows_gain, shows_more
from robustgen.stats.formatting import percent, percent_range, points
from robustgen.stats.intervals import PairedDifference, Proportion
from robustgen.units import show_number


@dataclass
class SweepRecord(ClassifierRecord):
    """Which images remain robust at each value of one setting of the attack; every value is attacked from scratch.

    values  (P,) values of the setting, ascending
    right   (N,) bool: the clean image is classified correctly
    stands  (N, P) int8: ROBUST, BROKEN or PENDING; BROKEN everywhere if the clean image is misclassified
    margin  (N, P) float32: largest other logit minus true logit at the attack's result; NaN where not attacked
    """

    axis: ClassVar[str]

    values: np.ndarray
    right: np.ndarray
    stands: np.ndarray
    margin: np.ndarray

    @property
    def finished(self) -> bool:
        return not (self.stands == PENDING).any()

    def accuracy(self, at: int) -> Proportion:
        """Robust accuracy at one value (position in `values`)."""
        return Proportion(int((self.stands[:, at] == ROBUST).sum()), len(self))

    def change(self, before: int, after: int) -> PairedDifference:
        """Robust accuracy at value `after` minus that at value `before`, paired on the same images."""
        return PairedDifference.of(self.stands[:, after] == ROBUST, self.stands[:, before] == ROBUST)

    def show(self, at: int) -> str:
        """A value as text, fractions as "8/255"."""
        text = show_number(float(self.values[at]))
        return text if "/" in text else f"{self.values[at]:.4g}"

    def rise(self) -> tuple[int, int] | None:
        """(before, after) of the largest significant rise of robust accuracy, or None.

        An adversarial example for one value is one for every larger value, so for a perfect attack robust accuracy
        never rises.
        """
        counts = (self.stands == ROBUST).sum(0)
        pairs = [(int(np.argmin(counts[:after])), after) for after in range(1, len(counts))]
        sure = [pair for pair in pairs if shows_gain(self.change(*pair))]
        return max(sure, key=lambda pair: counts[pair[1]] - counts[pair[0]], default=None)

    def _rise_flag(self) -> list[str]:
        found = self.rise()
        if found is None:
            return []
        before, after = found
        return [
            f"robust accuracy rises by {percent(self.change(before, after).value)} points from {self.axis} "
            f"{self.show(before)} to {self.show(after)}: the attack misses adversarial examples; gradients are masked"
        ]


@dataclass
class RadiusSweepRecord(SweepRecord):
    """A sweep over the threat model's radius.

    grey  radius within which every image can be turned into the same gray image; from this radius on at most the images
          of one class, the prediction for gray, can remain robust
    """

    kind: ClassVar[str] = "radius-sweep"
    axis: ClassVar[str] = "radius"

    grey: np.ndarray

    @property
    def flags(self) -> tuple[str, ...]:
        last = self.accuracy(-1)
        flags = self._rise_flag()
        if self.values[-1] >= self.grey and shows_more(last, 0.01):
            flags.append(
                f"robust accuracy is still {percent(last.value)} % at radius {self.show(-1)}, where every image can be "
                "turned gray: gradients are masked"
            )
        return tuple(flags)

    def table(self) -> Table:
        eps = self.about.eps
        rows = []
        for at, radius in enumerate(self.values):
            share = self.accuracy(at)
            multiple = f"{radius / eps:.4g}" if eps else ""
            rows.append((self.show(at), multiple, percent(share.value), percent_range(share.interval)))
        return Table(("radius", "radius / eps", "robust %", "95 %"), tuple(rows))


@dataclass
class StepSweepRecord(SweepRecord):
    """A sweep over the number of attack steps, at the radius of the threat model."""

    kind: ClassVar[str] = "step-sweep"
    axis: ClassVar[str] = "steps"

    @property
    def flags(self) -> tuple[str, ...]:
        flags = self._rise_flag()
        if len(self.values) > 1:
            fall = self.change(-1, -2)
            # Half a point: the difference between the papers' attack suites is smaller (arXiv:2103.01946, Table 4).
            if shows_gain(fall) and fall.value >= 0.005:
                flags.append(
                    f"the attack has not converged: robust accuracy still falls by {percent(fall.value)} points from "
                    f"{self.show(-2)} to {self.show(-1)} steps; use more steps"
                )
        return tuple(flags)

    def table(self) -> Table:
        rows = []
        for at in range(len(self.values)):
            share = self.accuracy(at)
            change = points(self.change(at - 1, at).value) if at else ""
            rows.append((self.show(at), percent(share.value), percent_range(share.interval), change))
        return Table(("steps", "robust %", "95 %", "change"), tuple(rows))
