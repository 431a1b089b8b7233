"""Records of sweeps over the radius and over the steps of an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustgen.records.record import PENDING, ROBUST, Findings, _percent, _points
from robustgen.records.tables import Table
from robustgen.stats.exact import shows_gain, shows_more
from robustgen.stats.intervals import PairedDifference, Proportion
from robustgen.units import show_number


@dataclass
class Sweep(Findings):
    """Which images stand as one quantity of the attack grows; each value is attacked from scratch.

    values  (P,) what was varied, ascending
    right   (N,) bool: the clean image is classified correctly
    stands  (N, P) int8: ROBUST, BROKEN or PENDING; what is wrong when clean fell everywhere
    margin  (N, P) float32: best wrong logit minus the true one at what the attack found; NaN where none was tried
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
        """Images that stand at one value."""
        return Proportion(int((self.stands[:, at] == ROBUST).sum()), len(self))

    def change(self, before: int, after: int) -> PairedDifference:
        """How many more images stand at one value than at another, paired."""
        return PairedDifference.of(self.stands[:, after] == ROBUST, self.stands[:, before] == ROBUST)

    def show(self, at: int) -> str:
        """A value as people write it."""
        text = show_number(float(self.values[at]))
        return text if "/" in text else f"{self.values[at]:.4g}"

    def rise(self) -> tuple[int, int] | None:
        """Where accuracy rises most over an earlier value, if more than chance among these images explains.

        What breaks an image at one value breaks it at every larger one, so a perfect attack never lets it rise.
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
            f"robust accuracy rises by {_points(self.change(before, after).value)} from {self.axis} "
            f"{self.show(before)} to {self.show(after)}: the attack misses what is there; masked gradients"
        ]


@dataclass
class RadiusSweep(Sweep):
    """A sweep over the threat model's radius.

    grey  the radius within which every image can be made the same grey: from there on nothing may stand, but images
          of the one class that grey is taken for
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
                f"{100 * last.value:.1f} % still stand at radius {self.show(-1)}, where every image can be made grey: "
                "gradients are masked"
            )
        return tuple(flags)

    def table(self) -> Table:
        eps = self.about.eps
        rows = []
        for at, radius in enumerate(self.values):
            share = self.accuracy(at)
            multiple = f"{radius / eps:.4g}" if eps else ""
            rows.append((self.show(at), multiple, f"{100 * share.value:.1f}", _percent(share)))
        return Table(("radius", "of eps", "robust %", "95 %"), tuple(rows))


@dataclass
class StepSweep(Sweep):
    """A sweep over the attack's steps, at the threat model's radius."""

    kind: ClassVar[str] = "step-sweep"
    axis: ClassVar[str] = "steps"

    @property
    def flags(self) -> tuple[str, ...]:
        flags = self._rise_flag()
        if len(self.values) > 1:
            fall = self.change(-1, -2)
            # Half a point: the papers' cascades differ by less among themselves (arXiv:2103.01946, Table 4).
            if shows_gain(fall) and fall.value >= 0.005:
                flags.append(
                    f"not converged: from {self.show(-2)} to {self.show(-1)} steps robust accuracy still falls by "
                    f"{_points(fall.value)}; more steps would find more"
                )
        return tuple(flags)

    def table(self) -> Table:
        rows = []
        for at in range(len(self.values)):
            share = self.accuracy(at)
            change = f"{100 * self.change(at - 1, at).value:+.1f}" if at else ""
            rows.append((self.show(at), f"{100 * share.value:.1f}", _percent(share), change))
        return Table(("steps", "robust %", "95 %", "change"), tuple(rows))
