"""Record of the sufficient conditions for robustness from generated images (arXiv:2103.01946)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustgen.records.record import ProxyRecord
from robustgen.records.tables import Table
from robustgen.stats.exact import shows_gain, shows_more
from robustgen.stats.formatting import percent, percent_range
from robustgen.stats.intervals import PairedDifference, Proportion


@dataclass(frozen=True)
class ConditionsRecord(ProxyRecord):
    """Measurements of the conditions under which training on generated images is as good as training on real ones.

    t test images, m generated images, r real images (training and test).

    right              (t,) bool: the labeler (a standard classifier) classifies the test image correctly
    nearest_real       (m,) distance from a generated image to the nearest real image
    in_ball            (m,) bool: within eps of a real image, but not a copy of one
    attacks            (m,) bool: in_ball, and the labeler assigns a different label than that real image has
    copies             number of generated images that equal a real image
    clashes            (r,) bool: another real image with a different label is within eps
    nearest_generated  (t,) distance from a test image to the nearest generated image
    nearest_alike      (t,) distance to the nearest generated image with the test image's label; inf if there is none
    nearest_train      (t,) distance to the nearest training image
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
    def labeler_accuracy(self) -> Proportion:
        """Condition 1: accuracy of the labeler on the test images."""
        return _share(self.right)

    @property
    def attack_rate(self) -> Proportion:
        """Condition 2: fraction of generated images that are adversarial examples of the labeler; should be about 0."""
        return _share(self.attacks)

    @property
    def attack_rate_in_balls(self) -> Proportion:
        """Attack rate among generated images within eps of a real image. With few such images it is inconclusive."""
        return Proportion(int(self.attacks.sum()), int(self.in_ball.sum()))

    @property
    def coverage(self) -> Proportion:
        """Condition 3: fraction of test images with a generated image within their reach; should be about 1.

        Source: arXiv:2002.09797.
        """
        return _share(self.nearest_generated <= self.reach)

    @property
    def coverage_alike(self) -> Proportion:
        """Coverage by generated images with the label of the test image."""
        return _share(self.nearest_alike <= self.reach)

    @property
    def coverage_by_training(self) -> Proportion:
        """Coverage of the test images by training images, for comparison."""
        return _share(self.nearest_train <= self.reach)

    @property
    def within_eps(self) -> Proportion:
        """Test images with a generated image of their label within eps: training covers their eps-ball."""
        return _share(self.nearest_alike <= self.about.eps)

    @property
    def summary(self) -> str:
        return (
            f"labeler accuracy {self.labeler_accuracy}, attack rate of generated images {self.attack_rate}, "
            f"coverage {self.coverage}"
        )

    @property
    def flags(self) -> tuple[str, ...]:
        found = []
        if not self.in_ball.any():
            found.append(
                f"no generated image is within {self.about.threat} of a known real image, so an attack rate of 0 is "
                "inconclusive"
            )
        elif shows_more(self.attack_rate, 0.01):
            found.append(
                f"{percent(self.attack_rate.value)} % of the generated images are within {self.about.threat} of a real "
                "image but have a different label: they contradict adversarial training on that image"
            )
        if self.clashes.any():
            found.append(
                f"{int(self.clashes.sum())} of {len(self.clashes)} real images have a real image of a different label "
                f"within {self.about.threat}: no classifier is robust on both, which violates an assumption of the "
                "conditions"
            )
        if int(self.copies):
            found.append(f"{int(self.copies)} generated images are copies of real ones")
        missed = PairedDifference.of(self.nearest_train <= self.reach, self.nearest_generated <= self.reach)
        if missed.value > 0.05 and shows_gain(missed):
            found.append(
                f"coverage of the test images by generated images is {percent(missed.value)} points lower than by "
                "training images: modes may be missing"
            )
        return tuple(found)

    def table(self) -> Table:
        shares = {
            "1. labeler accuracy on test images": self.labeler_accuracy,
            "2. generated images within eps of a real image": _share(self.in_ball),
            "2. attack rate: generated images that attack the labeler": self.attack_rate,
            "2. attack rate within eps of a real image": self.attack_rate_in_balls,
            "3. coverage of test images by generated images": self.coverage,
            "3. coverage by generated images of the same label": self.coverage_alike,
            "3. coverage by training images, for comparison": self.coverage_by_training,
            "3. test images with a generated image of their label within eps": self.within_eps,
            "assumed 0: real images within eps of one with a different label": _share(self.clashes),
        }
        rows = (
            (name, f"{share.count} of {share.total}", percent(share.value), percent_range(share.interval))
            if share.total
            else (name, "none", "", "")
            for name, share in shares.items()
        )
        return Table(("condition", "images", "%", "95 %"), tuple(rows))


def _share(rows: np.ndarray) -> Proportion:
    return Proportion(int(rows.sum()), len(rows))
