"""Checkpoints: states of named objects in one file, written atomically; loading runs no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from robustgen.storage.files import atomic_write, first_line
from robustgen.storage.torch_files import load_torch_file


class Stateful(Protocol):
    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any) -> Any: ...


def save_checkpoint(path: Path, place: Mapping[str, Any], **objects: Stateful) -> None:
    """Write the states of `objects` and the plain values of `place` (step, best so far ...)."""
    content = {"place": dict(place), "objects": {name: thing.state_dict() for name, thing in objects.items()}}
    with atomic_write(path) as file:
        torch.save(content, file)


def load_checkpoint(path: Path, **objects: Stateful) -> dict[str, Any] | None:
    """Load saved states into `objects` and return the plain values; None if there is no checkpoint.

    Raises:
        ValueError: the file is damaged, or holds other objects.
    """
    if not path.exists():
        return None
    try:
        content = load_torch_file(path)
        states = content["objects"]
        for name, thing in objects.items():
            thing.load_state_dict(states[name])
    except Exception as error:  # torch raises many kinds: zip, pickle, key and shape errors
        raise ValueError(
            f"checkpoint {path} cannot be used ({first_line(error)}); remove it to restart that stage"
        ) from error
    place: dict[str, Any] = content["place"]
    return place
