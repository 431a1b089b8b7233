"""Record of the sufficient conditions of arXiv:2103.01946."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustgen.records.closeness import Closeness, _percent
from robustgen.records.tables import Table
from robustgen.stats.exact import shows_gain, shows_more
from robustgen.stats.intervals import PairedDifference, Proportion


@dataclass(frozen=True)
class Conditions(Closeness):
    """The conditions under which training on generated images does as well as on real ones, measured.

    t test images, m generated images, r real images known in all.

    right              (t,) bool: the labeller, a classifier that is not robust, labels the test image correctly
    nearest_real       (m,) distance from a generated image to the nearest real one
    in_ball            (m,) bool: within eps of a real image, and no copy of one
    attacks            (m,) bool: within eps of a real image of another label than the labeller gives it, and no copy
    copies             how many generated images are real ones
    clashes            (r,) bool: another real image, of another label, lies within eps
    nearest_generated  (t,) distance from a test image to the nearest generated one
    nearest_alike      (t,) ... to the nearest one that the labeller gives the test image's label; infinite if none
    nearest_train      (t,) ... to the nearest training image
    reach              (t,) distance from a test image to its fifth nearest other test image
    """

    kind: ClassVar[str] = "conditions"

    right: np.ndarray
    nearest_real: np.ndarray
    in_ball: np.ndarray
    attacks: np.ndarray
    copies: np.ndarray
    clashes: np.ndarray
    nearest_generated: np.ndarray
    nearest_alike: np.ndarray
    nearest_train: np.ndarray
    reach: np.ndarray

    @property
    def labeller_accuracy(self) -> Proportion:
        """Condition 1: the labeller is right on real images."""
        return _share(self.right)

    @property
    def attack_rate(self) -> Proportion:
        """Condition 2: generated images that are attacks on the labeller, of all: about 0 is wanted."""
        return _share(self.attacks)

    @property
    def attack_rate_in_balls(self) -> Proportion:
        """... of those that lie within eps of a real image: how much the rate above could say at all."""
        return Proportion(int(self.attacks.sum()), int(self.in_ball.sum()))

    @property
    def coverage(self) -> Proportion:
        """Condition 3: test images with a generated one within their reach (arXiv:2002.09797): about 1 is wanted."""
        return _share(self.nearest_generated <= self.reach)

    @property
    def coverage_alike(self) -> Proportion:
        """... with one there that has their label."""
        return _share(self.nearest_alike <= self.reach)

    @property
    def coverage_by_training(self) -> Proportion:
        """... with a training image there: what the real images alone cover."""
        return _share(self.nearest_train <= self.reach)

    @property
    def within_eps(self) -> Proportion:
        """Test images with a generated one of their label within eps: robust training sees their very ball."""
        return _share(self.nearest_alike <= self.about.eps)

    @property
    def summary(self) -> str:
        return (
            f"labeller right {self.labeller_accuracy}, attacks among generated images {self.attack_rate}, "
            f"coverage {self.coverage}"
        )

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        if not self.in_ball.any():
            found.append(
                f"no generated image lies within {self.about.threat} of a known real one: that none is an attack says "
                "little"
            )
        elif shows_more(self.attack_rate, 0.01):
            found.append(
                f"{100 * self.attack_rate.value:.1f} % of the generated images carry a wrong label within "
                f"{self.about.threat} of a real image: robust training is told two things there"
            )
        if self.clashes.any():
            found.append(
                f"{int(self.clashes.sum())} of {len(self.clashes)} real images have one of another label within "
                f"{self.about.threat}: no classifier is robust there, and the conditions assume that there is none"
            )
        if int(self.copies):
            found.append(f"{int(self.copies)} generated images are copies of real ones")
        missed = PairedDifference.of(self.nearest_train <= self.reach, self.nearest_generated <= self.reach)
        if missed.value > 0.05 and shows_gain(missed):
            found.append(
                f"generated images cover {100 * missed.value:.1f} points fewer of the test images than the training "
                "images do: modes may be missing"
            )
        return tuple(found)

    def table(self) -> Table:
        shares = {
            "1. labeller right on test images": self.labeller_accuracy,
            "2. generated images within eps of a real one": _share(self.in_ball),
            "2. generated images that attack the labeller": self.attack_rate,
            "2. ... of those within eps of a real one": self.attack_rate_in_balls,
            "3. test images covered by generated ones": self.coverage,
            "3. ... of their label": self.coverage_alike,
            "3. ... by training images, to compare": self.coverage_by_training,
            "3. test images with one of their label within eps": self.within_eps,
            "assumed 0: real images within eps of another label": _share(self.clashes),
        }
        rows = (
            (name, f"{share.count} of {share.total}", f"{100 * share.value:.1f}", _percent(share.interval))
            if share.total
            else (name, "none", "", "")
            for name, share in shares.items()
        )
        return Table(("condition", "images", "%", "95 %"), tuple(rows))


def _share(rows: np.ndarray) -> Proportion:
    return Proportion(int(rows.sum()), len(rows))
