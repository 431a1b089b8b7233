"""Quality of generated images compared with real ones: estimates with image counts, and per-image rows. NumPy only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.records.tables import Table
from robustgen.stats.formatting import percent
from robustgen.stats.intervals import Proportion
from robustgen.storage.arrays import load_arrays, save_arrays

TRAIN, TEST, SELF = 0, 1, 2
"""`Quality.source`: the nearest neighbor is a training image, a test image, another generated image."""

SHOWN = 16
"""Number of samples that are stored with their nearest neighbors, for the report."""


def neighbors_file(path: Path) -> Path:
    """The file with samples and their nearest neighbors that belongs to the quality record at `path`.

    It is an `.npz` of `samples`, `nearest` and `nearest_train`, uint8 (n, H, W, C), and `source` (n,) of `nearest`.
    """
    return path.with_name(f"{path.stem}.neighbours.npz")


@dataclass(frozen=True)
class Estimate:
    """A metric and the number of images it was computed from, which most metrics depend on.

    generated  number of generated images
    real       number of real training images; 0 if the metric needs none
    spread     standard deviation over splits or subsets of these images; None without splits
    """

    value: float
    generated: int
    real: int
    spread: float | None = None

    def __str__(self) -> str:
        text = f"{self.value:.4g}"
        return text if self.spread is None else f"{text} +- {self.spread:.2g}"


@dataclass(frozen=True)
class QualityAbout:
    """What a quality record is about.

    dataset    dataset of the real images
    classes    names of its classes
    generated  number of generated images; `train` and `test` count real ones
    features   features for Frechet and kernel distances, Inception Score, precision and recall, with a digest
    neighbors  features for nearest neighbors, with a digest
    seed       seed of the random subsets of images
    """

    dataset: str
    classes: tuple[str, ...]
    generated: int
    train: int
    test: int
    features: str
    neighbors: str
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The content as stored, with the British key of version 0.1."""
        content = asdict(self)
        return {"neighbours" if key == "neighbors" else key: value for key, value in content.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> QualityAbout:
        stored = {"neighbors" if key == "neighbours" else key: value for key, value in content.items()}
        return cls(**{**stored, "classes": tuple(stored["classes"])})


@dataclass(frozen=True)
class Quality:
    """Quality of a set of generated images: summary estimates, and the per-image rows they are computed from.

    K classes, n samples for nearest neighbors, m generated images and equally many real ones for precision and recall.
    Where there are fewer real images, these are used again in each round.

    estimates        metrics by name: "fid", or "classifier-fid" with features other than those of FID; "...-kid" ...
    of_test          the same metrics of the real test images: the values of a perfect generator at this sample size
    class_fid        (K,) Frechet distance within each class; NaN where a class has fewer than two images
    class_counts     (K, 2) generated and real images of each class
    confusion        (K, K) generated images by condition label (row) and predicted class (column). All on the diagonal
                     where condition labels are unknown; (0, 0) without a labeler
    asked            whether condition labels are known
    rounds           random subsets of samples, training and test images, of equal size; neighbors are searched in each
    sample           (n,) position of each sample among the generated images, round after round
    source           (n,) int8: kind of its nearest neighbor among equally many training, test and generated images
    index            (n,) position of that neighbor among all images of its kind
    distance         (n,) Euclidean distance to it after PCA
    train_index      (n,) nearest neighbor among all training images
    train_distance   (n,) distance to it
    train_spacing    (n,) distance from that training image to its nearest other training image
    test_distance    (n,) distance from the test images of the subset to their nearest training images
    inside           (m,) bool: within the 3rd-neighbor distance of a real image: precision
    density          (m,) int32: number of real images within whose 5th-neighbor distance it is
    recalled         (m,) bool: the real image is within the 3rd-neighbor distance of a generated image: recall
    covered          (m,) bool: a generated image is within the real image's 5th-neighbor distance: coverage
    copies           (2,) generated images that equal a training image, a test image, byte by byte
    """

    about: QualityAbout
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
        """Samples whose nearest neighbor is of one kind: TRAIN, TEST or SELF. The ideal is a third each."""
        return Proportion(int((self.source == source).sum()), len(self.source))

    def spread(self, source: int) -> float | None:
        """Standard deviation of `share_nearest` over the rounds; None for a single round."""
        shares = (self.source.reshape(self.rounds, -1) == source).mean(1)
        return float(shares.std()) if self.rounds > 1 else None

    @property
    def neighbor_entropy(self) -> float:
        """Entropy of the three fractions `share_nearest`, in nats; at most ln 3 = 1.0986 (arXiv:2103.01946, App. D)."""
        return entropy([self.share_nearest(source).count for source in (TRAIN, TEST, SELF)])

    @property
    def memorized(self) -> Proportion:
        """Samples that are closer to a training image than the median test image is; the ideal is a half."""
        if not len(self.test_distance):
            return Proportion(0, 0)
        return Proportion(int((self.train_distance < np.median(self.test_distance)).sum()), len(self.sample))

    @property
    def authentic(self) -> Proportion:
        """Samples farther from their nearest training image than that image is from its own (arXiv:2102.08921)."""
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
        """Label agreement: generated images whose predicted class equals the condition label."""
        return Proportion(int(np.trace(self.confusion)), int(self.confusion.sum())) if self.asked else Proportion(0, 0)

    @property
    def seen(self) -> np.ndarray:
        """(K,) number of generated images predicted as each class."""
        return self.confusion.sum(0)

    @property
    def balance(self) -> float:
        """Entropy of the predicted classes, in nats; ln K if all are equally frequent."""
        return entropy(self.seen) if len(self.seen) else math.nan

    def table(self) -> Table:
        """All metrics with the number of images they are computed from."""
        rows = []
        for name, estimate in self.estimates.items():
            of_test = str(self.of_test[name]) if name in self.of_test else ""
            rows.append((name, str(estimate), str(estimate.generated), str(estimate.real or ""), of_test))
        count, real = str(len(self.inside)), str(min(len(self.inside), self.about.train))
        shares = [("precision", self.precision), ("recall", self.recall), ("coverage", self.coverage)]
        rows += [(name, str(share), count, real, "") for name, share in shares if share.total]
        count, real = str(len(self.sample)), str(len(self.sample) // self.rounds)
        for name, source in (("train", TRAIN), ("test", TEST), ("generated", SELF)):
            spread = self.spread(source)
            text = f"{self.share_nearest(source)}" + ("" if spread is None else f" +- {100 * spread:.1f}")
            rows.append((f"nearest neighbor is {name}", text, count, real, "33.3 %"))
        entropy_row = f"{self.neighbor_entropy:.3f}", count, real, f"{math.log(3):.3f}"
        rows.append(("nearest neighbor entropy, nats", *entropy_row))
        every = str(self.about.train)
        rows.append(("memorized", str(self.memorized), count, every, "50 %"))
        rows.append(("authentic", str(self.authentic), count, every, ""))
        if self.asked and len(self.confusion):
            rows.append(("label agreement", str(self.agreement), str(self.agreement.total), "", ""))
        if len(self.seen):
            most = f"{math.log(len(self.seen)):.3f}"
            rows.append(("class entropy, nats", f"{self.balance:.3f}", str(int(self.seen.sum())), "", most))
        count, reals = str(self.about.generated), (self.about.train, self.about.test)
        for name, copies, among in zip(("training", "test"), self.copies, reals, strict=True):
            rows.append((f"equal to a {name} image", str(int(copies)), count, str(among), "0"))
        return Table(("metric", "value", "generated", "real", "test images or ideal"), tuple(rows))

    def save(self, path: Path) -> None:
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        about = {name: arrays.pop(name) for name in ("asked", "rounds")}
        about["about"] = arrays.pop("about").to_json()
        for name in ("estimates", "of_test"):
            about[name] = {key: asdict(estimate) for key, estimate in arrays.pop(name).items()}
        save_arrays(path, {"quality": np.array(json.dumps(about)), **arrays})

    @classmethod
    def load(cls, path: Path) -> Quality:
        """Read a quality record.

        Raises:
            ValueError: the file is missing, damaged, or not a quality record.
        """
        arrays = load_arrays(path)
        try:
            stored: dict[str, Any] = json.loads(str(arrays.pop("quality")))
            about = QualityAbout.from_json(stored["about"])
            estimates, of_test = (
                {name: Estimate(**values) for name, values in stored[kind].items()} for kind in ("estimates", "of_test")
            )
            return cls(about, estimates, of_test, asked=stored["asked"], rounds=stored["rounds"], **arrays)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"expected a quality record in {path}, but cannot read one ({error})") from None


def entropy(counts: Any) -> float:
    """Entropy - sum p ln p of p = counts / sum, in nats; NaN if all counts are 0."""
    numbers = np.asarray(counts, dtype=np.float64)
    if not numbers.sum():
        return math.nan
    shares = numbers[numbers > 0] / numbers.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0


def compare_qualities(qualities: Mapping[str, Quality]) -> Table:
    """Table with a row per generator: metrics that all of them have, and nearest neighbors as in the paper's table.

    Raises:
        ValueError: there is no record to compare.
    """
    if not qualities:
        raise ValueError("expected at least one quality record to compare, got none")
    first = next(iter(qualities.values()))
    named = [name for name in first.estimates if all(name in quality.estimates for quality in qualities.values())]
    columns = ("generator", "images", *named, "precision %", "recall %", "train %", "test %", "self %", "entropy")
    rows = []
    for name, quality in qualities.items():
        shares = [quality.precision, quality.recall, *map(quality.share_nearest, (TRAIN, TEST, SELF))]
        cells = [str(quality.estimates[measure]) for measure in named]
        cells += [percent(share.value) for share in shares]
        rows.append((name, str(quality.about.generated), *cells, f"{quality.neighbor_entropy:.3f}"))
    return Table(columns, tuple(rows))
