"""Comparison of all generators on the same handwritten digits: image quality, sampling speed, robustness gain."""

from __future__ import annotations

from typing import Any

from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.generators import (
    BigGANConfig,
    DDPMConfig,
    ECTConfig,
    EDMConfig,
    GaussianConfig,
    StyleGAN2Config,
    VDVAEConfig,
)
from robustgen.config.recipe import (
    Arm,
    DataConfig,
    EvaluationConfig,
    KeepConfig,
    MeasureConfig,
    Recipe,
    SamplingConfig,
    ThreatConfig,
)
from robustgen.config.sampler import SamplerConfig
from robustgen.recipes.digits import LABELLER, ROBUST_TRAINING

_UNET: dict[str, Any] = {"channels": 16, "multipliers": (1, 2), "blocks": 1, "attention": ()}
_SHORT: dict[str, Any] = {"batch_size": 128, "cooldown": 0.3}

ON_DIGITS: dict[str, GeneratorConfig] = {
    "gaussian": GaussianConfig(),
    "vdvae": VDVAEConfig(
        conditional=True, width=64, latents=8, encoder="8x3,8d2,4x2,4d4,1x2", decoder="1x1,4m1,4x2,8m4,8x3",
        components=3, total_images=500 * 64, batch_size=64, peak_lr=2e-3, warmup_images=100 * 64, cooldown=0.3,
        ema_half_life_share=0.05,
    ),
    "biggan": BigGANConfig(
        channels=24, latents=32, critic_steps=2, total_images=700 * 50, peak_lr=2e-3, ema_half_life_images=10_000,
    ),
    "stylegan2": StyleGAN2Config(
        channels=24, latents=32, class_mapping=1, r1=1, ada_images=20_000, total_images=1_000 * 32, batch_size=32,
        peak_lr=5e-3, ema_half_life_images=10_000,
    ),
    "ddpm": DDPMConfig(
        **_UNET, **_SHORT, conditional=True, dropout=0.1, total_images=800 * 128, peak_lr=2e-3,
        warmup_images=100 * 128, flip=False, ema_half_life_share=0.05,
    ),
    "edm": EDMConfig(
        **_UNET, **_SHORT, augment=0.0, dropout=0.1, total_images=800 * 128, peak_lr=2e-3, warmup_images=100 * 128,
    ),
    "ect": ECTConfig(
        **_UNET, **_SHORT, augment=0.0, dropout=0.0, base="edm", ratio=4, stages=4, total_images=400 * 128,
        peak_lr=1e-3,
    ),
}  # fmt: skip
"""Settings that train each generator on 8x8 digits in about a minute on one CPU core."""

DIGITS_GENERATORS = Recipe(
    name="digits-generators",
    summary="100 digits: image quality and robustness gain of every generator; 20 minutes on 2 CPU cores",
    data=DataConfig(name="digits", train=100, validation=250, test=797),
    threat=ThreatConfig(norm="linf", eps=0.2),
    labeller=LABELLER,
    generators=ON_DIGITS,
    sampling=SamplingConfig(
        count=10_000,
        solver="ipndm",
        evaluations=10,
        shard_images=2_500,
        special={
            "vdvae": SamplerConfig(temperature=0.8),
            "ddpm": SamplerConfig(solver="ddim", evaluations=20),
            "ect": SamplerConfig(evaluations=2),
        },
    ),
    keep=KeepConfig(rule="top-confidence", per_class=500),
    train=ROBUST_TRAINING.model_copy(update={"models": 1}),
    arms={"real": Arm(), **{name: Arm(proxy=name) for name in ON_DIGITS}},
    evaluation=EvaluationConfig(suite="swift", batch_size=256),
    measure=MeasureConfig(),
    analyses=("arc",),
)
