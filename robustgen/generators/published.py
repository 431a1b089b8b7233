"""Published generators in their authors' own files, as generators of this package."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.generators import DDPMConfig
from robustgen.generators.biggan import BigGAN
from robustgen.generators.contracts import Generator
from robustgen.generators.ddpm import DDPM
from robustgen.generators.ddpm_files import holds_diffusers, load_diffusers
from robustgen.generators.ddpm_unet import groups_for
from robustgen.generators.diffusion import Diffusion
from robustgen.generators.edm_files import holds_edm, read_edm
from robustgen.generators.gan_files import holds_biggan, holds_stylegan2, read_biggan, read_stylegan2
from robustgen.generators.layouts import Layout
from robustgen.generators.stylegan2 import StyleGAN2
from robustgen.generators.vdvae import VDVAE
from robustgen.generators.vdvae_files import holds_vdvae, read_vdvae
from robustgen.images import DatasetInfo
from robustgen.modes import channels_last
from robustgen.randomness import rng_for
from robustgen.storage.torch_files import Inert, load_objects
from robustgen.storage.weights import assign_weights
from robustgen.units import show_names

KNOWN = (
    "NVIDIA's EDM and StyleGAN2-ADA (.pkl), openai/vdvae (.th), BigGAN-PyTorch of CIFAR (G_ema.pth), or a folder of "
    "diffusers' DDPM"
)
"""What can be opened, for messages."""

READERS: tuple[tuple[Callable[[object], bool], Callable[[Any, Path], Layout]], ...] = (
    (holds_edm, read_edm),
    (holds_stylegan2, read_stylegan2),
    (holds_vdvae, read_vdvae),
    (holds_biggan, read_biggan),
)
"""(whether a file's content has the layout, reads it)."""

PUBLISHED_KINDS: dict[str, type[Generator]] = {
    "edm": Diffusion,
    "ddpm": DDPM,
    "stylegan2": StyleGAN2,
    "vdvae": VDVAE,
    "biggan": BigGAN,
}


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
    found = _read(path)
    config, shape, classes = found.config, found.shape, found.classes
    if names and classes not in (0, len(names)):
        if strict:
            raise ValueError(f"{path} is conditioned on {classes} classes, the data has {len(names)}")
        names = ()
    blank = (0.0,) * shape[0]
    info = DatasetInfo(dataset, names or tuple(map(str, range(classes or 1))), shape, blank, blank)
    return Opened(_built(config, info, found.weights, path), config, info, found.name, classes > 0)


def _read(path: Path) -> Layout:
    if path.is_dir():
        if not holds_diffusers(path):
            raise ValueError(f"{path} holds no diffusers network; expected a generator: {KNOWN}")
        model, about = load_diffusers(path)
        config = DDPMConfig.model_validate(about["settings"])
        groups = getattr(model.network, "groups", None)
        if groups != groups_for(config.channels):
            raise ValueError(
                f"{path}: norm_num_groups is {groups}, expected {groups_for(config.channels)}; sample that folder"
            )
        classes = model.classes if config.conditional else 0
        return Layout("diffusers' DDPM", config, model.shape, classes, model.state_dict())
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        content = load_objects(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    for holds, read in READERS:
        if holds(content):
            return read(content, path)
    inside = f" with {show_names([str(key) for key in content])}" if isinstance(content, dict) else ""
    kind = content.origin if isinstance(content, Inert) else type(content).__name__
    raise ValueError(f"{path} holds a {kind}{inside}; expected a generator: {KNOWN}")


def _built(config: GeneratorConfig, info: DatasetInfo, weights: dict[str, Tensor], path: Path) -> Generator:
    """The model with these weights; sizes are compared before memory is taken for it."""
    kind = PUBLISHED_KINDS[config.kind]
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            assign_weights(kind.from_config(config, info, rng_for(0)), weights, path)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    model = kind.from_config(config, info, rng_for(0))
    assign_weights(model, weights, path)
    channels_last(model).eval()
    return model
