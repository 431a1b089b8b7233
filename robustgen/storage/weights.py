"""Weights files: written and read without running code, loaded strictly."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robustgen.storage.files import atomic_write


def save_weights(path: Path, model: nn.Module) -> None:
    """The model's state as safetensors; equal weights give equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(path) as file:
        file.write(save(tensors))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Raises ValueError when the file is missing or damaged."""
    if not path.exists():
        raise ValueError(f"there is no weights file {path}; has that stage finished?")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"weights file {path} is damaged ({_first_line(error)})") from error


def load_weights(path: Path, model: nn.Module) -> None:
    """Strict: raises ValueError that lists what is missing, unknown or of another shape."""
    fit_weights(path, read_weights(path), model)


def fit_weights(path: Path, found: dict[str, Tensor], model: nn.Module) -> None:
    """`load_weights` for tensors that were read from the file already."""
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - found.keys())
    unknown = sorted(found.keys() - wanted.keys())
    shapes = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name].shape != wanted[name].shape
    ]
    problems = [
        *([f"missing: {_some(missing)}"] if missing else []),
        *([f"unknown: {_some(unknown)}"] if unknown else []),
        *([f"other shapes: {_some(shapes)}"] if shapes else []),
    ]
    if problems:
        raise ValueError(f"{path} does not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(found)


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def weights_digest(model: nn.Module) -> str:
    """16 hexadecimal digits from a model's parameters and buffers, and their names."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
