"""Training generators that learn by steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.contracts import Progress, silent
from robustgen.images import ImageSet, to_unit
from robustgen.randomness import rng_for
from robustgen.recipe import DiffusionFit
from robustgen.records import History
from robustgen.training.averaging import WeightAverage, half_life_decay
from robustgen.training.loop import run_steps, set_lr


def lr_share(seen: int, settings: DiffusionFit) -> float:
    """Share of the peak learning rate when `seen` images have been: linear rise, level, linear fall to 0."""
    rise = min(1.0, (seen + settings.batch_size) / settings.warmup_images) if settings.warmup_images else 1.0
    left = settings.total_images - seen
    fall = settings.cooldown * settings.total_images
    return rise * (min(1.0, left / fall) if fall else 1.0)


def train_generator(
    model: nn.Module,
    images: ImageSet,
    settings: DiffusionFit,
    folder: Path,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> nn.Module:
    """Train by Adam, resuming from `folder`; returns the averaged model in evaluation mode.

    `model.loss(images, labels, rng)` is what it learns by. Batches are drawn with replacement.
    Gradients that are not numbers are set to 0, infinite ones to +-1e5, as EDM does. Leaves `history.npz` (step,
    loss) in `folder`.

    Raises:
        Diverged: the loss is no longer a number.
    """
    learner: Any = model
    pixels, labels = images.pixels(device), images.targets(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.peak_lr)
    average = WeightAverage(model)
    history = History()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def step(t: int) -> Tensor:
        rng = rng_for(seed, "fit", t, device=device)
        index = rng.at("which").integers(len(images), (settings.batch_size,))
        batch = to_unit(pixels[index]).contiguous(memory_format=torch.channels_last)
        set_lr(optimiser, settings.peak_lr * lr_share(t * settings.batch_size, settings))
        with rng.at("layers").steering_torch():
            value: Tensor = learner.loss(batch, labels[index], rng)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        for parameter in parameters:
            if parameter.grad is not None:
                torch.nan_to_num_(parameter.grad, nan=0.0, posinf=1e5, neginf=-1e5)
        optimiser.step()
        seen = (t + 1) * settings.batch_size
        half_life = min(500_000.0, settings.averaging_share * seen)
        average.update(model, half_life_decay(half_life, settings.batch_size))
        return value

    def after(t: int, value: float) -> None:
        assert math.isfinite(value)
        history.add(step=t + 1, loss=value)

    model.train()
    run_steps(
        step,
        settings.steps,
        checkpoint=folder / "checkpoint.pt",
        objects={"model": model, "average": average, "optimiser": optimiser, "history": history},
        after=after,
        unit_per_step=settings.batch_size,
        progress=progress,
    )
    history.save(folder / "history.npz")
    return average.model.eval()
