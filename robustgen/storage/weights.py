"""Weights files of this project and published ones: read and written without running code, loaded strictly."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robustgen.storage.files import Note, atomic_write, first_line
from robustgen.storage.haiku import read_haiku
from robustgen.storage.torch_files import Inert, load_tensors
from robustgen.units import show_names

WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "ema_state_dict", "last", "ema", "model_ema", "params_ema",
    "averaged", "params",
)  # fmt: skip
"""Keys of the weights in published checkpoints; the first that a file has is used."""
PREFIXES = ("module.", "_orig_mod.", "model.", "0.")
"""Prefixes of names from DataParallel, torch.compile, RobustBench and a Sequential of one network."""


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the model's state as safetensors; equal weights give equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    places: set[int] = set()
    for name, tensor in tensors.items():  # shared parameters are written under each of their names
        if tensor.data_ptr() in places:
            tensors[name] = tensor.clone()
        places.add(tensor.data_ptr())
    with atomic_write(path) as file:
        file.write(save(tensors))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from `.safetensors`, `.pt`, `.pth`, `.th`, or JAX's `.npy`, running no code of the file.

    The dictionaries around the weights in published checkpoints (WRAPPERS) are removed, with other objects in them; a
    warning says which weights were used if there are several. `FILE#KEY` selects the weights under KEY.

    Raises:
        ValueError: the file is missing, damaged, or holds no tensors by name.
    """
    key = ""
    if not path.is_file() and "#" in path.name:
        name, _, key = path.name.rpartition("#")
        path = path.with_name(name)
    if not path.is_file():
        raise ValueError(
            f"there is no weights file {path}; check the path, or whether the stage that writes it is done"
        )
    if path.suffix == ".npy":
        return read_haiku(path)
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
    except Exception as error:  # parsers and unpicklers raise many kinds of errors
        raise ValueError(f"{path} is damaged, or is not a file of weights only ({first_line(error)})") from None
    content = _unwrapped(content, path, key)
    found = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not found or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{path} holds no tensors by name; it has: {show_names(list(content)) or 'nothing'}")
    return found


def _unwrapped(content: Any, path: Path, key: str) -> dict[Any, Any]:
    """The dictionary that holds the weights."""
    while True:
        inner = content.tensors() if isinstance(content, Inert) else content
        if not isinstance(inner, dict):
            what = content.origin if isinstance(content, Inert) else type(content).__name__
            raise ValueError(f"{path} holds {what}, expected tensors by name")
        held = [name for name, value in inner.items() if isinstance(value, dict | Inert) and _tensors_in(value)]
        if key and key not in held:
            raise ValueError(f"{path} has no weights under {key!r}; it has them under: {show_names(held) or 'no key'}")
        wrappers = [name for name in WRAPPERS if name in held]
        chosen = key or (wrappers[0] if wrappers else "")
        if len(wrappers) > 1 and not key:
            others = show_names(wrappers[1:])
            message = f"{path}: took the weights under {chosen!r}; it also has {others} ({path}#KEY takes another)"
            warnings.warn(message, Note, stacklevel=4)
        if not chosen:
            return inner
        content, key = inner[chosen], ""


def _tensors_in(value: dict[Any, Any] | Inert) -> bool:
    inner = value.tensors() if isinstance(value, Inert) else value
    return any(isinstance(one, Tensor | dict | Inert) for one in (inner or {}).values())


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Return the model with the weights of a file, which must fit exactly (`assign_weights`)."""
    return assign_weights(model, read_weights(path), path)


def check_fits(
    model: nn.Module, weights: dict[str, Tensor], path: Path, unused: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The model's own counters of batches, and the weights by its names, where names and shapes fit exactly.

    Prefixes of wrappers (PREFIXES) are removed, unless the model's own names have them. Counters of batches may be
    missing: files from before torch 0.4.1 have none. The model may be on torch's device `meta`: its sizes are then
    compared before memory is allocated for it.

    Args:
        unused: prefixes of names in the file that the network never uses.

    Raises:
        ValueError: as `assign_weights`.
    """
    own = model.state_dict()
    weights = _without_prefixes(weights, own.keys())
    if unused:
        weights = {name: value for name, value in weights.items() if not name.startswith(unused)}
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    problems = [
        f"{what}: {show_names(sorted(names))}"
        for what, names in (
            ("missing", own.keys() - weights.keys() - counters),
            ("unknown", weights.keys() - own.keys()),
            ("other shapes", shapes),
        )
        if names
    ]
    if problems:
        raise ValueError(f"{path} does not fit this {type(model).__name__}: {'; '.join(problems)}")
    return {name: own[name] for name in counters}, weights


def assign_weights(model: nn.Module, weights: dict[str, Tensor], path: Path, unused: tuple[str, ...] = ()) -> nn.Module:
    """Return the model with weights that were read from `path`; names and shapes must fit exactly.

    Prefixes that wrappers put before every name (PREFIXES) are removed, unless the model's own names have them.
    Counters of batches may be absent: files from before torch 0.4.1 have none.

    Args:
        unused: prefixes of names that the file has and the network never uses.

    Raises:
        ValueError: lists missing names, unknown names, and shapes that differ.
    """
    counters, weights = check_fits(model, weights, path, unused)
    model.load_state_dict({**counters, **weights})
    return model


def _without_prefixes(weights: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    for _ in range(4):
        for prefix in PREFIXES:
            ours = any(name.startswith(prefix) for name in wanted)
            if weights and not ours and all(name.startswith(prefix) for name in weights):
                weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def weights_digest(model: nn.Module) -> str:
    """16 hexadecimal digits from a model's parameters and buffers, and their names."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
