"""Feature networks for metrics that compare sets of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.images import ImageSet, to_unit
from robustgen.models.inception import Inception, load_inception
from robustgen.models.vgg import load_vgg
from robustgen.modes import batch_invariant, evaluating
from robustgen.runtime.distributed import in_turns
from robustgen.storage.feature_weights import find_weights, has_weights
from robustgen.storage.weights import weights_digest

_T = TypeVar("_T")

FEATURE_BLOCK = 1024
"""Images per partial sum. It is fixed, so that sums do not depend on the batch size."""


class Images(Protocol):
    """Images that are read by position, such as a `ProxySet`."""

    def __len__(self) -> int: ...

    def images(self, index: np.ndarray) -> np.ndarray:
        """(n, H, W, C) uint8"""
        ...


@dataclass(frozen=True)
class Features:
    """A network that maps images (N, C, H, W) in [0, 1] to (N, dimension + classes): features, then logits.

    name      "inception-2015", "lpips-vgg", "classifier"
    network   used in evaluation mode; its mode is restored
    made_for  digest of its weights
    classes   number of logits; 0 for a network without a classifier
    color     whether it needs three channels: images of one channel are repeated
    """

    name: str
    network: nn.Module
    made_for: str
    dimension: int
    classes: int = 0
    color: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.made_for}"

    @property
    def prefix(self) -> str:
        """Prefix of metric names; empty for the features that define FID."""
        return "" if self.name == "inception-2015" else f"{self.name}-"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, dimension) features and (N, classes) logits; a row does not depend on its batch.

        Raises:
            ValueError: the network returns NaN or infinite features.
        """
        if self.color and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        # One memory format for every batch, because the choice of kernels depends on it and padding would change it.
        images = images.clone(memory_format=torch.contiguous_format)
        with evaluating(self.network):
            both = batch_invariant(self.network, images).float()
        if not torch.isfinite(both).all():
            raise ValueError(
                f"expected finite features, got NaN or inf from {self} for some images; use another network"
            )
        return both[:, : self.dimension], both[:, self.dimension :]


class _Penultimate(nn.Module):
    """A classifier that returns the input of its last linear layer, followed by its logits."""

    def __init__(self, model: nn.Module, last: nn.Linear):
        super().__init__()
        self.model = model
        self._last = [last]  # in a list, so that torch does not register it as a second submodule

    def forward(self, images: Tensor) -> Tensor:
        entered: list[Tensor] = []
        hook = self._last[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        try:
            logits = self.model(images)
        finally:
            hook.remove()
        if len(entered) != 1 or entered[0].ndim != 2 or logits.shape != (len(images), self._last[0].out_features):
            raise ValueError(
                f"expected a network that ends in a linear layer, but the last linear layer of "
                f"{type(self.model).__name__} does not compute its logits; pass another network"
            )
        return torch.cat([entered[0], logits], 1)


def classifier_features(model: nn.Module) -> Features:
    """Penultimate features of a classifier: the input of its last linear layer.

    They need no download and suit images unlike those of ImageNet. Names of metrics with these features begin with
    "classifier-"; compare such metrics only if the weights are the same.

    Raises:
        ValueError: the network has no linear layer.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError(f"expected a classifier with a linear layer, got {type(model).__name__} without any")
    last = layers[-1]
    return Features("classifier", _Penultimate(model, last), weights_digest(model), last.in_features, last.out_features)


def inception_features(device: torch.device | str = "cpu") -> Features:
    """The Inception network that defines FID, KID and IS.

    Raises:
        ValueError: the weight file is missing or not the published one.
    """
    model = load_inception(find_weights("inception-2015")).to(device)
    return Features("inception-2015", model, weights_digest(model), Inception.features, Inception.classes, color=True)


def vgg_features(shape: tuple[int, int, int], device: torch.device | str = "cpu") -> Features:
    """The five VGG activations that LPIPS uses, concatenated, for images of a shape (C, H, W).

    The paper finds nearest neighbors with them (arXiv:2103.01946, App. D: 124,928 activations at 32x32). They are used
    without LPIPS's normalization and linear heads, because the paper mentions only activations.

    Raises:
        ValueError: the weight file is missing or not the published one, or images are smaller than 16x16.
    """
    model = load_vgg(find_weights("vgg16")).to(device)
    with torch.no_grad():
        width = model(torch.zeros(1, 3, *shape[1:], device=device)).shape[1]
    return Features("lpips-vgg", model, weights_digest(model), width, color=True)


def features_at_hand(
    model: nn.Module, shape: tuple[int, int, int], device: torch.device | str = "cpu"
) -> tuple[Features, Features]:
    """The published features if their weight files are available, else those of the classifier `model`.

    Returns the features for distances, and the features for nearest neighbors. Images without color, or smaller than
    32x32, always use the classifier, because the published networks were not trained on such images.

    Raises:
        ValueError: a weight file is not the published one, or the classifier has no penultimate features.
    """
    own = classifier_features(model)
    if shape[0] != 3 or min(shape[1:]) < 32:
        return own, own
    return (
        inception_features(device) if has_weights("inception-2015") else own,
        vgg_features(shape, device) if has_weights("vgg16") else own,
    )


def images_at(source: Images | ImageSet | np.ndarray, index: np.ndarray) -> np.ndarray:
    """(n, H, W, C) uint8 images of a proxy set, an image set or an array."""
    if isinstance(source, ImageSet):
        return np.asarray(source.images[index])
    return source[index] if isinstance(source, np.ndarray) else source.images(index)


def stream(
    source: Images | ImageSet | np.ndarray,
    index: np.ndarray,
    *networks: Features,
    keep: Callable[[np.ndarray, list[tuple[Tensor, Tensor]]], _T],
    batch_size: int,
    device: torch.device | str,
) -> Iterator[tuple[slice, _T]]:
    """Read images at `index` in blocks: (slice of `index`, what is kept of the block).

    Of P processes (`runtime.distributed`), each computes every P-th block. The first gets all of them in order, the
    others none; all must iterate to the end.

    Args:
        keep: function of the pixels (n, H, W, C) and of (features, logits) of each network; its result must be
            picklable and lie on the CPU.
    """
    parts = [slice(first, min(first + FEATURE_BLOCK, len(index))) for first in range(0, len(index), FEATURE_BLOCK)]

    def block(number: int) -> _T:
        pixels = images_at(source, index[parts[number]])
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in networks]
        for batch in torch.from_numpy(np.ascontiguousarray(pixels)).split(batch_size):
            images = to_unit(batch.to(device).permute(0, 3, 1, 2))
            for rows, network in zip(found, networks, strict=True):
                rows.append(network(images))
        return keep(pixels, [(torch.cat([r for r, _ in rows]), torch.cat([z for _, z in rows])) for rows in found])

    for number, kept in enumerate(in_turns(len(parts), block)):
        yield parts[number], kept
