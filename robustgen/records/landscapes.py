"""Record of loss landscapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustgen.records.record import ClassifierRecord
from robustgen.records.tables import Table


@dataclass
class LandscapesRecord(ClassifierRecord):
    """Margins of images over the plane image + u * worst + v * random, not clipped to [0, 1].

    axis     (G,) values of u and v; 1 is a full perturbation, of norm at most eps
    heights  (N, G, G) float32: true logit minus largest other logit at [image, v, u]; negative is misclassified
    allowed  (N, G, G) bool: points within the threat model
    length   (N,) norm of the worst perturbation found
    """

    kind: ClassVar[str] = "landscapes"

    axis: np.ndarray
    heights: np.ndarray
    allowed: np.ndarray
    length: np.ndarray

    def _at(self, u: float) -> np.ndarray:
        return self.heights[:, int(np.abs(self.axis).argmin()), int(np.abs(self.axis - u).argmin())]

    @property
    def flat(self) -> np.ndarray:
        """(N,) fraction of adjacent points with exactly equal heights; about 0 unless gradients are masked."""
        along_u, along_v = np.diff(self.heights, axis=2) == 0, np.diff(self.heights, axis=1) == 0
        return (along_u.mean((1, 2)) + along_v.mean((1, 2))) / 2

    @property
    def lowest_allowed(self) -> np.ndarray:
        """(N,) smallest margin among the points of the plane within the threat model."""
        return np.where(self.allowed, self.heights, np.inf).min((1, 2))

    @property
    def flags(self) -> tuple[str, ...]:
        flags = []
        for i in range(len(self)):
            if not np.isfinite(self.heights[i]).all():
                flags.append(f"image {i}: NaN or infinite logits in its landscape")
            elif self.flat[i] > 0.1:
                flags.append(
                    f"image {i}: {100 * self.flat[i]:.0f} % of its landscape is exactly flat: no gradient there"
                )
            if self._at(1.0)[i] >= 0 > self.lowest_allowed[i]:
                flags.append(
                    f"image {i}: the plane has an adversarial example within the threat model that the attack missed"
                )
        return tuple(flags)

    def table(self) -> Table:
        heights = self._at(0.0), self._at(1.0), self.heights.min((1, 2))
        rows = [(str(i), str(self.labels[i]), *(f"{height[i]:.3g}" for height in heights)) for i in range(len(self))]
        return Table(("image", "label", "margin", "at the attack", "lowest"), tuple(rows))
