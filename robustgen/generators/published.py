"""Published generators in their authors' own files, as generators of this package."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robustgen.config.generators import GeneratorConfig
from robustgen.generators.contracts import Generator
from robustgen.generators.diffusion import Diffusion
from robustgen.generators.edm_files import holds_edm, read_edm
from robustgen.images import DatasetInfo
from robustgen.modes import channels_last
from robustgen.randomness import rng_for
from robustgen.storage.torch_files import load_objects
from robustgen.storage.weights import assign_weights
from robustgen.units import show_names

KNOWN = "NVIDIA's EDM (.pkl)"
"""What can be opened, for messages."""


@dataclass(frozen=True)
class Opened:
    """A generator from a file.

    layout       whose file it is, in words
    info         classes and shape of its images; mean and deviation are not known
    conditional  whether it is conditioned on the class label
    """

    model: Generator
    config: GeneratorConfig
    info: DatasetInfo
    layout: str
    conditional: bool


def read_published(path: Path, names: tuple[str, ...] = (), dataset: str = "", strict: bool = True) -> Opened:
    """A published generator, in evaluation mode on the CPU. No code in the file is run.

    Args:
        names: of the classes; numbers where there are none. An unconditional generator takes any number of them.
        dataset: what it was trained on.
        strict: refuse another number of names than of classes; otherwise such classes get numbers.

    Raises:
        ValueError: not such a file, a layout that cannot be opened, or another number of classes; one line.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        content = load_objects(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not holds_edm(content):
        inside = f" with {show_names([str(key) for key in content])}" if isinstance(content, dict) else ""
        raise ValueError(f"{path} holds a {type(content).__name__}{inside}; expected a generator: {KNOWN}")
    config, shape, classes, weights = read_edm(content, path)
    if names and classes not in (0, len(names)):
        if strict:
            raise ValueError(f"{path} is conditioned on {classes} classes, the data has {len(names)}")
        names = ()
    blank = (0.0,) * shape[0]
    info = DatasetInfo(dataset, names or tuple(map(str, range(classes or 1))), shape, blank, blank)
    model = _built(config, info, weights, path)
    return Opened(model, config, info, f"NVIDIA's EDM, network {config.network}", classes > 0)


def _built(config: GeneratorConfig, info: DatasetInfo, weights: dict[str, Tensor], path: Path) -> Generator:
    """The model with these weights; sizes are compared before memory is taken for it."""
    kind = {"edm": Diffusion}[config.kind]
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            assign_weights(kind.from_config(config, info, rng_for(0)), weights, path)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    model = kind.from_config(config, info, rng_for(0))
    assign_weights(model, weights, path)
    channels_last(model).eval()
    return model
