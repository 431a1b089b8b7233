"""Presets of each kind of generator, by training time: `robustgen fit KIND --preset NAME`.

smoke      a few steps on 8x8 images, seconds on a CPU: a test of the installation
cpu-tiny   one to two minutes on a CPU core, on 8x8 images: the settings of `robustgen run digits-generators`
gpu-20min  one H200-class device, on 32x32 images. Not measured: sized by FLOPs, for 35 % of its bfloat16 peak
gpu-60min  the same for 60 minutes
paper      the CIFAR-10 settings reported in the paper
"""

from __future__ import annotations

from typing import Any

from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.generators import (
    GENERATOR_CONFIGS,
    AugmentedConfig,
    BigGANConfig,
    DDPMConfig,
    ECTConfig,
    EDMConfig,
    GaussianConfig,
    StyleGAN2Config,
    VDVAEConfig,
)
from robustgen.recipes.digits_generators import ON_DIGITS

_SMOKE: dict[str, Any] = {"total_images": 200 * 64, "batch_size": 64, "cooldown": 0.3, "previews": 2}
_SMOKE_UNET: dict[str, Any] = {**_SMOKE, "channels": 16, "multipliers": (1, 2), "blocks": 1, "attention": ()}
_GPU: dict[str, Any] = {"batch_size": 1024, "cooldown": 0.3, "precision": "bfloat16"}
_SMALL_UNET: dict[str, Any] = {"channels": 64, "multipliers": (2, 2, 2), "blocks": 2}
_WIDE_UNET: dict[str, Any] = {"channels": 128, "multipliers": (1, 2, 2), "blocks": 2}

PRESETS: dict[str, dict[str, GeneratorConfig]] = {
    "gaussian": dict.fromkeys(("smoke", "cpu-tiny", "gpu-20min", "gpu-60min", "paper"), GaussianConfig()),
    "ddpm": {
        "smoke": DDPMConfig(**_SMOKE_UNET, conditional=True, flip=False, peak_lr=2e-3, warmup_images=50 * 64),
        "cpu-tiny": ON_DIGITS["ddpm"],
        "gpu-20min": DDPMConfig(
            **_GPU, channels=64, conditional=True, total_images=16_384 * 1024, peak_lr=1e-3, warmup_images=500 * 1024,
            ema_half_life_share=0.05,
        ),
        "gpu-60min": DDPMConfig(
            **_GPU, conditional=True, total_images=20_480 * 1024, peak_lr=5e-4, warmup_images=500 * 1024,
            ema_half_life_share=0.05,
        ),
        "paper": DDPMConfig(),
    },
    "edm": {
        "smoke": EDMConfig(**_SMOKE_UNET, augment=0.0, peak_lr=2e-3, warmup_images=50 * 64),
        "cpu-tiny": ON_DIGITS["edm"],
        "gpu-20min": EDMConfig(
            **_SMALL_UNET, **_GPU, augment=0.0, flip=True, total_images=16_384 * 1024, warmup_images=500 * 1024,
        ),
        "gpu-60min": EDMConfig(
            **_WIDE_UNET, **_GPU, augment=0.0, flip=True, total_images=23_552 * 1024, warmup_images=500 * 1024,
        ),
        "paper": EDMConfig(),
    },
    "ect": {
        "smoke": ECTConfig(**_SMOKE_UNET, augment=0.0, dropout=0.0, ratio=4, stages=4, peak_lr=1e-3),
        "cpu-tiny": ON_DIGITS["ect"],
        "gpu-20min": ECTConfig(
            **_SMALL_UNET, **_GPU, augment=0.0, flip=True, ratio=4, stages=4, total_images=8_192 * 1024, peak_lr=3e-4,
        ),
        "gpu-60min": ECTConfig(
            **_WIDE_UNET, **_GPU, augment=0.0, flip=True, ratio=4, stages=4, total_images=14_336 * 1024, peak_lr=3e-4,
        ),
        "paper": ECTConfig(),
    },
    "vdvae": {
        "smoke": VDVAEConfig(
            **_SMOKE, conditional=True, width=32, latents=4, encoder="8x1,8d2,4d4,1x1", decoder="1x1,4m1,8m4,8x1",
            components=3, peak_lr=3e-3, ema_half_life_share=0.05,
        ),
        "cpu-tiny": ON_DIGITS["vdvae"],
        "gpu-20min": VDVAEConfig(
            conditional=True, width=192, total_images=24_576 * 256, batch_size=256, peak_lr=5e-4,
            warmup_images=100 * 256, cooldown=0.3, precision="bfloat16", ema_half_life_share=0.05,
        ),
        "gpu-60min": VDVAEConfig(
            conditional=True, total_images=24_576 * 256, batch_size=256, peak_lr=5e-4, warmup_images=100 * 256,
            cooldown=0.3, precision="bfloat16", ema_half_life_share=0.05,
        ),
        "paper": VDVAEConfig(),
    },
    "biggan": {
        "smoke": BigGANConfig(
            **_SMOKE, channels=16, latents=16, critic_steps=1, peak_lr=2e-3, ema_half_life_images=5_000,
        ),
        "cpu-tiny": ON_DIGITS["biggan"],
        "gpu-20min": BigGANConfig(total_images=15_360 * 256, batch_size=256, precision="bfloat16"),
        "gpu-60min": BigGANConfig(total_images=40_960 * 256, batch_size=256, precision="bfloat16"),
        "paper": BigGANConfig(),
    },
    "stylegan2": {
        "smoke": StyleGAN2Config(
            **_SMOKE, channels=16, latents=16, class_mapping=1, r1=0.1, ada_images=30_000, ema_half_life_images=5_000,
        ),
        "cpu-tiny": ON_DIGITS["stylegan2"],
        "gpu-20min": StyleGAN2Config(channels=256, total_images=32_768 * 256, batch_size=256, precision="bfloat16"),
        "gpu-60min": StyleGAN2Config(total_images=32_768 * 256, batch_size=256, precision="bfloat16"),
        "paper": StyleGAN2Config(),
    },
    "augmented": dict.fromkeys(("smoke", "cpu-tiny", "gpu-20min", "gpu-60min", "paper"), AugmentedConfig()),
}  # fmt: skip


def find_preset(kind: str, name: str) -> GeneratorConfig:
    """Find a preset. Raises ValueError for an unknown kind or preset, and lists the known ones."""
    if kind not in GENERATOR_CONFIGS:
        raise ValueError(f"unknown kind of generator {kind!r}; known: {', '.join(GENERATOR_CONFIGS)}")
    presets = PRESETS.get(kind, {})
    if name not in presets:
        raise ValueError(f"unknown preset {name!r} of {kind}; known: {', '.join(presets) or 'none'}")
    return presets[name]
