"""DDPMs in the folder layout of diffusers: the config and weights of a `UNet2DModel`, and a scheduler's config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from robustgen.config.generators import DDPMConfig
from robustgen.config.parsing import explain
from robustgen.generators.ddpm import DDPM
from robustgen.generators.ddpm_unet import DDPMUNet
from robustgen.storage.files import first_line, read_settings, write_json
from robustgen.storage.weights import assign_weights, check_fits, read_weights, save_weights
from robustgen.units import show_value

_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Names in files from before diffusers 0.15 (google/ddpm-cifar10-32), and since then."""

_LARGEST = 1 << 20
"""Channels, pixels of a side or classes; a file that says more is damaged."""
SCHEDULES = {"linear": "linear", "squaredcos_cap_v2": "cosine"}

NETWORK: dict[str, tuple[Any, Any]] = {
    "act_fn": ("silu", "silu"),
    "add_attention": (True, True),
    "attention_head_dim": (8, None),
    "attn_norm_num_groups": (None, None),
    "center_input_sample": (False, False),
    "class_embed_type": (None, None),
    "downsample_padding": (1, 0),
    "downsample_type": ("conv", "conv"),
    "flip_sin_to_cos": (True, False),
    "freq_shift": (0, 1),
    "mid_block_scale_factor": (1, 1),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D"),
    "norm_eps": (1e-5, 1e-6),
    "resnet_time_scale_shift": ("default", "default"),
    "time_embedding_dim": (None, None),
    "time_embedding_type": ("positional", "positional"),
    "upsample_type": ("conv", "conv"),
}
"""Settings of a `UNet2DModel`: what they are where a file does not say, and what they are for DDPM."""

SCHEDULER: dict[str, tuple[Any, Any]] = {
    "beta_start": (1e-4, 1e-4),
    "beta_end": (0.02, 0.02),
    "clip_sample": (True, True),
    "clip_sample_range": (1.0, 1.0),
    "prediction_type": ("epsilon", "epsilon"),
    "rescale_betas_zero_snr": (False, False),
    "thresholding": (False, False),
    "trained_betas": (None, None),
}
"""The same for a scheduler. (`variance_type` is not read: `solver` chooses it when images are sampled.)"""


def holds_diffusers(folder: Path) -> bool:
    """Whether a folder is a diffusers pipeline with a `unet`, or such a model next to its scheduler."""
    return _network_folder(folder) is not None


def _network_folder(folder: Path) -> Path | None:
    if (folder / "unet" / "config.json").exists():
        return folder / "unet"
    flat = folder / "config.json"
    return folder if flat.exists() and read_settings(flat).get("_class_name") == "UNet2DModel" else None


def weights_of(folder: Path) -> Path:
    """The file of a diffusers folder that holds the network's weights."""
    inner = _network_folder(folder)
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"):
        if inner is not None and (inner / name).exists():
            return inner / name
    raise ValueError(f"{folder} holds no diffusion_pytorch_model.safetensors; download the whole repository")


def load_diffusers(folder: Path) -> tuple[DDPM, dict[str, Any]]:
    """The DDPM of a diffusers folder, and a description of it as in `generator.json`.

    Classes are named by number: `num_class_embeds` of them, or one where the model is unconditional.

    Raises:
        ValueError: a damaged folder, another model than DDPM, or other layers; names the setting, its value and
            the value that can be read.
    """
    inner = _network_folder(folder)
    if inner is None:
        raise ValueError(f"{folder} holds no diffusers network (no unet/config.json)")
    config = read_settings(inner / "config.json")
    _require(inner / "config.json", config, NETWORK)
    scheduler_file = _scheduler_file(folder)
    scheduler = read_settings(scheduler_file)
    _require(scheduler_file, scheduler, SCHEDULER)
    schedule = scheduler.get("beta_schedule", "linear")
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        raise ValueError(f"{scheduler_file}: beta_schedule is {show_value(schedule)}; known: {', '.join(SCHEDULES)}")
    settings, shape, classes = _settings(inner / "config.json", config, SCHEDULES[schedule], scheduler)
    groups, file = config.get("norm_num_groups", 32), weights_of(folder)
    weights = _read(file)
    try:
        with torch.device("meta"):  # a network of other sizes is refused before there is room for it
            check_fits(DDPMUNet.from_config(settings, shape, classes, groups=groups), weights, file)
    except (RuntimeError, TypeError, ArithmeticError) as error:
        raise ValueError(
            f"{inner / 'config.json'}: no network can be built from these settings ({first_line(error)})"
        ) from None
    network = DDPMUNet.from_config(settings, shape, classes, groups=groups)
    assign_weights(network, weights, file)
    model = DDPM.around(network, settings, shape, classes)
    about = {
        "settings": settings.to_json(),
        "dataset": folder.name,
        "classes": [str(k) for k in range(classes)],
        "shape": list(shape),
    }
    return model, about


