"""Distances between sets of feature vectors: Frechet (FID), kernel (KID), and the Inception Score.

The functions take rows (N, D) and return numbers. They are the published metrics with features of `models.inception`
only; do not call them FID with other features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from robustgen.randomness import Rng


@dataclass(frozen=True)
class GaussianFit:
    """Mean (D,) and covariance (D, D) of `count` rows, float64; the covariance is divided by count - 1."""

    mean: Tensor
    covariance: Tensor
    count: int

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance, which may be rank-deficient."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


class Moments:
    """Mean and covariance in one pass over blocks of rows, in float64, without cancellation (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._scatter = torch.zeros(0, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Add rows (n, D). Equal rows in equal blocks give bitwise equal results."""
        if not len(rows):
            return
        rows = rows.double()
        mean = rows.mean(0)
        centred = rows - mean
        scatter = centred.T @ centred
        if not self.count:
            self.count, self._mean, self._scatter = len(rows), mean, scatter
            return
        total = self.count + len(rows)
        gap = mean - self._mean
        self._scatter = self._scatter + scatter + torch.outer(gap, gap) * (self.count * len(rows) / total)
        self._mean = self._mean + gap * (len(rows) / total)
        self.count = total

    def gaussian(self) -> GaussianFit:
        """The moments of all rows. Raises ValueError for fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two images, got {self.count}")
        return GaussianFit(self._mean, self._scatter / (self.count - 1), self.count)


def gaussian_of(rows: Tensor, block: int = 1024) -> GaussianFit:
    """Mean and covariance of rows (N, D)."""
    moments = Moments()
    for part in rows.split(block):
        moments.add(part)
    return moments.gaussian()


def frechet_distance(generated: GaussianFit, real: GaussianFit) -> float:
    """Squared Frechet distance between two Gaussians:

        |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)

    The last trace is computed as the sum of the square roots of the eigenvalues of the symmetric matrix
    S_2^(1/2) S_1 S_2^(1/2), which also works for rank-deficient covariances (fewer images than features). The estimate
    has a positive bias of about 1/n for n images; always report n.

    Source: arXiv:1706.08500.
    """
    inner = real.root @ generated.covariance @ real.root
    shared = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    gap = (generated.mean - real.mean).square().sum()
    distance = gap + generated.covariance.trace() + real.covariance.trace() - 2 * shared
    return max(0.0, float(distance))


def frechet_at_infinity(rows: Tensor, real: GaussianFit, points: int = 15) -> float:
    """Extrapolate the Frechet distance to infinitely many generated images; the real images are fixed.

    A line in 1/n is fitted to the distances of the first n rows, for 15 values of n from N/10 to N, and evaluated at
    1/n = 0. The linear law requires N/10 to be well above the number of features D. The result can be negative, and is
    NaN for fewer than 20 rows.

    Args:
        rows: (N, D) features in random order.

    Source: arXiv:1911.07023.
    """
    total = len(rows)
    if total < 20:
        return math.nan
    counts = np.unique(np.linspace(total / 10, total, points).round().astype(int))
    moments, distances, before = Moments(), [], 0
    for count in counts:
        moments.add(rows[before:count])
        distances.append(frechet_distance(moments.gaussian(), real))
        before = int(count)
    return float(np.polyfit(1 / counts, distances, 1)[1])


def kernel_distance(generated: Tensor, real: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy (MMD) with the kernel (x . y / D + 1)^3.

    Rows are (N, D) and (M, D), at least two each. For equal distributions the expectation is 0.

    Source: arXiv:1801.01401.
    """
    x, y = generated.double(), real.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1).pow(3)

    def within(a: Tensor) -> Tensor:
        found = kernel(a, a)
        return (found.sum() - found.trace()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def kernel_distances(generated: Tensor, real: Tensor, rng: Rng, *, subsets: int = 100, size: int = 1000) -> Tensor:
    """(subsets,) kernel distances between random subsets, drawn without replacement; KID is their mean.

    A set with fewer than `size` rows limits the size of the subsets on both sides.

    Raises:
        ValueError: fewer than two rows in a set.
    """
    size = min(size, len(generated), len(real))
    if size < 2:
        raise ValueError(f"a kernel distance needs at least two images on each side, got {size}")
    found = []
    for number in range(subsets):
        place = rng.at(number)
        mine, theirs = (
            torch.from_numpy(place.at(which).permutation(len(rows))[:size])
            for which, rows in (("generated", generated), ("real", real))
        )
        found.append(kernel_distance(generated[mine.to(generated.device)], real[theirs.to(real.device)]))
    return torch.tensor(found, dtype=torch.float64)


class InceptionScore:
    """Inception Score: exp of the mean KL divergence of class probabilities from their mean, over splits of the images.

        exp( mean_i sum_k p_ik ln (p_ik / mean_i p_ik) )

    It ranges from 1 (equal predictions for all images) to K (confident predictions, all classes equally frequent). Only
    sums are stored, in float64, for any number of images.

    Source: arXiv:1606.03498, with 10 splits.
    """

    def __init__(self, splits: int = 10) -> None:
        self.splits = splits
        self._count = torch.zeros(splits, dtype=torch.float64)
        self._self = torch.zeros(splits, dtype=torch.float64)
        self._mean = torch.zeros(splits, 0, dtype=torch.float64)

    def add(self, logits: Tensor, split: Tensor) -> None:
        """Add logits (n, K) of images that belong to the splits (n,)."""
        log = logits.double().log_softmax(1)
        member = torch.nn.functional.one_hot(split.to(log.device), self.splits).double().T
        sums = [member.sum(1), member @ (log.exp() * log).sum(1), member @ log.exp()]
        if not self._mean.shape[1]:
            self._count, self._self, self._mean = sums
        else:
            self._count, self._self, self._mean = (
                old + new for old, new in zip((self._count, self._self, self._mean), sums, strict=True)
            )

    def scores(self) -> Tensor:
        """The score of each split with images; papers report mean and standard deviation over splits."""
        some = self._count > 0
        count, mean = self._count[some], self._mean[some] / self._count[some, None]
        return (self._self[some] / count - torch.special.xlogy(mean, mean).sum(1)).exp().cpu()
