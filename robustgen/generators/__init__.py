"""Generative models, by the `kind` that recipes use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from robustgen.config.generators import (
    AugmentedConfig,
    BigGANConfig,
    DDPMConfig,
    ECTConfig,
    EDMConfig,
    GaussianConfig,
    Generator,
    StyleGAN2Config,
    VDVAEConfig,
)
from robustgen.config.parsing import explain
from robustgen.generators.augmented import Augmented
from robustgen.generators.biggan import BigGAN
from robustgen.generators.consistency import Consistency
from robustgen.generators.ddpm import DDPM
from robustgen.generators.ddpm_files import holds_diffusers, load_diffusers, save_diffusers, weights_of
from robustgen.generators.ddpm_unet import DDPMUNet
from robustgen.generators.diffusion import Diffusion
from robustgen.generators.gaussian import Gaussian
from robustgen.generators.stylegan2 import StyleGAN2
from robustgen.generators.unet import UNet
from robustgen.generators.vdvae import VDVAE
from robustgen.images import DatasetInfo
from robustgen.modes import channels_last
from robustgen.randomness import Rng, rng_for
from robustgen.storage.files import read_json, write_json
from robustgen.storage.weights import load_weights, save_weights

Model = Gaussian | Augmented | Diffusion | VDVAE | BigGAN | StyleGAN2
"""What the members are; each is a torch module that behaves as `contracts.GenerativeModel`."""


def _gaussian(settings: GaussianConfig, info: DatasetInfo, rng: Rng) -> Gaussian:
    return Gaussian(info.shape, len(info.classes))


def _augmented(settings: AugmentedConfig, info: DatasetInfo, rng: Rng) -> Augmented:
    return Augmented(info.shape, len(info.classes), settings.augment)


def _unet(settings: EDMConfig | ECTConfig, info: DatasetInfo, rng: Rng) -> UNet:
    with rng.seeding_torch():
        return UNet(
            info.shape,
            len(info.classes),
            channels=settings.channels,
            multipliers=settings.multipliers,
            blocks=settings.blocks,
            attention=settings.attention,
            dropout=settings.dropout,
            augmented=settings.augment > 0,
        )


def _edm(settings: EDMConfig, info: DatasetInfo, rng: Rng) -> Diffusion:
    return Diffusion(
        _unet(settings, info, rng),
        info.shape,
        len(info.classes),
        log_mean=settings.log_mean,
        log_std=settings.log_std,
        label_dropout=settings.label_dropout,
        augment=settings.augment,
        min_snr=settings.min_snr,
    )


def _ect(settings: ECTConfig, info: DatasetInfo, rng: Rng) -> Consistency:
    return Consistency(
        _unet(settings, info, rng),
        info.shape,
        len(info.classes),
        log_mean=settings.log_mean,
        log_std=settings.log_std,
        label_dropout=settings.label_dropout,
    )


def _ddpm(settings: DDPMConfig, info: DatasetInfo, rng: Rng) -> DDPM:
    with rng.seeding_torch():
        network = DDPMUNet(
            info.shape,
            len(info.classes) if settings.conditional else 0,
            channels=settings.channels,
            multipliers=settings.multipliers,
            blocks=settings.blocks,
            attention=settings.attention,
            dropout=settings.dropout,
        )
    return DDPM(
        network,
        info.shape,
        len(info.classes),
        conditional=settings.conditional,
        timesteps=settings.timesteps,
        betas=settings.betas,
        label_dropout=settings.label_dropout,
    )


def _vdvae(settings: VDVAEConfig, info: DatasetInfo, rng: Rng) -> VDVAE:
    with rng.seeding_torch():
        return VDVAE(info.shape, len(info.classes), settings)


def _biggan(settings: BigGANConfig, info: DatasetInfo, rng: Rng) -> BigGAN:
    with rng.seeding_torch():
        return BigGAN(info.shape, len(info.classes), channels=settings.channels, latents=settings.latents)


def _stylegan2(settings: StyleGAN2Config, info: DatasetInfo, rng: Rng) -> StyleGAN2:
    with rng.seeding_torch():
        return StyleGAN2(
            info.shape,
            len(info.classes),
            channels=settings.channels,
            latents=settings.latents,
            mapping=settings.mapping,
        )


GENERATORS: dict[str, Callable[[Any, DatasetInfo, Rng], Model]] = {
    "gaussian": _gaussian,
    "ddpm": _ddpm,
    "edm": _edm,
    "ect": _ect,
    "vdvae": _vdvae,
    "biggan": _biggan,
    "stylegan2": _stylegan2,
    "augmented": _augmented,
}


def build_generator(settings: Generator, info: DatasetInfo, rng: Rng) -> Model:
    """An untrained generator of a recipe's settings; parameters are drawn from `rng`."""
    return GENERATORS[settings.kind](settings, info, rng)


def save_generator(folder: Path, model: Model, settings: Generator, info: DatasetInfo, **about: Any) -> None:
    """Weights first, `generator.json` last: where it exists the generator is complete."""
    save_weights(folder / "weights.safetensors", model)
    write_json(
        folder / "generator.json",
        {
            "settings": settings.to_json(),
            "dataset": info.name,
            "classes": info.classes,
            "shape": info.shape,
            "rank": getattr(model, "rank", None),
            "held": getattr(model, "held", None),
            **about,
        },
    )


def weights_file(folder: Path) -> Path:
    """Where a finished generator's weights lie."""
    own = folder / "weights.safetensors"
    return weights_of(folder) if not own.exists() and holds_diffusers(folder) else own


def load_generator(folder: Path) -> tuple[Model, dict[str, Any]]:
    """A finished generator in evaluation mode on the CPU, and what its `generator.json` says.

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
    about = read_json(folder / "generator.json")
    try:
        settings: Generator = TypeAdapter(Generator).validate_python(about["settings"])
    except ValidationError as error:
        raise ValueError(f"{folder / 'generator.json'}: {explain(error, 'settings')}") from None
    channels, height, width = about["shape"]
    blank = (0.0,) * channels
    info = DatasetInfo(about["dataset"], tuple(about["classes"]), (channels, height, width), blank, blank)
    model = build_generator(settings, info, rng_for(0))
    if isinstance(model, Gaussian):
        model = Gaussian(info.shape, len(info.classes), about["rank"])
    elif isinstance(settings, AugmentedConfig):
        model = Augmented(info.shape, len(info.classes), settings.augment, about["held"])
    load_weights(model, folder / "weights.safetensors")
    channels_last(model).eval()
    return model, about


__all__ = [
    "DDPM",
    "GENERATORS",
    "VDVAE",
    "Augmented",
    "BigGAN",
    "Consistency",
    "DDPMUNet",
    "Diffusion",
    "Gaussian",
    "Model",
    "StyleGAN2",
    "UNet",
    "build_generator",
    "load_diffusers",
    "load_generator",
    "save_diffusers",
    "save_generator",
    "weights_file",
]
