"""Certified radii of test images, one row per image; accuracies and averages are methods. NumPy only."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from robustgen.stats.intervals import Proportion
from robustgen.storage.arrays import check_array, load_arrays, read_about, save_arrays
from robustgen.units import show_value

ABSTAINED = -1
"""`Certificates.predicted` of an image on which the smoothed classifier abstains."""


@dataclass
class Certificates:
    """Certified l2 radii of a smoothed classifier's predictions.

    Accuracies are over all images: an image that abstains, or is not certified yet, counts as incorrect.

    sigma      standard deviation of the noise, in pixels of [0, 1]
    selection  noise samples per image that select its class
    samples    further noise samples per image that bound the probability of that class
    alpha      failure probability of each certificate
    seed       seed of the noise
    model      digest of the classifier's state
    pixels     values per image: channels * height * width
    ids        (N,) identity of each image, a hash of its content
    labels     (N,)
    predicted  (N,) certified class, or ABSTAINED
    votes      (N,) noise samples (of `samples`) predicted as the selected class
    spent      (N,) noise samples that went through the model in total; 0 before the image is certified
    lower      (N,) lower bound of the probability of the selected class; samples not spent count against it
    radius     (N,) certified l2 radius; 0 where the classifier abstains
    """

    sigma: float
    selection: int
    samples: int
    alpha: float
    seed: int
    model: str
    pixels: int
    ids: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    votes: np.ndarray
    spent: np.ndarray
    lower: np.ndarray
    radius: np.ndarray

    @classmethod
    def blank(cls, ids: np.ndarray, labels: np.ndarray, pixels: int, **about: Any) -> Certificates:
        """The state before the first image; `about` is sigma, selection, samples, alpha, seed and model."""
        count = len(labels)
        return cls(
            **about,
            pixels=pixels,
            ids=np.asarray(ids, dtype=np.int64),
            labels=np.asarray(labels, dtype=np.int64),
            predicted=np.full(count, ABSTAINED, dtype=np.int64),
            votes=np.zeros(count, dtype=np.int64),
            spent=np.zeros(count, dtype=np.int64),
            lower=np.zeros(count),
            radius=np.zeros(count),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def about(self) -> dict[str, Any]:
        """The settings: all fields but the rows."""
        return {name: getattr(self, name) for name in _ABOUT}

    @property
    def done(self) -> np.ndarray:
        """(N,) bool: certification of the image is finished, with a radius or an abstention."""
        return self.spent > 0

    @property
    def finished(self) -> bool:
        return bool(self.done.all())

    def certified(self, radius: float = 0.0) -> np.ndarray:
        """(N,) bool: the correct class is certified with at least this l2 radius."""
        return (self.predicted == self.labels) & (self.radius >= radius)

    def accuracy(self, radius: float = 0.0) -> Proportion:
        """Certified accuracy at an l2 radius; at 0 the accuracy of the smoothed classifier, abstentions incorrect."""
        return Proportion(int(self.certified(radius).sum()), len(self))

    def linf_accuracy(self, eps: float) -> Proportion:
        """Certified accuracy in linf: the linf ball of radius eps is inside the l2 ball of eps * sqrt(pixels)."""
        return self.accuracy(eps * math.sqrt(self.pixels))

    @property
    def abstained(self) -> Proportion:
        return Proportion(int((self.done & (self.predicted == ABSTAINED)).sum()), len(self))

    @property
    def average_radius(self) -> float:
        """ACR: mean certified radius over all images, 0 where the prediction is wrong (arXiv:2001.02378)."""
        return float(np.where(self.certified(), self.radius, 0.0).mean()) if len(self) else math.nan

    @property
    def linf_radius(self) -> np.ndarray:
        """(N,) implied certified radius in linf: l2 radius / sqrt(pixels)."""
        return self.radius / math.sqrt(self.pixels)

    @property
    def summary(self) -> str:
        """One line with ACR, certified accuracy at radius 0 and abstentions."""
        return f"ACR {self.average_radius:.3f}, certified at 0 {self.accuracy()}, abstained {self.abstained}"

    @property
    def radii(self) -> tuple[float, ...]:
        """Radii of tables: multiples of sigma / 2 up to 3 sigma, as far as `samples` noise samples can certify."""
        reach = NormalDist().inv_cdf(self.alpha ** (1 / self.samples))
        return tuple(k * self.sigma / 2 for k in range(7) if k / 2 <= reach)

    def save(self, path: Path) -> None:
        rows = {name: getattr(self, name) for name in _ROWS}
        save_arrays(path, {"about": np.array(json.dumps(self.about())), **rows})

    @classmethod
    def load(cls, path: Path) -> Certificates:
        arrays = load_arrays(path)
        try:
            about = read_about(arrays)
            stored: dict[str, Any] = {name: about[name] for name in _ABOUT}
            found = cls(**stored | {name: arrays[name] for name in _ROWS})
            found._check()
        except KeyError as error:
            raise ValueError(f"expected certificates in {path}, but the file has no {error}; certify again") from None
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"expected certificates in {path}, but cannot read them ({error}); certify again"
            ) from None
        return found

    def _check(self) -> None:
        """Raise ValueError where settings or columns are not what a certification writes."""
        for name, least in (("sigma", 0), ("selection", 1), ("samples", 1), ("alpha", 0), ("pixels", 1)):
            value = getattr(self, name)
            if (
                type(value) not in ((int, float) if name in ("sigma", "alpha") else (int,))
                or not least <= value < 2**53
            ):
                raise ValueError(f"{name} must be a number of at least {least}, got {show_value(value)}")
        if (
            not 0 < self.alpha < 1
            or not self.sigma > 0
            or type(self.seed) is not int
            or not isinstance(self.model, str)
        ):
            raise ValueError("sigma must be positive, alpha lie between 0 and 1, seed be an integer, model text")
        for name in _ROWS:
            kinds = "f" if name in ("lower", "radius") else "iu"
            check_array(name, getattr(self, name), kinds, self.labels.shape[:1] or (1,))


_ABOUT = ("sigma", "selection", "samples", "alpha", "seed", "model", "pixels")
_ROWS = ("ids", "labels", "predicted", "votes", "spent", "lower", "radius")
