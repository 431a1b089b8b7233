"""What is known of generated images beside real ones: estimates with their counts, and rows. NumPy only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.records.tables import Table
from robustgen.stats.intervals import Proportion
from robustgen.storage.arrays import load_arrays, save_arrays

TRAIN, TEST, SELF = 0, 1, 2
"""`Quality.source`: the nearest neighbour is a training image, a test image, another generated image."""

SHOWN = 16
"""Samples that are kept beside their neighbours, for the report."""


def neighbors_file(path: Path) -> Path:
    """Where a few samples are kept beside their nearest images, for a quality at `path`: `.npz` of `samples`,
    `nearest` and `nearest_train`, each uint8 (n, H, W, C), and `source` (n,) of the nearest."""
    return path.with_name(f"{path.stem}.neighbours.npz")


@dataclass(frozen=True)
class Estimate:
    """A number, and of how many images it is: most of these depend on that.

    generated  images judged
    real       training images they are judged by; 0 where none are needed
    spread     standard deviation over splits or subsets of these images; none where there are no splits
    """

    value: float
    generated: int
    real: int
    spread: float | None = None

    def __str__(self) -> str:
        text = f"{self.value:.4g}"
        return text if self.spread is None else f"{text} +- {self.spread:.2g}"


@dataclass(frozen=True)
class About:
    """What a quality is of.

    dataset     of the real images
    classes     their names
    generated   images measured, of `train` and `test` real ones
    features    what Frechet and kernel distances, Inception Score, precision and recall look at, with a digest
    neighbours  what the nearest neighbours look at, with a digest
    seed        of the choices of images
    """

    dataset: str
    classes: tuple[str, ...]
    generated: int
    train: int
    test: int
    features: str
    neighbours: str
    seed: int


@dataclass(frozen=True)
class Quality:
    """How good generated images are, in numbers and in rows of which every share is a summary.

    K classes, n samples for nearest neighbours, m generated images and as many real ones for precision and recall;
    where there are fewer real ones, they come again in every round.

    estimates        by name: "fid", or "classifier-fid" where the features are not those of FID; "...-kid" ...
    of_test          the same of the real test images: what a perfect generator would reach with as few
    class_fid        (K,) the Frechet distance within each class; NaN where a class has fewer than two
    class_counts     (K, 2) generated and real images behind it
    confusion        (K, K) generated images by the class asked for and the class seen; a column of zeros is never seen.
                     Where it is not known what was asked, all stand on the diagonal; (0, 0) where nobody looked
    asked            whether it is known what was asked
    rounds           draws of samples, training and test images, of equal size; neighbours are looked for within one
    sample           (n,) position of each sample among the generated images, round after round
    source           (n,) int8: where its nearest neighbour is, among as many training, test and generated images
    index            (n,) position of that neighbour among all images of its kind
    distance         (n,) Euclidean, after PCA
    train_index      (n,) the nearest of all training images
    train_distance   (n,)
    train_spacing    (n,) from that training image to the nearest other one
    test_distance    (n,) from the drawn test images to the nearest of all training images
    inside           (m,) bool: within reach of a real image (its third neighbour): precision
    density          (m,) int32: in how many real images' reach (fifth neighbour) it is
    recalled         (m,) bool: the real image is within reach of a generated one (third neighbour): recall
    covered          (m,) bool: a generated image is in its reach (fifth neighbour): coverage
    copies           (2,) generated images that equal a training image, a test image, byte for byte
    """

    about: About
    estimates: Mapping[str, Estimate]
    of_test: Mapping[str, Estimate]
    class_fid: np.ndarray
    class_counts: np.ndarray
    confusion: np.ndarray
    asked: bool
    rounds: int
    sample: np.ndarray
    source: np.ndarray
    index: np.ndarray
    distance: np.ndarray
    train_index: np.ndarray
    train_distance: np.ndarray
    train_spacing: np.ndarray
    test_distance: np.ndarray
    inside: np.ndarray
    density: np.ndarray
    recalled: np.ndarray
    covered: np.ndarray
    copies: np.ndarray

    def share_nearest(self, source: int) -> Proportion:
        """Samples whose nearest neighbour is of a kind: TRAIN, TEST or SELF. Ideal is a third each."""
        return Proportion(int((self.source == source).sum()), len(self.source))

    def spread(self, source: int) -> float | None:
        """Standard deviation of `share_nearest` over the rounds, where there are several."""
        shares = (self.source.reshape(self.rounds, -1) == source).mean(1)
        return float(shares.std()) if self.rounds > 1 else None

    @property
    def neighbour_entropy(self) -> float:
        """Of the three shares, in nats; ln 3 = 1.0986 is the most (arXiv:2103.01946, App. D)."""
        return entropy([self.share_nearest(source).count for source in (TRAIN, TEST, SELF)])

    @property
    def memorised(self) -> Proportion:
        """Samples nearer to a training image than test images typically (in the median) are: a half is ideal."""
        if not len(self.test_distance):
            return Proportion(0, 0)
        return Proportion(int((self.train_distance < np.median(self.test_distance)).sum()), len(self.sample))

    @property
    def authentic(self) -> Proportion:
        """Samples farther from their nearest training image than that one is from its own (arXiv:2102.08921)."""
        return Proportion(int((self.train_distance > self.train_spacing).sum()), len(self.sample))

    @property
    def precision(self) -> Proportion:
        return Proportion(int(self.inside.sum()), len(self.inside))

    @property
    def recall(self) -> Proportion:
        return Proportion(int(self.recalled.sum()), len(self.recalled))

    @property
    def coverage(self) -> Proportion:
        return Proportion(int(self.covered.sum()), len(self.covered))

    @property
    def agreement(self) -> Proportion:
        """Images in which a classifier sees the class that was asked for."""
        return Proportion(int(np.trace(self.confusion)), int(self.confusion.sum())) if self.asked else Proportion(0, 0)

    @property
    def seen(self) -> np.ndarray:
        """(K,) generated images in which a classifier sees each class."""
        return self.confusion.sum(0)

    @property
    def balance(self) -> float:
        """Entropy of the classes seen, in nats; ln K where all are as frequent."""
        return entropy(self.seen) if len(self.seen) else math.nan

    def table(self) -> Table:
        """Every number with the images it is of."""
        rows = []
        for name, estimate in self.estimates.items():
            beside = str(self.of_test[name]) if name in self.of_test else ""
            rows.append((name, str(estimate), str(estimate.generated), str(estimate.real or ""), beside))
        count, real = str(len(self.inside)), str(min(len(self.inside), self.about.train))
        shares = [("precision", self.precision), ("recall", self.recall), ("coverage", self.coverage)]
        rows += [(name, str(share), count, real, "") for name, share in shares if share.total]
        count, real = str(len(self.sample)), str(len(self.sample) // self.rounds)
        for name, source in (("train", TRAIN), ("test", TEST), ("generated", SELF)):
            spread = self.spread(source)
            text = f"{self.share_nearest(source)}" + ("" if spread is None else f" +- {100 * spread:.1f}")
            rows.append((f"nearest is {name}", text, count, real, "33.3 %"))
        rows.append(("entropy of these, nats", f"{self.neighbour_entropy:.3f}", count, real, f"{math.log(3):.3f}"))
        every = str(self.about.train)
        rows.append(("memorised", str(self.memorised), count, every, "50 %"))
        rows.append(("authentic", str(self.authentic), count, every, ""))
        if self.asked and len(self.confusion):
            rows.append(("label agreed with", str(self.agreement), str(self.agreement.total), "", ""))
        if len(self.seen):
            most = f"{math.log(len(self.seen)):.3f}"
            rows.append(("entropy of classes, nats", f"{self.balance:.3f}", str(int(self.seen.sum())), "", most))
        count, reals = str(self.about.generated), (self.about.train, self.about.test)
        for name, copies, among in zip(("training", "test"), self.copies, reals, strict=True):
            rows.append((f"equal to a {name} image", str(int(copies)), count, str(among), "0"))
        return Table(("measure", "value", "generated", "real", "test images or ideal"), tuple(rows))

    def save(self, path: Path) -> None:
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        about = {name: arrays.pop(name) for name in ("asked", "rounds")}
        about["about"] = asdict(arrays.pop("about"))
        for name in ("estimates", "of_test"):
            about[name] = {key: asdict(estimate) for key, estimate in arrays.pop(name).items()}
        save_arrays(path, {"quality": np.array(json.dumps(about)), **arrays})

    @classmethod
    def load(cls, path: Path) -> Quality:
        """Raises ValueError when missing, damaged, or not a quality."""
        arrays = load_arrays(path)
        try:
            stored: dict[str, Any] = json.loads(str(arrays.pop("quality")))
            about = About(**{**stored["about"], "classes": tuple(stored["about"]["classes"])})
            estimates, of_test = (
                {name: Estimate(**values) for name, values in stored[kind].items()} for kind in ("estimates", "of_test")
            )
            return cls(about, estimates, of_test, asked=stored["asked"], rounds=stored["rounds"], **arrays)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} does not hold the quality of generated images ({error})") from None


def entropy(counts: Any) -> float:
    """- sum p ln p of shares p = counts / sum, in nats; NaN where there is nothing to count."""
    numbers = np.asarray(counts, dtype=np.float64)
    if not numbers.sum():
        return math.nan
    shares = numbers[numbers > 0] / numbers.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0


def compare(qualities: Mapping[str, Quality]) -> Table:
    """Generators side by side, a row each: the papers' table of neighbours, then the estimates all of them have."""
    if not qualities:
        raise ValueError("there is nothing to compare")
    first = next(iter(qualities.values()))
    named = [name for name in first.estimates if all(name in quality.estimates for quality in qualities.values())]
    columns = ("generator", "images", *named, "precision %", "recall %", "train %", "test %", "self %", "entropy")
    rows = []
    for name, quality in qualities.items():
        shares = [quality.precision, quality.recall, *map(quality.share_nearest, (TRAIN, TEST, SELF))]
        cells = [str(quality.estimates[measure]) for measure in named]
        cells += [f"{100 * share.value:.1f}" for share in shares]
        rows.append((name, str(quality.about.generated), *cells, f"{quality.neighbour_entropy:.3f}"))
    return Table(columns, tuple(rows))
