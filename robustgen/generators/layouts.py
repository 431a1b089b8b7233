"""What reading a published file yields, whatever its layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.parsing import explain


@dataclass(frozen=True)
class Layout:
    """Settings and weights of a generator that a file holds.

    name     whose file it is, in words
    shape    of its images, (C, H, W)
    classes  it is conditioned on; 0: unconditional
    weights  by this package's names
    """

    name: str
    config: GeneratorConfig
    shape: tuple[int, int, int]
    classes: int
    weights: dict[str, Tensor]


def settings_of(kind: type[GeneratorConfig], path: Path, **values: object) -> GeneratorConfig:
    """Validated settings that a file says. Raises ValueError, one line with the path."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None


def axis_size(weights: Mapping[str, Tensor], name: str, axis: int, path: Path) -> int:
    """The size of an axis of a tensor. Raises ValueError where there is no such tensor or axis."""
    if name not in weights or weights[name].ndim <= axis:
        raise ValueError(f"{path} has no {name} with {axis + 1} axes or more")
    return int(weights[name].shape[axis])
