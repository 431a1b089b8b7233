"""Certified radii of test images: one row an image; accuracies and averages are methods. NumPy only."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from robustgen.stats.intervals import Proportion
from robustgen.storage.arrays import load_arrays, save_arrays

ABSTAINED = -1
"""`Certificates.predicted` of an image about which the smoothed classifier gives no certain answer."""


@dataclass
class Certificates:
    """How far each image may be moved, in l2, without changing what the smoothed classifier says.

    Accuracies are over all images: one that abstains, or is not certified yet, is not right.

    sigma      standard deviation of the noise, in pixels of [0, 1]
    selection  noisy copies of an image by which its class is selected
    samples    new noisy copies by which that class is judged
    alpha      how likely each certificate may be wrong
    seed       of the noise
    model      digest of the classifier's state
    pixels     numbers in an image: channels * height * width
    ids        (N,) identity of each image, from its content
    labels     (N,)
    predicted  (N,) certified class, or ABSTAINED
    votes      (N,) copies of the second kind that voted for the selected class
    spent      (N,) copies that went through the model, of both kinds; 0 before the image is certified
    lower      (N,) lower bound of the probability of the selected class; unspent copies count against it
    radius     (N,) l2 radius that is certified; 0 where it abstained
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
        """What was asked: everything but the rows."""
        return {name: getattr(self, name) for name in _ABOUT}

    @property
    def done(self) -> np.ndarray:
        """(N,) bool: the image has been certified, or has abstained."""
        return self.spent > 0

    @property
    def finished(self) -> bool:
        return bool(self.done.all())

    def certified(self, radius: float = 0.0) -> np.ndarray:
        """(N,) bool: the right class is certified within at least this l2 radius."""
        return (self.predicted == self.labels) & (self.radius >= radius)

    def accuracy(self, radius: float = 0.0) -> Proportion:
        """Certified accuracy at an l2 radius; at 0, images whose right class is certain."""
        return Proportion(int(self.certified(radius).sum()), len(self))

    def linf_accuracy(self, eps: float) -> Proportion:
        """Certified accuracy in linf: the ball of eps lies within that of eps * sqrt(pixels) in l2."""
        return self.accuracy(eps * math.sqrt(self.pixels))

    @property
    def abstained(self) -> Proportion:
        return Proportion(int((self.done & (self.predicted == ABSTAINED)).sum()), len(self))

    @property
    def average_radius(self) -> float:
        """ACR: mean over all images of the certified radius, 0 where the class is wrong (arXiv:2001.02378)."""
        return float(np.where(self.certified(), self.radius, 0.0).mean()) if len(self) else math.nan

    @property
    def linf_radius(self) -> np.ndarray:
        """(N,) implied radius in linf: that in l2 over sqrt(pixels)."""
        return self.radius / math.sqrt(self.pixels)

    @property
    def summary(self) -> str:
        """One line."""
        return f"ACR {self.average_radius:.3f}, certified at 0 {self.accuracy()}, abstained {self.abstained}"

    @property
    def radii(self) -> tuple[float, ...]:
        """Where tables look: multiples of sigma / 2, up to 3 sigma or to what so many samples can reach."""
        reach = NormalDist().inv_cdf(self.alpha ** (1 / self.samples))
        return tuple(k * self.sigma / 2 for k in range(7) if k / 2 <= reach)

    def save(self, path: Path) -> None:
        rows = {name: getattr(self, name) for name in _ROWS}
        save_arrays(path, {"about": np.array(json.dumps(self.about())), **rows})

    @classmethod
    def load(cls, path: Path) -> Certificates:
        arrays = load_arrays(path)
        try:
            about = json.loads(str(arrays["about"]))
            stored: dict[str, Any] = {name: about[name] for name in _ABOUT}
            return cls(**stored | {name: arrays[name] for name in _ROWS})
        except (KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a certificates file (no {error})") from None


_ABOUT = ("sigma", "selection", "samples", "alpha", "seed", "model", "pixels")
_ROWS = ("ids", "labels", "predicted", "votes", "spent", "lower", "radius")
