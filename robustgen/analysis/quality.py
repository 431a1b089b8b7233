"""All quality metrics of a set of generated images, in one pass over it."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustgen.analysis.features import FEATURE_BLOCK, Features, Images, images_at, stream
from robustgen.analysis.fidelity import (
    InceptionScore,
    Moments,
    frechet_at_infinity,
    frechet_distance,
    gaussian_of,
    kernel_distances,
)
from robustgen.analysis.neighbors import (
    Inclusion,
    Surroundings,
    drawn_balanced,
    fit_projection,
    inclusion,
    project,
    surroundings,
)
from robustgen.contracts import Progress, silent
from robustgen.images import ImageSet, check_labels
from robustgen.randomness import Rng, content_ids, rng_for
from robustgen.records.quality import Estimate, Quality, QualityAbout
from robustgen.runtime.distributed import from_first, place
from robustgen.storage.files import writing_to

SPLITS = 10
COMPONENTS = 100
"""Principal components for nearest neighbors (arXiv:2103.01946, App. D)."""

_ON_DISK = 1 << 30
"""Features of more bytes are stored in a temporary file."""


class _Block(NamedTuple):
    """What is kept of n images: features and logits of the first network, predictions of the last, identities."""

    rows: Tensor
    logits: Tensor
    predicted: np.ndarray
    ids: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray, found: list[tuple[Tensor, Tensor]]) -> _Block:
        """The outputs of the networks for a block of images: features first, labeler last."""
        (rows, logits), (_, labels) = found[0], found[-1]
        predicted = labels.argmax(1).cpu().numpy() if labels.shape[1] else np.empty(0, dtype=np.int64)
        return cls(rows.cpu(), logits.cpu(), predicted, content_ids(pixels))


@dataclass
class _Seen:
    """Result of one pass over N images.

    order      (N,) the images in random order
    moments    moments of the features of all images
    score      Inception Score of all images, if the network has logits
    rows       features of the first images of `order`, in that order, so that its first n rows are a random subset
    predicted  (N,) classes predicted by the labeler; (0,) without a labeler
    ids        (N,) identity of each image, a hash of its bytes
    """

    order: np.ndarray
    moments: Moments
    score: InceptionScore | None
    rows: Tensor
    predicted: np.ndarray
    ids: np.ndarray

    @classmethod
    def nothing(cls, order: np.ndarray, features: Features, labeler: Features | None, kept: int) -> _Seen:
        """The state before the first image."""
        count = len(order)
        return cls(
            order,
            Moments(),
            InceptionScore(SPLITS) if features.classes else None,
            torch.empty(min(kept, count), features.dimension),
            np.empty(count if labeler else 0, dtype=np.int64),
            np.empty(count, dtype=np.int64),
        )

    @cached_property
    def place(self) -> np.ndarray:
        """(N,) position of each image in `order`."""
        return np.argsort(self.order)

    def in_place(self) -> Tensor:
        """Features in the order of the images; requires that all are kept."""
        return self.rows[torch.from_numpy(self.place)]

    def add(self, part: slice, block: _Block, device: torch.device | str) -> None:
        """Add a block of images; moments and scores are summed on the device."""
        self.moments.add(block.rows.to(device))
        rank = torch.from_numpy(self.place[part])
        if self.score:
            self.score.add(block.logits.to(device), rank % SPLITS)
        if len(self.predicted):
            self.predicted[part] = block.predicted
        kept = rank < len(self.rows)
        self.rows[rank[kept]] = block.rows[kept]
        self.ids[part] = block.ids


def measure(
    generated: Images | ImageSet | np.ndarray,
    train: ImageSet,
    test: ImageSet,
    features: Features,
    *,
    neighbor_features: Features | None = None,
    labeler: Features | None = None,
    labels: np.ndarray | None = None,
    index: np.ndarray | None = None,
    seed: int = 0,
    keep: int = 50_000,
    judged: int = 10_000,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Quality:
    """Measure generated images against the training images of their generator and against test images.

    Processes (`runtime.distributed`) share the passes of the networks; the first one computes the metrics, and all
    return them. The numbers are the same for any number of processes.

    Args:
        generated: a `ProxySet` or any `Images`, an image set, or an array (N, H, W, C) uint8.
        train: real images that the generator was trained on. All of them are used.
        test: real images that it was not trained on.
        features: features for distances, precision and recall. Networks must be on `device`.
        neighbor_features: features for nearest neighbors; default: `features`.
        labeler: a classifier for predicted classes; default: `features` if it classifies the same classes.
        labels: (N,) condition labels or training labels of all images of `generated`.
        index: positions of the images to measure, for example `proxies.kept()`; default: all.
        seed: seed of the random subsets.
        keep: number of generated images, chosen at random, whose features are kept in memory for the kernel distance,
            the distance at infinity, and distances within classes. Moments and scores always use all images.
        judged: number of generated images for nearest neighbors, precision and recall. These metrics compare sets of
            equal size: with fewer real images the generated ones are processed in several rounds.
        batch_size: images per forward pass; affects speed only.

    Raises:
        ValueError: images or labels are invalid, of different datasets, or too few.
    """
    index = _checked_index(generated, train, test, labels, index)
    if len(train) < 2 or len(test) < 2 or len(index) < 2:
        raise ValueError(
            f"expected at least two images of each kind, got {len(index)} generated, {len(train)} training and "
            f"{len(test)} test images"
        )
    labeler = labeler or (features if features.classes == len(train.info.classes) else None)
    rng = rng_for(seed, "quality")
    total = len(index) + len(train) + len(test)
    done = 0

    def look(name: str, source: Images | ImageSet | np.ndarray, where: np.ndarray, kept: int) -> _Seen:
        nonlocal done
        order = rng.at(name, "order").permutation(len(where))
        seen = _Seen.nothing(order, features, labeler, kept)
        networks = (features,) if labeler in (None, features) else (features, labeler)
        for part, block in stream(source, where, *networks, keep=_Block.of, batch_size=batch_size, device=device):
            seen.add(part, block, device)
            done += len(block.ids)
            progress(done, total, "images")
        return seen

    mine = look("generated", generated, index, keep)
    theirs = look("train", train, np.arange(len(train)), len(train))
    unseen = look("test", test, np.arange(len(test)), len(test))
    if place()[0] == 0:
        _check_classes(mine.predicted, train)

    most = min(judged, len(mine.rows))
    near = min(most, len(train), len(test))
    draws = [
        (drawn_balanced(train.labels, near, rng.at("train", r)), drawn_balanced(test.labels, near, rng.at("test", r)))
        for r in range(most // near)
    ]
    sample = index[mine.order[: near * len(draws)]]
    fitted = [np.unique(np.concatenate(drawn)) for drawn in zip(*draws, strict=True)]
    looked = neighbor_features or features
    if looked is not features:
        sources = ((generated, sample), (train, np.arange(len(train))), (test, np.arange(len(test))))
        sets = _looked_at(looked, sources, fitted, rng.at("axes"), batch_size, device)

    def compared() -> Quality:
        estimates = _estimates(features.prefix, mine, theirs, rng.at("generated"))
        of_test = _estimates(features.prefix, unseen, theirs, rng.at("test"))
        asked = labels[index].astype(np.int64) if labels is not None else None
        own = asked if asked is not None else mine.predicted
        classes = len(train.info.classes)
        class_fid, class_counts = _per_class(mine, own, theirs, train.labels, classes)
        if looked is features:
            rows = mine.rows[: len(sample)], theirs.in_place(), unseen.in_place()
            seen = _projected(rows, fitted, rng.at("axes"))
        else:
            seen = sets
        around = [
            surroundings(samples, seen[1], seen[2], torch.from_numpy(positions), *map(torch.from_numpy, drawn))
            for samples, positions, drawn in zip(seen[0].split(near), np.split(sample, len(draws)), draws, strict=True)
        ]
        equal = min(most, len(train))
        reached = [
            inclusion(mine.rows[first : first + equal], theirs.rows[:equal])
            for first in range(0, most - equal + 1, equal)
        ]
        return Quality(
            about=QualityAbout(
                train.info.name, train.info.classes, len(index), len(train), len(test), str(features), str(looked), seed
            ),
            estimates=estimates,
            of_test=of_test,
            class_fid=class_fid,
            class_counts=class_counts,
            confusion=_confusion(asked, mine.predicted, classes),
            asked=asked is not None and labeler is not None,
            rounds=len(draws),
            sample=sample,
            copies=np.array([int(np.isin(mine.ids, real.ids).sum()) for real in (theirs, unseen)]),
            **_columns(around),
            **_columns(reached),
        )

    return from_first(compared)


def _checked_index(
    generated: Images | ImageSet | np.ndarray,
    train: ImageSet,
    test: ImageSet,
    labels: np.ndarray | None,
    index: np.ndarray | None,
) -> np.ndarray:
    """Positions of the images to measure.

    Raises:
        ValueError: images or labels do not match each other.
    """
    if train.info.shape != test.info.shape or train.info.classes != test.info.classes:
        raise ValueError(
            f"expected training and test images of one dataset, got {train.info.name} and {test.info.name}, which are "
            "different data sets"
        )
    if labels is not None:
        check_labels(labels, len(generated), len(train.info.classes), "generated images")
    if index is None:
        index = np.arange(len(generated))
    if len(index) and (index.min() < 0 or index.max() >= len(generated)):
        raise ValueError(f"positions must lie in 0..{len(generated) - 1}, got {index.min()} to {index.max()}")
    first = images_at(generated, index[:1])
    channels, height, width = train.info.shape
    if first.shape[1:] != (height, width, channels) or first.dtype != np.uint8:
        raise ValueError(
            f"generated images must be uint8 of shape {(height, width, channels)} like the real ones, got "
            f"{first.dtype} of shape {first.shape[1:]}"
        )
    return index


def _check_classes(predicted: np.ndarray, train: ImageSet) -> None:
    if len(predicted) and predicted.max() >= len(train.info.classes):
        raise ValueError(
            f"expected a labeler of {len(train.info.classes)} classes, got predictions of class {predicted.max()}; "
            "pass a labeler trained on this dataset"
        )


def _estimates(prefix: str, mine: _Seen, theirs: _Seen, rng: Rng) -> dict[str, Estimate]:
    """Frechet and kernel distances to the training images, and the Inception Score."""
    count, kept, real = len(mine.order), len(mine.rows), len(theirs.order)
    reference = theirs.moments.gaussian()
    kernel = kernel_distances(mine.rows, theirs.rows, rng.at("kernel"))
    found = {
        f"{prefix}fid": Estimate(frechet_distance(mine.moments.gaussian(), reference), count, real),
        f"{prefix}fid at infinity": Estimate(frechet_at_infinity(mine.rows, reference), kept, real),
        f"{prefix}kid": Estimate(float(kernel.mean()), kept, real, float(kernel.std(correction=0))),
    }
    if mine.score:
        scores = mine.score.scores()
        found[f"{prefix}is"] = Estimate(float(scores.mean()), count, 0, float(scores.std(correction=0)))
    return found


def _per_class(
    mine: _Seen, own: np.ndarray, theirs: _Seen, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) Frechet distances within classes, NaN where unknown, and (K, 2) image counts of both sides."""
    distances, counts = np.full(classes, math.nan), np.zeros((classes, 2), dtype=np.int64)
    if not len(own):
        return distances, counts
    sides = [(seen.rows, of[seen.order[: len(seen.rows)]]) for seen, of in ((mine, own), (theirs, labels))]
    for label in range(classes):
        first, second = (rows[torch.from_numpy(of == label)] for rows, of in sides)
        counts[label] = len(first), len(second)
        if counts[label].min() >= 2:
            distances[label] = frechet_distance(gaussian_of(first), gaussian_of(second))
    return distances, counts


