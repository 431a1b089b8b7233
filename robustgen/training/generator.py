"""Training generative models that learn by steps: one driver, whatever a model's losses and networks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.config.generators import TrainedGeneratorConfig
from robustgen.contracts import Progress, silent
from robustgen.generators.contracts import LossTerm, Optimization, TrainingSpec
from robustgen.images import ImageSet, to_bytes, to_unit
from robustgen.modes import evaluating
from robustgen.randomness import Rng, rng_for
from robustgen.records.history import History
from robustgen.runtime import distributed
from robustgen.storage.files import atomic_write
from robustgen.training.averaging import WeightAverage, half_life_decay
from robustgen.training.loop import Holder, run_steps

MOST_SKIPPED = 100
"""So many steps left out in a row mean that nothing is learnt any more."""


def lr_share(seen: int, settings: TrainedGeneratorConfig) -> float:
    """Share of the peak learning rate when `seen` images have been: linear rise, level, linear fall to 0."""
    rise = min(1.0, (seen + settings.batch_size) / settings.warmup_images) if settings.warmup_images else 1.0
    left = settings.total_images - seen
    fall = settings.cooldown * settings.total_images
    return rise * (min(1.0, left / fall) if fall else 1.0)


def train_generator(
    model: nn.Module,
    images: ImageSet,
    settings: TrainedGeneratorConfig,
    folder: Path,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> nn.Module:
    """Train by the model's `training_spec`, resuming from `folder`; returns the averaged model in evaluation mode.

    Batches are drawn with replacement. Gradients that are not numbers are set to 0, infinite ones to +-1e5, as EDM
    does. Under torchrun each process takes its share of every batch, gradients are averaged, and the first process
    writes; batch norms see their own share alone. Leaves `history.npz` (step, each move's loss, steps skipped) and
    grids of samples in `folder`.

    Raises:
        Diverged: a loss is no longer a number (see `training.loop`).
        ValueError: a batch that the processes cannot share evenly.
    """
    rank, world = distributed.place()
    if settings.batch_size % world:
        raise ValueError(f"batch_size ({settings.batch_size}) must be a multiple of the {world} processes")
    mine = slice(rank * settings.batch_size // world, (rank + 1) * settings.batch_size // world)
    pixels, labels = images.pixels(device), images.targets(device)
    teacher: Any = model
    training_spec: TrainingSpec = teacher.training_spec(settings, rng_for(seed, "initialise lesson"))
    average = WeightAverage(model, training_spec.average_buffers)
    history = History()
    memory = Holder({"losses": {}, "skipped": 0, "skipped_in_a_row": 0})

    def made(term: LossTerm, rng: Rng, t: int) -> Tensor:
        """Make one move on a batch drawn at the place of `rng`; returns its loss."""
        index = rng.at("which").integers(len(images), (settings.batch_size,))[mine]
        own = rng if world == 1 else rng.at("process", rank)
        batch = to_unit(pixels[index])
        if settings.flip:
            mirrored = (own.at("flip").uniform((len(batch),)) < 0.5).view(-1, 1, 1, 1)
            batch = torch.where(mirrored, batch.flip(3), batch)
        batch = batch.contiguous(memory_format=torch.channels_last)
        optimization = training_spec.optimizations[term.optimization]
        for other in training_spec.optimizations.values():
            for parameter in other.parameters:
                parameter.requires_grad_(other is optimization)
        with own.at("layers").seeding_torch(), _autocast(settings, batch.device):
            value = term.loss(batch, labels[index], own, t / settings.steps)
        optimization.optimizer.zero_grad(set_to_none=True)
        value.backward()
        value = value.detach()
        distributed.mean_over_all([value])
        _scale_lr(optimization.optimizer, lr_share(t * settings.batch_size, settings))
        if _climb(optimization, value):
            memory.value["skipped_in_a_row"] = 0
        else:
            memory.value["skipped"] += 1
            memory.value["skipped_in_a_row"] += 1
        return value

    def step(t: int) -> Tensor:
        place = rng_for(seed, "fit", t, device=device)
        values: dict[str, Tensor] = {}
        for name, term in training_spec.loss_terms.items():
            if t % term.every == 0:
                for repeat in range(term.repeats):
                    # A step's first move draws at the step's own place, all others below it.
                    values[name] = made(term, place.at(name, repeat) if values else place, t)
        training_spec.after_step(settings.batch_size)
        average.update(model, _averaging_decay(settings, t))
        return _check_losses(values, training_spec, memory)

    def after(t: int, value: float) -> None:
        skipped = {"skipped": memory.value["skipped"]} if _may_skip(training_spec) else {}
        history.add(step=t + 1, **memory.value["losses"], **skipped)
        if rank == 0 and settings.previews and (t + 1) % math.ceil(settings.steps / settings.previews) == 0:
            save_grid(average.model, folder / "grids" / f"{t + 1:07d}.png", device)

    model.train()
    run_steps(
        step,
        settings.steps,
        checkpoint=folder / "checkpoint.pt",
        objects={
            "model": model,
            "average": average,
            "history": history,
            "memory": memory,
            **{
                f"optimiser {name}": optimization.optimizer
                for name, optimization in training_spec.optimizations.items()
            },
            **training_spec.extra_state,
        },
        after=after,
        unit_per_step=settings.batch_size,
        progress=progress,
        writes=rank == 0,
    )
    if rank == 0:
        history.save(folder / "history.npz")
    finished = average.model
    training_spec.finish(finished, rng_for(seed, "finish", device=device))
    return finished.eval()


def _autocast(settings: TrainedGeneratorConfig, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")


def _scale_lr(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set the learning rate to a share of what the optimiser was made with."""
    for group in optimizer.param_groups:
        group["lr"] = share * group.setdefault("initial_lr", group["lr"])


def _climb(optimization: Optimization, value: Tensor) -> bool:
    """Step along the gradients that are there, mended, averaged over processes and clipped; False where left out."""
    gradients = [parameter.grad for parameter in optimization.parameters if parameter.grad is not None]
    distributed.mean_over_all(gradients)
    if optimization.skip_above is not None:
        length = torch.nn.utils.get_total_norm(gradients)
        if not (torch.isfinite(value) and length <= optimization.skip_above):
            return False
    for gradient in gradients:
        torch.nan_to_num_(gradient, nan=0.0, posinf=1e5, neginf=-1e5)
    if optimization.clip is not None:
        torch.nn.utils.clip_grad_norm_(optimization.parameters, optimization.clip)
    optimization.optimizer.step()
    return True


def _averaging_decay(settings: TrainedGeneratorConfig, t: int) -> float:
    half_life = settings.ema_half_life_images
    if settings.ema_half_life_share is not None:
        half_life = min(half_life, settings.ema_half_life_share * (t + 1) * settings.batch_size)
    return half_life_decay(half_life, settings.batch_size)


def _may_skip(training_spec: TrainingSpec) -> bool:
    return any(optimization.skip_above is not None for optimization in training_spec.optimizations.values())


def _check_losses(values: dict[str, Tensor], training_spec: TrainingSpec, memory: Holder) -> Tensor:
    """Note the losses of a step; returns the one that a stop at NaN looks at.

    A loss that is no number stops the training, unless the step it would have made was left out: then only when
    many were left out in a row.
    """
    known = memory.value["losses"]
    bad = [value for value in values.values() if not math.isfinite(value)]
    known |= {name: float(value) for name, value in values.items() if math.isfinite(value)}
    patient = _may_skip(training_spec) and memory.value["skipped_in_a_row"] < MOST_SKIPPED
    if bad and not patient:
        return bad[0]
    return torch.tensor(next(iter(known.values()), 0.0))


@torch.no_grad()
def save_grid(model: nn.Module, path: Path, device: torch.device | str, rows: int = 4) -> None:
    """`rows` images of each class (of the first ten), a column a class, as a PNG; the same noise each time."""
    from PIL import Image

    painter: Any = model
    classes = min(painter.classes, 10)
    labels = torch.arange(rows * classes, device=device) % classes
    with evaluating(model):
        made = painter.sample(labels, rng_for(0, "grid", device=device).each(range(len(labels))))
    tiles = to_bytes(made).permute(0, 2, 3, 1).cpu().numpy()
    height, width, channels = tiles.shape[1:]
    sheet = tiles.reshape(rows, classes, height, width, channels).transpose(0, 2, 1, 3, 4)
    picture = Image.fromarray(np.squeeze(sheet.reshape(rows * height, classes * width, channels)))
    with atomic_write(path) as file:
        picture.save(file, format="png")
