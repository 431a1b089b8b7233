"""How close generated images are to real ones: rows, numbers, tables and red flags, as they lie on disk. NumPy only.

Here what all such records share, whether the two are told apart under attack (`Discrimination`), and the sufficient
conditions of arXiv:2103.01946 (`Conditions`); in `distances` how far they must be moved onto each other.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from robustgen.records import PairedDifference, Share, Table, load_arrays, save_arrays
from robustgen.records.findings import OWED, STANDS, About
from robustgen.runs import differences

RESAMPLES = 1000
"""Of a bootstrap: its 95 % intervals move by a few hundredths of their length."""


@dataclass(frozen=True)
class Closeness(ABC):
    """What every analysis of generated images leaves, and how it is kept: JSON about it, and arrays.

    about   `made_for` holds digests of the images and networks that were looked at
    """

    kind: ClassVar[str]

    about: About

    @property
    @abstractmethod
    def flags(self) -> tuple[str, ...]:
        """What makes the numbers doubtful, or how they are meant, a sentence each."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """One sentence."""

    @abstractmethod
    def table(self) -> Table:
        """The numbers in short."""

    def save(self, path: Path) -> None:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        about = asdict(columns.pop("about"))
        save_arrays(path, {"about": np.array(json.dumps({"kind": self.kind, **about})), **columns})

    @classmethod
    def load(cls, path: Path) -> Self:
        """A record of this kind.

        Raises:
            ValueError: missing, damaged, or of another kind.
        """
        arrays = load_arrays(path)
        try:
            about: dict[str, Any] = json.loads(str(arrays.pop("about")))
            kind = about.pop("kind")
            if kind != cls.kind:
                raise ValueError(f"{path} holds findings of {kind}, not of {cls.kind}; choose another place")
            return cls(about=About(**about), **arrays)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} does not hold findings of {cls.kind} ({error})") from None

    @classmethod
    def taken_up(cls, path: Path | None, wanted: About) -> Self | None:
        """What lies there already, if anything does.

        Raises:
            ValueError: it is of something else; says of what.
        """
        if path is None or not path.exists():
            return None
        found = cls.load(path)
        if changes := differences(asdict(found.about), asdict(wanted)):
            raise ValueError(
                f"{path} holds another analysis: {'; '.join(changes)}; choose another place with --into, or remove it"
            )
        return found

    def resampling(self) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self.about.seed % 2**64))


def resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, ...) means over the first axis of resampled rows."""
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES) / len(values)
    return weights @ values


def middle(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class ToldApart:
    """How many real and how many generated images are recognised; both kinds count alike, however many there are."""

    real: Share
    generated: Share

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


@dataclass(frozen=True)
class Discrimination(Closeness):
    """Which held-out images a discriminator tells rightly whatever is done to them within a radius; one a radius.

    radii   (P,) ascending, in pixels of [0, 1]
    ids     (N,) identity of each image, from its content
    real    (N,) bool: real, or generated
    stands  (N, P) int8: STANDS, FELL, or OWED where a radius was not reached or not needed
    score   (N, P) float32: logit of real minus that of generated of the clean image; NaN where owed
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
        return int((self.stands[0] != OWED).sum())

    def told_apart(self, at: int) -> ToldApart:
        """At one radius."""
        right = self.stands[:, at] == STANDS
        return ToldApart(
            Share(int(right[self.real].sum()), int(self.real.sum())),
            Share(int(right[~self.real].sum()), int((~self.real).sum())),
        )

    def _over_half(self) -> np.ndarray:
        return np.array([max(0.0, self.told_apart(at).value - 0.5) for at in range(self.reached)])

    @property
    def arc(self) -> float:
        """Area under the curve of robust discrimination accuracy, over 1/2, by trapezoids: small is close.

        Nothing is counted beyond the last radius.
        """
        return float(_trapezoids(self.radii[: self.reached], self._over_half()))

    @property
    def arc_interval(self) -> tuple[float, float]:
        """95 %, by resampling the held-out images of each kind; says nothing of other trainings."""
        rng, right = self.resampling(), (self.stands[:, : self.reached] == STANDS).astype(np.float64)
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
        last = self.told_apart(self.reached - 1)
        if self.finished and last.interval[0] > 0.5:
            found.append(
                f"still told apart at the last radius, {self.radii[self.reached - 1]:.4g} ({100 * last.value:.1f} %): "
                "ARC is more than this; add larger radii"
            )
        if last.interval[1] < 0.5:
            found.append(
                f"the discriminator at radius {self.radii[self.reached - 1]:.4g} does worse than guessing "
                f"({100 * last.value:.1f} %): a better one may tell more apart there; add radii before it"
            )
        right = self.stands == STANDS
        for at in range(1, self.reached):
            lowest = min(range(at), key=lambda k: self.told_apart(k).value)
            rise = PairedDifference.of(right[:, at], right[:, lowest])
            if rise.interval[0] > 0 and self.told_apart(at).value > self.told_apart(lowest).value:
                found.append(
                    f"told apart better at radius {self.radii[at]:.4g} than at {self.radii[lowest]:.4g}: the "
                    "discriminator there has not learnt enough, ARC is more than this; train longer"
                )
                break
        return tuple(found)

    def table(self) -> Table:
        rows = []
        for at in range(self.reached):
            told = self.told_apart(at)
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
    def labeller_accuracy(self) -> Share:
        """Condition 1: the labeller is right on real images."""
        return _share(self.right)

    @property
    def attack_rate(self) -> Share:
        """Condition 2: generated images that are attacks on the labeller, of all: about 0 is wanted."""
        return _share(self.attacks)

    @property
    def attack_rate_in_balls(self) -> Share:
        """... of those that lie within eps of a real image: how much the rate above could say at all."""
        return Share(int(self.attacks.sum()), int(self.in_ball.sum()))

    @property
    def coverage(self) -> Share:
        """Condition 3: test images with a generated one within their reach (arXiv:2002.09797): about 1 is wanted."""
        return _share(self.nearest_generated <= self.reach)

    @property
    def coverage_alike(self) -> Share:
        """... with one there that has their label."""
        return _share(self.nearest_alike <= self.reach)

    @property
    def coverage_by_training(self) -> Share:
        """... with a training image there: what the real images alone cover."""
        return _share(self.nearest_train <= self.reach)

    @property
    def within_eps(self) -> Share:
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
        elif self.attack_rate.interval[0] > 0.01:
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
        missed = self.coverage_by_training.value - self.coverage.value
        if missed > 0.05:
            found.append(
                f"generated images cover {100 * missed:.1f} points fewer of the test images than the training images "
                "do: modes may be missing"
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


def _share(rows: np.ndarray) -> Share:
    return Share(int(rows.sum()), len(rows))


def _percent(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
