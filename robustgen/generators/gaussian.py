"""One multivariate Gaussian per class, in pixel space: the simplest generator of the papers."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from robustgen.config.generator_base import GeneratorConfig
from robustgen.generators.contracts import Generator, stored_size
from robustgen.images import DatasetInfo, ImageSet
from robustgen.modes import batch_invariant
from robustgen.randomness import Rng
from robustgen.units import show_class


class Gaussian(Generator):
    """x = mean_c + factor_c e, e standard normal, clipped to [0, 1], with factor_c factor_c^T the class's covariance.

    The factor is V S / sqrt(n - 1) of the thin singular value decomposition X - mean = U S V^T: exact also where a
    class has fewer images than pixels, without a ridge. Means and decompositions are computed in float64.

    Source: arXiv:2103.01946, Sec. 5 and App. D.
    """

    kind = "gaussian"
    mean: Tensor
    factor: Tensor

    def __init__(self, shape: tuple[int, int, int], classes: int, rank: int = 1):
        super().__init__()
        self.shape, self.classes = shape, classes
        self.register_buffer("mean", torch.zeros(classes, int(np.prod(shape))))
        self.register_buffer("factor", torch.zeros(classes, rank, int(np.prod(shape))))

    @classmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        return cls(info.shape, len(info.classes))

    @property
    def rank(self) -> int:
        return self.factor.shape[1]

    def buffer_sizes(self) -> dict[str, int]:
        return {"rank": self.rank}

    def resize(self, sizes: dict[str, Any]) -> None:
        self.factor = torch.zeros(self.classes, stored_size(sizes, "rank"), self.mean.shape[1])

    def fit(self, images: ImageSet) -> str:
        """Set means and factors from a data set; returns the shape of an image and the rank.

        Raises:
            ValueError: a class has fewer than 2 images.
        """
        counts = np.bincount(images.labels, minlength=self.classes)
        if counts.min() < 2:
            poor = images.info.classes[int(counts.argmin())]
            raise ValueError(f"a Gaussian needs at least 2 images of each class; {show_class(poor)} has {counts.min()}")
        dimension = int(np.prod(self.shape))
        self.mean = torch.zeros(self.classes, dimension)
        self.factor = torch.zeros(self.classes, int(min(counts.max() - 1, dimension)), dimension)
        for label in range(self.classes):
            pixels = images.images[images.labels == label].transpose(0, 3, 1, 2).reshape(counts[label], -1)
            mean, factor = mean_and_factor(pixels)
            rank = min(len(factor), self.rank)
            self.mean[label] = torch.from_numpy(mean)
            self.factor[label, :rank] = torch.from_numpy(factor[:rank])
        return f"{self.shape} pixels, rank {self.rank}"

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        noise = rng.normal((len(labels), self.rank))
        flat = torch.empty(len(labels), self.mean.shape[1], device=self.mean.device)
        for label in labels.unique().tolist():
            rows = labels == label
            flat[rows] = self.mean[label] + batch_invariant(lambda e, f=self.factor[label]: e @ f, noise[rows])
        return flat.clamp_(0, 1).view(-1, *self.shape)


def mean_and_factor(pixels: np.ndarray, chunk: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and factor (r, d) of the covariance of n rows of bytes, in units of [0, 1], largest scale first.

    With n <= d by the thin singular value decomposition of the rows, else by the eigenvectors of their covariance,
    gathered a chunk at a time.
    """
    count, dimension = pixels.shape
    mean = pixels.mean(0, dtype=np.float64) / 255
    if count <= dimension:
        _, scales, directions = np.linalg.svd(pixels / 255 - mean, full_matrices=False)
        return mean, scales[:, None] / np.sqrt(count - 1) * directions
    covariance = np.zeros((dimension, dimension))
    for first in range(0, count, chunk):
        centered = pixels[first : first + chunk] / 255 - mean
        covariance += centered.T @ centered
    variances, directions = np.linalg.eigh(covariance / (count - 1))
    return mean, np.sqrt(variances.clip(0))[::-1, None] * directions.T[::-1]