def _projected(rows: tuple[Tensor, Tensor, Tensor], fitted: list[np.ndarray], rng: Rng) -> list[Tensor]:
    """Samples, training and test images after PCA, from features in memory.

    Args:
        fitted: positions of the training images, and of the test images, that PCA is fitted to.
    """
    _, train, test = rows
    real = torch.cat([train[torch.from_numpy(fitted[0])], test[torch.from_numpy(fitted[1])]])
    projection = fit_projection(real, COMPONENTS, rng)
    return [project(some.split(FEATURE_BLOCK), projection) for some in rows]


def _looked_at(
    looked: Features,
    sources: tuple[tuple[Images | ImageSet | np.ndarray, np.ndarray], ...],
    fitted: list[np.ndarray],
    rng: Rng,
    batch_size: int,
    device: torch.device | str,
) -> list[Tensor]:
    """Samples, training and test images after PCA, from features computed on the fly.

    These features may not fit into memory. Only those that PCA is fitted to are stored, in a temporary file if large.
    """

    passes = partial(stream, batch_size=batch_size, device=device)
    here = place()[0] == 0
    shape = sum(map(len, fitted)) if here else 0, looked.dimension
    with tempfile.TemporaryFile() as file:
        size = shape[0] * shape[1] * 4
        large = size > _ON_DISK
        if large and hasattr(os, "posix_fallocate"):  # a mapped file on a full disk kills the process
            with writing_to(Path(tempfile.gettempdir()), size):
                os.posix_fallocate(file.fileno(), 0, size)
        held = np.memmap(file, np.float32, "w+", shape=shape) if large else np.empty(shape, np.float32)
        first = 0
        for (source, _), index in zip(sources[1:], fitted, strict=True):
            for _, rows in passes(source, index, looked, keep=lambda _, found: found[0][0].cpu()):
                held[first : first + len(rows)] = rows.numpy()
                first += len(rows)
        projection = from_first(lambda: fit_projection(torch.from_numpy(held), COMPONENTS, rng))
    projected = [
        [rows for _, rows in passes(source, index, looked, keep=lambda _, found: projection(found[0][0].cpu()))]
        for source, index in sources
    ]
    return [torch.cat(blocks) for blocks in projected] if here else []


def _confusion(asked: np.ndarray | None, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(K, K) images by condition label and predicted class; (0, 0) without predictions."""
    if not len(predicted):
        return np.zeros((0, 0), dtype=np.int64)
    rows = predicted if asked is None else asked
    return np.bincount(rows * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _columns(rounds: Sequence[Surroundings | Inclusion]) -> dict[str, np.ndarray]:
    """The columns of all rounds, concatenated."""
    return {name: np.concatenate([vars(rows)[name].cpu().numpy() for rows in rounds]) for name in vars(rounds[0])}
