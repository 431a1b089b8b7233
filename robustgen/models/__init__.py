"""Classifiers: images (N, C, H, W) in [0, 1] to logits (N, K), with normalization inside.

A name consists of a family, its sizes, and options: wrn-28-10, wrn-10-1-relu, preact-resnet-18. -relu, -silu and
-pssilu select the activation; -unnormalised omits normalization and -standardized normalizes each image by its own mean
and standard deviation, for weights trained so; -stem2 gives the stem of a wrn stride 2; -cosine makes the logits of a
trades-wrn cosines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustgen.images import DatasetInfo
from robustgen.models.foreign import Adapted, build_network
from robustgen.models.preact_resnet import PreActResNet
from robustgen.models.rawrn import RaWRN
from robustgen.models.resnest import ResNeSt
from robustgen.models.resnet import ResNet
from robustgen.models.rice_preact_resnet import RicePreActResNet, WongPreActResNet
from robustgen.models.robust_wide_resnet import WideResNetA, WideResNetR
from robustgen.models.trades_wide_resnet import TradesWideResNet
from robustgen.models.wide_resnet import ACTIVATIONS, CosineLinear, Standardize, WideResNet
from robustgen.randomness import Rng
from robustgen.storage.references import Reference

MODELS: dict[str, Callable[..., nn.Module]] = {
    "wrn": WideResNet,
    "trades-wrn": TradesWideResNet,
    "rawrn": RaWRN,
    "wrn-r": WideResNetR,
    "wrn-a": WideResNetA,
    "preact-resnet": PreActResNet,
    "rice-preact-resnet": RicePreActResNet,
    "wong-preact-resnet": WongPreActResNet,
    "resnet": ResNet,
    "resnest": ResNeSt,
}

EXAMPLES = {
    "wrn-10-1": "WideResNet, SiLU; 0.08 million parameters: for tests and digits",
    "wrn-16-2": "0.7 million",
    "wrn-28-10": "36 million: the smaller network of the papers",
    "wrn-28-10-stem2": "the same with a stem of stride 2, for 64x64 images",
    "wrn-34-10": "46 million",
    "wrn-34-20": "185 million",
    "wrn-70-16": "267 million: the larger network of the papers",
    "wrn-82-8": "79 million (Bartoldson et al. 2024)",
    "wrn-94-16": "366 million (Bartoldson et al. 2024)",
    "wrn-106-16": "415 million",
    "trades-wrn-28-10": "WideResNet of TRADES' code, ReLU; 36 million",
    "trades-wrn-34-10": "46 million",
    "trades-wrn-34-10-unnormalised": "the same without normalization, for the weights of Sehwag et al. 2021",
    "trades-wrn-34-20-cosine": "with the last layer of Pang et al. 2020, cosines; 185 million",
    "wrn-r-34": "WideResNet-34-R (Huang et al. 2021), ReLU; 68 million",
    "wrn-a-4": "WideResNet-A4 (Huang et al. 2022), SiLU; 147 million",
    "rawrn-70-16": "WideResNet with squeeze and excitation (Peng et al. 2023); 267 million",
    "preact-resnet-18": "pre-activation ResNet of the official code, SiLU; 13 million",
    "preact-resnet-34": "23 million",
    "rice-preact-resnet-18": "pre-activation ResNet of Rice et al. 2020, ReLU; 11 million",
    "wong-preact-resnet-18": "the same without a last batch norm (Wong et al. 2020); 11 million",
    "resnet-18": "ResNet with a stem for small images, ReLU; 11 million",
    "resnet-50": "24 million",
    "resnest-152": "split attention (ResNeSt), SiLU; 75 million",
}
"""Common names with a short description; other sizes are possible."""


def build_model(architecture: str, info: DatasetInfo, rng: Rng | None = None, source: Path | None = None) -> nn.Module:
    """Build a network by name for a dataset; weights are drawn from `rng` if it is given.

    Built-in networks are initialized by `initialize`. External ones (`foreign.Reference`) initialize themselves; they
    are wrapped in `Adapted`, which puts normalization in front of them.

    Args:
        source: a copy of the source file of a reference, to use in its place.

    Raises:
        ValueError: the name is unknown, the family has no such size, or an external network cannot be built.
    """
    reference = Reference.parse(architecture)
    if reference is not None:
        with rng.seeding_torch() if rng is not None else torch.random.fork_rng(devices=[]):
            return Adapted(build_network(reference, info, source), info.mean, info.std)
    found = re.fullmatch(r"([a-z-]+?)((?:-\d{1,4})+)((?:-[a-z]+\d?)*)", architecture)
    family = MODELS.get(found[1]) if found else None
    options = _options(found[3].split("-")[1:], info) if found else None
    if not found or family is None or options is None:
        raise ValueError(
            f"unknown architecture {architecture!r}; known: {', '.join(EXAMPLES)}, other sizes of these (append -relu "
            "or -silu for another activation), and external networks: FILE.py:NAME, PACKAGE.MODULE:NAME, timm:NAME, "
            "hf:FOLDER"
        )
    sizes = [int(size) for size in found[2].split("-")[1:]]
    standardized = options.pop("standardized", False)
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator; restore its state
        try:
            model = family(*sizes, classes=len(info.classes), **options)
        except TypeError:
            raise ValueError(
                f"{architecture!r} has the wrong number of sizes, or an option that its family lacks; examples: "
                f"{', '.join(EXAMPLES)}"
            ) from None
    if standardized:
        model.normalize = Standardize()
    if rng is not None:
        initialize(model, rng)
    return model


def _options(words: list[str], info: DatasetInfo) -> dict[str, Any] | None:
    """Constructor arguments for the options at the end of a name; None if an option is unknown."""
    options: dict[str, Any] = {"mean": info.mean, "std": info.std}
    for word in words:
        if word in ACTIVATIONS:
            options["activation"] = word
        elif word == "unnormalised":
            options |= {"mean": (0.0,) * len(info.mean), "std": (1.0,) * len(info.std)}
        elif word == "stem2":
            options["stem"] = 2
        elif word in ("standardized", "cosine"):
            options[word] = True
        else:
            return None
    return options


def initialize(model: nn.Module, rng: Rng) -> None:
    """Initialize a network like the official code: truncated normal convolutions, zero linear layers.

    Convolutions: normal with std 1 / sqrt(fan_in), truncated at two standard deviations (the result has a standard
    deviation of 0.88 / sqrt(fan_in)), which is Haiku's default; biases are zero. Linear layers are zero, so that
    training starts from uniform predictions; those that return cosines are normal.
    """
    with rng.seeding_torch() as generator:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                std = 1 / math.sqrt(module.weight[0].numel())
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, CosineLinear):
                nn.init.normal_(module.weight, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