def _settings(
    path: Path, config: dict[str, Any], betas: Any, scheduler: dict[str, Any]
) -> tuple[DDPMConfig, tuple[int, int, int], int]:
    """A diffusers config as `DDPMConfig`, the shape of images, and the number of classes."""
    try:
        widths, kinds = config["block_out_channels"], config["down_block_types"]
        size, colors = config["sample_size"], config["in_channels"]
    except KeyError as error:
        raise ValueError(f"{path} does not say {error}") from None
    sides = [size, size] if isinstance(size, int) else size
    classes = config.get("num_class_embeds")
    numbers = {
        "sample_size": sides,
        "block_out_channels": widths,
        "in_channels": [colors],
        "num_class_embeds": [classes or 1],
        "norm_num_groups": [config.get("norm_num_groups", 32)],
    }
    for name, values in numbers.items():
        whole = isinstance(values, list) and 0 < len(values) <= 16
        if not whole or not all(type(value) is int and 0 < value <= _LARGEST for value in values):
            came = show_value(config.get(name))
            raise ValueError(f"{path}: {name} must be whole numbers in 1..{_LARGEST}, got {came}")
    if len(sides) != 2 or not isinstance(kinds, list) or len(kinds) != len(widths):
        raise ValueError(f"{path}: sample_size must be a side or two, down_block_types as many as block_out_channels")
    height, width = sides
    attends = [kind == "AttnDownBlock2D" for kind in kinds]
    wanted = {
        "down_block_types": [_kind("Down", attending) for attending in attends],
        "up_block_types": [_kind("Up", attending) for attending in reversed(attends)],
        "out_channels": colors,
    }
    for name, value in wanted.items():
        if config.get(name) != value:
            raise ValueError(f"{path}: {name} is {show_value(config.get(name))}; only {value} can be read")
    if any(w % widths[0] for w in widths):
        raise ValueError(f"{path}: block_out_channels is {widths}; only multiples of the first can be read")
    settings = _checked(
        path,
        channels=widths[0],
        multipliers=tuple(w // widths[0] for w in widths),
        blocks=config.get("layers_per_block", 2),
        attention=tuple(height >> level for level, attending in enumerate(attends) if attending),
        dropout=config.get("dropout", 0.0),
        conditional=classes is not None,
        timesteps=scheduler.get("num_train_timesteps", 1000),
        betas=betas,
    )
    return settings, (colors, height, width), classes or 1


def _checked(path: Path, **settings: Any) -> DDPMConfig:
    try:
        return DDPMConfig(**settings)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None


def _kind(direction: str, attends: bool) -> str:
    return f"{'Attn' if attends else ''}{direction}Block2D"


def _require(path: Path, config: dict[str, Any], wanted: dict[str, tuple[Any, Any]]) -> None:
    for name, (default, value) in wanted.items():
        found = config.get(name, default)
        if found != value:
            raise ValueError(f"{path}: {name} is {show_value(found)}; only {value!r} can be read")


def _scheduler_file(folder: Path) -> Path:
    for path in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if path.exists():
            return path
    raise ValueError(f"{folder} holds no scheduler_config.json, which says the noise schedule; put it there")


def _read(path: Path) -> dict[str, Tensor]:
    return {_today(name): tensor for name, tensor in read_weights(path).items()}


def _today(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def save_diffusers(folder: Path, model: DDPM) -> None:
    """Write a DDPM as a diffusers pipeline: `DDPMPipeline.from_pretrained(folder)` opens it.

    The layer names are diffusers' own. Its pipeline does not pass class labels on; the network of a conditional model
    takes them as `class_labels`.
    """
    network = model.network
    assert isinstance(network, DDPMUNet)
    colors, height, width = model.shape
    config = {
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.30.0",
        **{name: value for name, (_, value) in NETWORK.items()},
        "sample_size": height if height == width else [height, width],
        "in_channels": colors,
        "out_channels": colors,
        "block_out_channels": [network.channels * multiplier for multiplier in network.multipliers],
        "layers_per_block": network.blocks,
        "down_block_types": [_kind("Down", attends) for attends in network.attends],
        "up_block_types": [_kind("Up", attends) for attends in reversed(network.attends)],
        "norm_num_groups": network.groups,
        "dropout": network.dropout,
        "num_class_embeds": model.classes if model.conditional else None,
    }
    scheduler = {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.30.0",
        **{name: value for name, (_, value) in SCHEDULER.items()},
        "num_train_timesteps": model.timesteps,
        "beta_schedule": {ours: theirs for theirs, ours in SCHEDULES.items()}[model.betas],
        "variance_type": "fixed_large",
    }
    save_weights(folder / "unet" / "diffusion_pytorch_model.safetensors", network)
    write_json(folder / "unet" / "config.json", config)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "DDPMPipeline",
            "_diffusers_version": "0.30.0",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
    )
