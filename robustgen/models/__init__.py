"""Classifiers: images (N, C, H, W) in [0, 1] to logits (N, K), normalisation inside.

A name is a family, its sizes, and an activation other than SiLU: wrn-28-10, wrn-10-1-relu, preact-resnet-18.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import nn

from robustgen.images import DatasetInfo
from robustgen.models.preact_resnet import PreActResNet
from robustgen.models.wide_resnet import ACTIVATIONS, WideResNet
from robustgen.randomness import Rng

MODELS: dict[str, Callable[..., nn.Module]] = {
    "wrn": WideResNet,
    "preact-resnet": PreActResNet,
}

EXAMPLES = (
    "wrn-10-1", "wrn-16-2", "wrn-28-10", "wrn-34-10", "wrn-34-20", "wrn-70-16", "wrn-106-16",
    "preact-resnet-18", "preact-resnet-34",
)  # fmt: skip


def build_model(architecture: str, info: DatasetInfo, rng: Rng | None = None) -> nn.Module:
    """A network by name for a data set, initialised by `initialise` when `rng` is given.

    Raises:
        ValueError: unknown name, or sizes the family does not have.
    """
    found = re.fullmatch(r"([a-z-]+?)((?:-\d+)+)(?:-([a-z]+))?", architecture)
    family = MODELS.get(found[1]) if found else None
    if not found or family is None or (found[3] or "silu") not in ACTIVATIONS:
        raise ValueError(
            f"unknown architecture {architecture!r}; known: {', '.join(EXAMPLES)}, other sizes alike "
            "(-relu at the end for ReLU instead of SiLU)"
        )
    sizes = [int(size) for size in found[2].split("-")[1:]]
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator; leave it as it was
        try:
            model = family(
                *sizes, classes=len(info.classes), mean=info.mean, std=info.std, activation=found[3] or "silu"
            )
        except TypeError:
            raise ValueError(
                f"{architecture!r} has the wrong number of sizes; for example {', '.join(EXAMPLES)}"
            ) from None
    if rng is not None:
        initialise(model, rng)
    return model


def initialise(model: nn.Module, rng: Rng) -> None:
    """The official initialisation: truncated normal convolutions, a last layer of zeros.

    Convolutions: normal with std 1 / sqrt(fan_in), cut at two of them (which leaves 0.88 / sqrt(fan_in)), as
    Haiku's default. Linear layers: zeros, so that training starts from uniform predictions.
    """
    with rng.steering_torch() as generator:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                std = 1 / math.sqrt(module.weight[0].numel())
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
