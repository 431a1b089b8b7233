"""Networks as rows of numbers: what images are compared by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.images import ImageSet, to_unit
from robustgen.models.inception import Inception, load_inception
from robustgen.models.vgg import load_vgg
from robustgen.modes import batch_invariant, evaluating
from robustgen.storage.feature_weights import find_weights, has_weights
from robustgen.storage.weights import weights_digest

BLOCK = 1024
"""Images that are summed up at a time. Fixed, so that sums do not depend on the batch size."""


class Images(Protocol):
    """Many images that are read by position, such as a `ProxySet`."""

    def __len__(self) -> int: ...

    def images(self, index: np.ndarray) -> np.ndarray:
        """(n, H, W, C) uint8"""
        ...


@dataclass(frozen=True)
class Features:
    """A network that maps images (N, C, H, W) in [0, 1] to (N, dimension + classes): features, then logits.

    name      "inception-2015", "lpips-vgg", "classifier"
    network   in any mode; it is used in evaluation mode and left as found
    made_for  digest of its weights
    classes   0 where it classifies nothing
    colour    images of one channel are shown to it as grey ones of three
    """

    name: str
    network: nn.Module
    made_for: str
    dimension: int
    classes: int = 0
    colour: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.made_for}"

    @property
    def prefix(self) -> str:
        """Before the names of measures: nothing for the features that FID is defined by."""
        return "" if self.name == "inception-2015" else f"{self.name}-"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, dimension) features and (N, classes) logits; a row does not depend on its batch.

        Raises:
            ValueError: the network gives NaN or infinite features.
        """
        if self.colour and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        # One layout whatever the batch: kernels are chosen by it too, and filling up to 16 rows would change it.
        images = images.clone(memory_format=torch.contiguous_format)
        with evaluating(self.network):
            both = batch_invariant(self.network, images).float()
        if not torch.isfinite(both).all():
            raise ValueError(f"the features {self} are NaN or infinite for some images; choose another network")
        return both[:, : self.dimension], both[:, self.dimension :]


class _Penultimate(nn.Module):
    """What enters a classifier's last linear layer, beside its logits."""

    def __init__(self, model: nn.Module, last: nn.Linear):
        super().__init__()
        self.model = model
        self._last = [last]  # in a list: it is the model's, not a second module of ours

    def forward(self, images: Tensor) -> Tensor:
        entered: list[Tensor] = []
        hook = self._last[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        try:
            logits = self.model(images)
        finally:
            hook.remove()
        if len(entered) != 1 or entered[0].ndim != 2 or logits.shape != (len(images), self._last[0].out_features):
            raise ValueError(
                f"the last linear layer of {type(self.model).__name__} does not make its logits, so what enters it is "
                "no feature; give a network that ends in a linear layer"
            )
        return torch.cat([entered[0], logits], 1)


def classifier_features(model: nn.Module) -> Features:
    """The penultimate layer of a classifier: what its last linear layer is given.

    For work offline, and for images that Inception never saw. Numbers made with it carry "classifier-" before their
    names, and compare only with numbers made with the same weights.

    Raises:
        ValueError: the network has no linear layer.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear layer, so it has no penultimate features")
    last = layers[-1]
    return Features("classifier", _Penultimate(model, last), weights_digest(model), last.in_features, last.out_features)


def inception_features(device: torch.device | str = "cpu") -> Features:
    """What FID, KID and IS are defined by. Raises ValueError where its weight file is missing or another."""
    model = load_inception(find_weights("inception-2015")).to(device)
    return Features("inception-2015", model, weights_digest(model), Inception.features, Inception.classes, colour=True)


def vgg_features(shape: tuple[int, int, int], device: torch.device | str = "cpu") -> Features:
    """The five activations that LPIPS looks at, side by side, for images of a shape (C, H, W).

    So the papers' nearest neighbours are found (arXiv:2103.01946, App. D: 124,928 activations at 32x32). They are
    taken as they are, without LPIPS's normalisation and heads: the paper names activations, and nothing after them.

    Raises:
        ValueError: the weight file is missing or another, or images are smaller than 16x16.
    """
    model = load_vgg(find_weights("vgg16")).to(device)
    with torch.no_grad():
        width = model(torch.zeros(1, 3, *shape[1:], device=device)).shape[1]
    return Features("lpips-vgg", model, weights_digest(model), width, colour=True)


def features_at_hand(
    model: nn.Module, shape: tuple[int, int, int], device: torch.device | str = "cpu"
) -> tuple[Features, Features]:
    """The published features where their weight files are at hand, else those of a classifier of one's own.

    Returns what distances are measured in, and what nearest neighbours are looked for in. Images that are not in
    colour, or smaller than 32x32, always have the classifier's: the published networks never saw such.

    Raises:
        ValueError: a weight file is not the published one, or the classifier has no features.
    """
    own = classifier_features(model)
    if shape[0] != 3 or min(shape[1:]) < 32:
        return own, own
    return (
        inception_features(device) if has_weights("inception-2015") else own,
        vgg_features(shape, device) if has_weights("vgg16") else own,
    )


def images_at(source: Images | ImageSet | np.ndarray, index: np.ndarray) -> np.ndarray:
    """(n, H, W, C) uint8 of a proxy set, an image set or an array."""
    if isinstance(source, ImageSet):
        return np.asarray(source.images[index])
    return source[index] if isinstance(source, np.ndarray) else source.images(index)


def stream(
    source: Images | ImageSet | np.ndarray,
    index: np.ndarray,
    *networks: Features,
    batch_size: int,
    device: torch.device | str,
) -> Iterator[tuple[slice, np.ndarray, list[tuple[Tensor, Tensor]]]]:
    """Images at `index`, `BLOCK` at a time: which of `index`, their bytes, and what each network makes of them."""
    for first in range(0, len(index), BLOCK):
        part = slice(first, min(first + BLOCK, len(index)))
        pixels = images_at(source, index[part])
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in networks]
        for batch in torch.from_numpy(np.ascontiguousarray(pixels)).split(batch_size):
            images = to_unit(batch.to(device).permute(0, 3, 1, 2))
            for rows, network in zip(found, networks, strict=True):
                rows.append(network(images))
        yield part, pixels, [(torch.cat([r for r, _ in rows]), torch.cat([z for _, z in rows])) for rows in found]
