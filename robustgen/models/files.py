"""Weights files of anybody's: read without running code, and put into a network that they must fit."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.storage.haiku import read_haiku

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema_state_dict")
"""Keys under which published checkpoints hide the weights."""
PREFIXES = ("module.", "_orig_mod.", "model.", "0.")
"""What DataParallel, compilation, RobustBench and a Sequential of one network put before every name."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from `.safetensors`, `.pt`, `.pth`, `.th`, JAX's `.npy`; no code is run, wrappers come off."""
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}")
    if path.suffix == ".npy":
        return read_haiku(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpicklers and parsers raise what they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged, or no file of weights alone ({reason})") from None
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds {type(content).__name__}, expected tensors by name")
    return dict(content)


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """The model with the weights of a file, which must fit exactly. Raises ValueError with what differs."""
    return put_weights(model, read_weights(path), path)


def put_weights(model: nn.Module, weights: dict[str, Tensor], path: Path, unused: tuple[str, ...] = ()) -> nn.Module:
    """The model with weights read from `path`, which must fit exactly.

    Prefixes that wrappers put before every name come off (PREFIXES), unless the model's own names have them. Counters
    of batches may be absent: files from before torch 0.4.1 have none.

    Args:
        unused: beginnings of names that the file has and the network never uses.

    Raises:
        ValueError: lists what is missing, what there is besides, and what has another shape.
    """
    own = model.state_dict()
    weights = _without_prefixes(weights, own.keys())
    if unused:
        weights = {name: value for name, value in weights.items() if not name.startswith(unused)}
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - weights.keys() - counters)
    unknown = sorted(weights.keys() - own.keys())
    shapes = [
        f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    problems = [
        f"it {what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("lacks", missing), ("has besides", unknown), ("differs in shape:", sorted(shapes)))
        if names
    ]
    if problems:
        raise ValueError(f"{path} does not fit this {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict({**{name: own[name] for name in counters}, **weights})
    return model


def _without_prefixes(weights: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    for _ in range(4):
        for prefix in PREFIXES:
            ours = any(name.startswith(prefix) for name in wanted)
            if weights and not ours and all(name.startswith(prefix) for name in weights):
                weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
