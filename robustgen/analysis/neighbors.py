"""Nearest neighbors in feature space among training, test and generated images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustgen.analysis.fidelity import gaussian_of
from robustgen.datasets import balanced
from robustgen.randomness import Rng

EXACT_UP_TO = 4096
"""Largest number of features or of images for which principal components come from a full decomposition."""

_CHUNK = 128
"""Rows per block: distances to 20,000 points take 20 MB per block, which fits into processor caches."""


@dataclass(frozen=True)
class Projection:
    """Project rows (N, D) onto principal components, (N, k) float64: (row - mean) @ axes."""

    mean: Tensor
    axes: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows.double() - self.mean) @ self.axes


def fit_projection(rows: Tensor, components: int, rng: Rng, exact_up_to: int = EXACT_UP_TO) -> Projection:
    """Fit PCA to rows (N, D), which may be memory-mapped.

    It is exact if N or D is at most `exact_up_to`. Otherwise it uses randomized subspace iteration (arXiv:0909.4061)
    with 20 extra directions and four iterations, in blocks of rows. The number of components is limited by N - 1 and D.

    Raises:
        ValueError: fewer than two rows.
    """
    count, width = rows.shape
    components = min(components, width, count - 1)
    if components < 1:
        raise ValueError(f"principal components need at least two images, got {count}")
    if width <= exact_up_to:
        gaussian = gaussian_of(rows)
        _, vectors = torch.linalg.eigh(gaussian.covariance)
        return Projection(gaussian.mean, vectors[:, -components:].flip(1))
    blocks = rows.split(_CHUNK)
    mean = sum((block.double().sum(0) for block in blocks), rows.new_zeros(width, dtype=torch.float64)) / count
    if count <= exact_up_to:
        # The same components from the (N, N) Gram matrix: axes = rows^T u / |rows^T u|.
        products = torch.cat(
            [torch.cat([(a.double() - mean) @ (b.double() - mean).T for b in blocks], 1) for a in blocks]
        )
        _, vectors = torch.linalg.eigh(products)
        axes = _transposed(blocks, mean, vectors[:, -components:].flip(1))
        return Projection(mean, axes / axes.norm(dim=0))
    basis = rng.normal((width, min(components + 20, width, count))).double().to(rows.device)
    for _ in range(4):
        basis = torch.linalg.qr(basis)[0]
        basis = _transposed(blocks, mean, torch.cat([(block.double() - mean) @ basis for block in blocks]))
    basis = torch.linalg.qr(basis)[0]
    inner = torch.cat([(block.double() - mean) @ basis for block in blocks])
    _, vectors = torch.linalg.eigh(inner.T @ inner)
    return Projection(mean, basis @ vectors[:, -components:].flip(1))


def _transposed(blocks: Iterable[Tensor], mean: Tensor, right: Tensor) -> Tensor:
    """(rows - mean)^T @ right, computed in blocks."""
    result, first = mean.new_zeros(len(mean), right.shape[1]), 0
    for block in blocks:
        result += (block.double() - mean).T @ right[first : first + len(block)]
        first += len(block)
    return result


def squared_distances(queries: Tensor, points: Tensor, *, within: bool = False) -> Iterator[tuple[int, Tensor]]:
    """Blocks (first row, (n, M)) of squared Euclidean distances, by matrix products in float64, clipped at 0.

    Args:
        within: `queries` are the same as `points`; the distance of a point to itself is then infinite.
    """
    queries, points = queries.double(), points.double()
    lengths = points.square().sum(1)
    for first in range(0, len(queries), _CHUNK):
        some = queries[first : first + _CHUNK]
        squares = torch.addmm(lengths.expand(len(some), -1), some, points.T, alpha=-2)
        squares += some.square().sum(1, keepdim=True)
        squares.clamp_min_(0)
        if within:
            squares.diagonal(first)[: len(some)] = torch.inf
        yield first, squares


def nearest(queries: Tensor, points: Tensor, *, within: bool = False) -> tuple[Tensor, Tensor]:
    """Index (N,) of the nearest of `points` (M, D) to each of `queries` (N, D), and its exact distance (N,).

    Args:
        within: `queries` are the same as `points`, and a point is not its own neighbor.

    Raises:
        ValueError: no points.
    """
    if len(points) < 1 + within:
        raise ValueError(f"expected at least {1 + within} images for nearest neighbors, got {len(points)}")
    queries, points = queries.double(), points.double()
    index = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    for first, squares in squared_distances(queries, points, within=within):
        index[first : first + len(squares)] = squares.argmin(1)
    # From differences, because matrix products lose the small distances of near copies to rounding.
    return index, (queries - points[index]).norm(dim=1)


def reach(points: Tensor, ranks: tuple[int, ...]) -> Tensor:
    """(N, len(ranks)) squared distances of each point to its k-th nearest neighbors, for k in `ranks`.

    With fewer than k other points the farthest one counts.

    Raises:
        ValueError: fewer than two points.
    """
    others = len(points) - 1
    if others < 1:
        raise ValueError(f"expected at least 2 images for nearest neighbors, got {len(points)}")
    wanted = torch.tensor([min(rank, others) - 1 for rank in ranks], device=points.device)
    top = int(wanted.max()) + 1
    return torch.cat(
        [
            squares.topk(top, dim=1, largest=False, sorted=True).values[:, wanted]
            for _, squares in squared_distances(points, points, within=True)
        ]
    )


@dataclass(frozen=True)
class Inclusion:
    """Columns for precision, recall, density and coverage of m generated and r real images, see `Quality`."""

    inside: Tensor
    density: Tensor
    recalled: Tensor
    covered: Tensor


def inclusion(generated: Tensor, real: Tensor, *, near: int = 3, wide: int = 5) -> Inclusion:
    """Precision and recall with the `near`-th neighbor, density and coverage with the `wide`-th.

    An image is in the ball of another if it is not farther from it than that image's k-th neighbor of its own kind.

    Source: arXiv:1904.06991 (k = 3); arXiv:2002.09797 (k = 5).
    """
    theirs = reach(real, (near, wide))
    mine = reach(generated, (near,))[:, 0]
    inside, density = [], []
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    covered = recalled.clone()
    for first, squares in squared_distances(generated, real):
        wide_hits = squares <= theirs[:, 1]
        inside.append((squares <= theirs[:, 0]).any(1))
        density.append(wide_hits.sum(1, dtype=torch.int32))
        covered |= wide_hits.any(0)
        recalled |= (squares <= mine[first : first + len(squares), None]).any(0)
    return Inclusion(torch.cat(inside), torch.cat(density), recalled, covered)


@dataclass(frozen=True)
class Surroundings:
    """Nearest neighbors of n samples; see `Quality` for the columns."""

    source: Tensor
    index: Tensor
    distance: Tensor
    train_index: Tensor
    train_distance: Tensor
    train_spacing: Tensor
    test_distance: Tensor


def surroundings(
    samples: Tensor, train: Tensor, test: Tensor, positions: Tensor, chosen: Tensor, held_out: Tensor
) -> Surroundings:
    """The kind of each sample's nearest neighbor (arXiv:2103.01946, App. D), and distances to training images.

    At equal distances training images take precedence, then test images.

    Args (rows after PCA):
        samples: (n, k) generated images.
        train: (N, k) all training images.
        test: (M, k) all test images.
        positions: (n,) positions of the samples among all generated images.
        chosen: (n,) positions of n training images. The kinds are compared on sets of equal size; distances to training
            images use all of them.
        held_out: (n,) positions of n test images.
    """
    in_train, to_train = nearest(samples, train[chosen])
    in_test, to_test = nearest(samples, test[held_out])
    in_self, to_self = nearest(samples, samples, within=True)
    distance = torch.stack([to_train, to_test, to_self]).amin(0)
    # Explicit order of precedence, because argmin does not define one among equal values.
    source = torch.where(to_train <= distance, 0, torch.where(to_test <= distance, 1, 2))
    index = torch.stack([chosen[in_train], held_out[in_test], positions[in_self]]).gather(0, source[None])[0]
    train_index, train_distance = nearest(samples, train)
    found, back = train_index.unique(return_inverse=True)
    return Surroundings(
        source.to(torch.int8),
        index,
        distance,
        train_index,
        train_distance,
        train_spacing=_to_others(train, found)[back],
        test_distance=nearest(test[held_out], train)[1],
    )


def _to_others(points: Tensor, some: Tensor) -> Tensor:
    """Distance from the points at positions `some` to their nearest other points."""
    if len(points) < 2:
        return torch.full((len(some),), torch.inf, dtype=torch.float64, device=points.device)
    first = torch.empty(len(some), dtype=torch.int64, device=points.device)
    for start, squares in squared_distances(points[some], points):
        part = some[start : start + len(squares)]
        squares[torch.arange(len(part), device=part.device), part] = torch.inf
        first[start : start + len(squares)] = squares.argmin(1)
    return (points[some].double() - points[first].double()).norm(dim=1)


def drawn_balanced(labels: np.ndarray, count: int, rng: Rng) -> np.ndarray:
    """Positions (count,), ascending, of a random subset that is class-balanced where there are enough images."""
    order = rng.permutation(len(labels))
    return np.sort(order[balanced(labels[order], count)])


def project(blocks: Iterable[Tensor], projection: Projection) -> Tensor:
    """Project all rows of several blocks."""
    return torch.cat([projection(block) for block in blocks])
