"""Generative models, by the `kind` that recipes use."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.generators import CustomConfig, generator_config
from robustgen.config.parsing import explain
from robustgen.config.sampler import SamplerConfig
from robustgen.generators.augmented import Augmented
from robustgen.generators.biggan import BigGAN
from robustgen.generators.consistency import ConsistencyModel
from robustgen.generators.contracts import Generator
from robustgen.generators.custom import GENERATOR_SOURCE, Custom, reference_of
from robustgen.generators.ddpm import DDPM
from robustgen.generators.ddpm_files import holds_diffusers, load_diffusers, save_diffusers, weights_of
from robustgen.generators.ddpm_unet import DDPMUNet
from robustgen.generators.diffusion import Diffusion
from robustgen.generators.gaussian import Gaussian
from robustgen.generators.stylegan2 import StyleGAN2
from robustgen.generators.unet import UNet
from robustgen.generators.vdvae import VDVAE
from robustgen.images import DatasetInfo, check_shape
from robustgen.modes import channels_last
from robustgen.randomness import Rng, rng_for
from robustgen.storage.files import Note, first_line, read_settings, write_json
from robustgen.storage.references import find_code, note_of_change
from robustgen.storage.weights import assign_weights, check_fits, load_weights, read_weights, save_weights

GENERATORS: dict[str, type[Generator]] = {
    "gaussian": Gaussian,
    "ddpm": DDPM,
    "edm": Diffusion,
    "ect": ConsistencyModel,
    "vdvae": VDVAE,
    "biggan": BigGAN,
    "stylegan2": StyleGAN2,
    "augmented": Augmented,
    "custom": Custom,
}


def build_generator(config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Generator:
    """The untrained generator of a recipe's settings; parameters are initialized from `rng`."""
    return GENERATORS[config.kind].from_config(config, info, rng)


def check_sampler(config: GeneratorConfig, sampler: SamplerConfig) -> None:
    """Try sampler settings on the generator with its smallest network, before anything is trained.

    Raises:
        ValueError: an unknown solver, or settings that the generator does not have or cannot honor; of a generator of
            the user's own, that its source names nothing.
    """
    if isinstance(config, CustomConfig):
        finished = finished_folder(config)
        if finished is None:
            find_code(reference_of(config))
            sampler.refuse("custom", *(SamplerConfig.model_fields.keys() - {"solver", "evaluations"}))
        else:
            check_sampler(generator_config(read_generator(finished)[1]["settings"]), sampler)
        return
    info = DatasetInfo("", ("0", "1"), (1, 8, 8), (0.0,), (1.0,))
    model = build_generator(config.model_copy(update=dict(config.SMALLEST_NETWORK)), info, rng_for(0))
    model.configure_sampler(sampler, Diffusion(nn.Identity(), model.shape, model.classes) if sampler.guide else None)


def finished_folder(config: CustomConfig) -> Path | None:
    """The folder of a finished generator, where a config's source is one."""
    folder = Path(config.source)
    return folder if folder.is_dir() else None


def save_generator(folder: Path, model: Generator, config: GeneratorConfig, info: DatasetInfo, **about: Any) -> None:
    """Weights first, `generator.json` last: where it exists the generator is complete."""
    save_weights(folder / "weights.safetensors", model)
    write_json(
        folder / "generator.json",
        {
            "settings": config.to_json(),
            "dataset": info.name,
            "classes": info.classes,
            "shape": info.shape,
            **model.buffer_sizes(),
            **about,
        },
    )


def weights_file(folder: Path) -> Path:
    """The file with the weights of a finished generator."""
    own = folder / "weights.safetensors"
    return weights_of(folder) if not own.exists() and holds_diffusers(folder) else own


def read_generator(folder: Path) -> tuple[Generator, dict[str, Any]]:
    """A finished generator in evaluation mode on the CPU, and the content of its `generator.json`.

    A DDPM may also be a folder of diffusers' (see `load_diffusers`).

    Raises:
        ValueError: unfinished, damaged, or weights that do not fit.
    """
    if not (folder / "generator.json").exists():
        if holds_diffusers(folder):
            found, said = load_diffusers(folder)
            channels_last(found).eval()
            return found, said
        raise ValueError(f"{folder} holds no finished generator (no generator.json)")
    about = read_settings(folder / "generator.json")
    try:
        config = generator_config(about.get("settings"))
        shape, classes = check_shape(about)
    except ValidationError as error:
        raise ValueError(f"{folder / 'generator.json'}: {explain(error, 'settings')}") from None
    except ValueError as error:
        raise ValueError(f"{folder / 'generator.json'}: {error}") from None
    blank = (0.0,) * shape[0]
    info, file = DatasetInfo(about["dataset"], classes, shape, blank, blank), folder / "weights.safetensors"
    if isinstance(config, CustomConfig):
        custom = _custom(config, info, folder)
        custom.resize(about)
        if custom.state_dict():
            load_weights(custom, file)
        return custom.eval(), about
    weights = read_weights(file)
    try:
        with torch.device("meta"):  # a network of other sizes is refused before there is room for it
            check_fits(_sized(config, info, about), weights, file)
    except (RuntimeError, TypeError, ArithmeticError) as error:
        raise ValueError(
            f"{folder / 'generator.json'}: no network can be built from these settings ({first_line(error)})"
        ) from None
    model = _sized(config, info, about)
    assign_weights(model, weights, file)
    channels_last(model).eval()
    return model, about


def _custom(config: CustomConfig, info: DatasetInfo, folder: Path) -> Custom:
    """A user's own generator, from the copy of its source in the finished folder."""
    kept = folder / GENERATOR_SOURCE
    if kept.exists() and (message := note_of_change(reference_of(config), kept)):
        warnings.warn(message, Note, stacklevel=4)
    return Custom.from_source(config, info, rng_for(0), kept if kept.exists() else None)


def _sized(config: GeneratorConfig, info: DatasetInfo, about: dict[str, Any]) -> Generator:
    model = build_generator(config, info, rng_for(0))
    model.resize(about)
    return model


def open_generator(
    folder: Path | str, device: torch.device | str = "cpu", sampler: SamplerConfig | None = None
) -> Generator:
    """A finished generator, ready to sample: `open_generator("runs/a/generators/edm").sample_images([0, 1], seed=0)`.

    Args:
        folder: of a generator made by `robustgen fit`, or of a DDPM in the layout of diffusers.
        device: where it runs.
        sampler: how it is sampled; by default as `robustgen sample` does without options. A guide must be configured
            by `configure_sampler` instead.

    Raises:
        ValueError: unfinished, damaged, or sampler settings that the generator does not have.
    """
    if sampler is not None and sampler.precision != "float32":
        raise ValueError(
            f"precision {sampler.precision} is for proxy sets only; in Python put torch.autocast around sample_images"
        )
    model, _ = read_generator(Path(folder))
    model.to(device).configure_sampler(sampler or SamplerConfig())
    return model


__all__ = [
    "DDPM",
    "GENERATORS",
    "VDVAE",
    "Augmented",
    "BigGAN",
    "Consistency",
    "Custom",
    "DDPMUNet",
    "Diffusion",
    "Gaussian",
    "Generator",
    "StyleGAN2",
    "UNet",
    "build_generator",
    "check_sampler",
    "load_diffusers",
    "open_generator",
    "read_generator",
    "save_diffusers",
    "save_generator",
    "weights_file",
]
