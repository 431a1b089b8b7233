"""The cost of a recipe in floating-point operations: generators, sampling and training, from its settings. No torch.

An operation is a multiplication or an addition. A forward and backward pass in training counts as three forward passes,
a gradient in the image only as two. The cost of a network comes from a formula or a table, else it is unknown (None).
Not counted: pseudo-labels (a forward pass per image), attacks of the evaluation, reading and writing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from robustgen.config.recipe import Arm, Recipe
from robustgen.config.training import TrainingConfig

RATE = 2.77e14
"""Operations per second of one H100-class device: 35 % of the 790e12 of its data sheet for bfloat16."""
ENTRIES = {
    "digits": (1, 8), "mnist": (1, 28), "cifar10": (3, 32), "cifar100": (3, 32), "svhn": (3, 32),
    "tiny-imagenet": (3, 64), "imagenet64": (3, 64), "celeba": (3, 64), "afhq": (3, 224),
}  # fmt: skip
"""Channels and side length in pixels."""
FORWARD = {
    "preact-resnet-18": 1.2115e9, "preact-resnet-34": 2.4195e9, "resnet-18": 1.1108e9, "resnet-50": 2.5957e9,
    "resnest-152": 8.4251e9, "rawrn-70-16": 120.935e9,
}  # fmt: skip
"""Operations of a forward pass of one 3x32x32 image, as counted by torch."""


@dataclass(frozen=True)
class Cost:
    """Operations of a recipe by purpose.

    fit     training the generators
    sample  sampling from them
    train   training the robust classifiers and the labeler
    """

    fit: float
    sample: float
    train: float

    @property
    def flops(self) -> float:
        return self.fit + self.sample + self.train

    @property
    def hours(self) -> float:
        """Hours on one device that sustains `RATE`."""
        return self.flops / RATE / 3600

    def __str__(self) -> str:
        return f"{self.flops:.1e} FLOPs, {_hours(self.hours)}"


def _hours(hours: float) -> str:
    if hours >= 1000:
        return f"{hours / 24:,.0f} days"
    if hours < 1:
        return f"{60 * hours:.0f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"
    return f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h"


def cost_of(recipe: Recipe) -> Cost | None:
    """Operations of a whole run; None if the cost for its dataset or a network is unknown."""
    entry = ENTRIES.get(recipe.data.name)
    if entry is None:
        return None
    channels, side = entry[0], recipe.data.resize or entry[1]
    used = {name for arm in recipe.arms.values() for name in arm.proxies} - set(recipe.published)
    generated = [_generated(recipe, name, side) for name in used]
    labeler = training(recipe.labeller, channels, side) if used or recipe.published else 0.0
    robust = [training(recipe.training(arm), channels, side, recipe.data.validation) for arm in recipe.arms]
    if labeler is None or None in generated or None in robust:
        return None
    fit, sample = (sum(one[kind] for one in generated if one) for kind in (0, 1))
    return Cost(fit, sample, labeler + sum(one for one in robust if one))


def cost_of_arm(recipe: Recipe, arm: Arm) -> Cost | None:
    """Operations of one arm trained alone: its generators, the labeler where there are any, its classifiers."""
    published = {name: files for name, files in recipe.published.items() if name in arm.proxies}
    return cost_of(recipe.model_copy(update={"arms": {"alone": arm}, "published": published}))


def _generated(recipe: Recipe, name: str, side: int) -> tuple[float, float] | None:
    """Operations of training a generator, and of sampling its images; None if not counted."""
    fitting = recipe.generators[name].fit_flops(side)
    sampling = recipe.generators[name].sample_flops(recipe.sampling.of(name), side)
    return None if fitting is None or sampling is None else (fitting, recipe.sampling.count * sampling)


def stage_hours(recipe: Recipe) -> dict[str, float]:
    """Hours on one device that sustains `RATE`, of the stages of a run whose operations are counted, by their names."""
    entry = ENTRIES.get(recipe.data.name)
    if entry is None:
        return {}
    channels, side = entry[0], recipe.data.resize or entry[1]
    flops: dict[str, float | None] = {"labeller": training(recipe.labeller, channels, side)}
    labeling = forward_of(recipe.labeller.architecture, channels, side)
    for name, generator in recipe.generators.items():
        sampling = generator.sample_flops(recipe.sampling.of(name), side)
        flops[f"fit {name}"] = generator.fit_flops(side)
        flops[f"sample {name}"] = None if sampling is None else recipe.sampling.count * sampling
        flops[f"label {name}"] = None if labeling is None else recipe.sampling.count * labeling
    for arm in recipe.arms:
        settings = recipe.training(arm)
        each = training(settings, channels, side, recipe.data.validation)
        for model in range(settings.models):
            flops[f"train {arm}-{model}"] = None if each is None else each / settings.models
        forward, certified = forward_of(settings.architecture, channels, side), recipe.certification
        if certified is not None and forward is not None and certified.images is not None:
            flops[f"certify {arm}"] = certified.images * (certified.selection + certified.samples) * forward
    return {name: count / RATE / 3600 for name, count in flops.items() if count is not None}


def training(settings: TrainingConfig, channels: int, side: int, validation: int = 0) -> float | None:
    """Operations of training and validating all models of an arm."""
    forward, each = forward_of(settings.architecture, channels, side), passes(settings)
    if forward is None or each is None:
        return None
    validated = (
        settings.validations * validation * (1 + 2 * settings.validation_steps) if settings.early_stopping else 0
    )
    return settings.models * forward * (each * settings.schedule.total_images + validated)


def passes(settings: TrainingConfig) -> float | None:
    """The cost of one training image in forward passes of the network; None where the loss has no count."""
    found = settings.loss.passes()
    return None if found is None else found + (6.0 if settings.awp else 0.0)


def forward_of(architecture: str, channels: int = 3, side: int = 32) -> float | None:
    """Operations of one image's forward pass: convolutions and the last layer for ten classes, as counted by torch.

    For a wide ResNet with n = (depth - 4) / 6 blocks per group, at full, half and quarter resolution:

        2 (9 c 16 S^2 + sum over groups of (9 i o + 9 o o + i o + (n - 1) 18 o o) s^2)
    """
    found = re.fullmatch(r"(trades-)?wrn-(\d+)-(\d+)((?:-[a-z]+\d?)*)", architecture)
    if found is None:
        base = re.sub(r"-(silu|relu|unnormalised)", "", architecture)
        return FORWARD[base] * (side / 32) ** 2 if base in FORWARD else None
    side = side // 2 if "stem2" in found[4] else side
    blocks, width = (int(found[2]) - 4) // 6, int(found[3])
    total, inputs = 9 * channels * 16 * side**2, 16
    for group, outputs in enumerate((16 * width, 32 * width, 64 * width)):
        here = (side // 2**group) ** 2
        shortcut = inputs * outputs if inputs != outputs else 0
        total += (9 * inputs * outputs + 9 * outputs**2 + shortcut + (blocks - 1) * 18 * outputs**2) * here
        inputs = outputs
    return 2.0 * (total + 10 * inputs)
