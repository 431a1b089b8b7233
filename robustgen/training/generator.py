"""Training of generative models by gradient steps: one loop for all losses and networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.config.generator_base import TrainedGeneratorConfig
from robustgen.contracts import Progress, silent
from robustgen.generators.contracts import LossTerm, Optimization, TrainingSpec
from robustgen.images import ImageSet, to_bytes, to_unit
from robustgen.modes import evaluating
from robustgen.randomness import Rng, rng_for
from robustgen.records.history import History
from robustgen.runtime import distributed
from robustgen.runtime.precision import autocast, choose_precision
from robustgen.storage.checkpoints import Stateful
from robustgen.storage.files import atomic_write
from robustgen.training.ema import EMA, half_life_decay
from robustgen.training.loop import Holder, Loop

MOST_SKIPPED = 100
"""After this many skipped steps in a row the training has diverged."""


def lr_share(seen: int, settings: TrainedGeneratorConfig) -> float:
    """Fraction of the peak learning rate after `seen` images: linear rise, constant, linear fall to 0."""
    rise = min(1.0, (seen + settings.batch_size) / settings.warmup_images) if settings.warmup_images else 1.0
    left = settings.total_images - seen
    fall = settings.cooldown * settings.total_images
    return rise * (min(1.0, left / fall) if fall else 1.0)


@dataclass(frozen=True)
class GeneratorState:
    """What the training of a generative model changes; a checkpoint holds all of it.

    history  step, the loss of every term and, where steps may be skipped, how many were
    memory   the last loss of every term, and how many steps were skipped: in all, and in a row
    """

    model: nn.Module
    spec: TrainingSpec
    ema: EMA
    history: History
    memory: Holder

    @classmethod
    def initial(cls, model: nn.Module, settings: TrainedGeneratorConfig, seed: int) -> GeneratorState:
        generator: Any = model
        spec: TrainingSpec = generator.training_spec(settings, rng_for(seed, "initialise lesson"))
        memory = Holder({"losses": {}, "skipped": 0, "skipped_in_a_row": 0})
        return cls(model.train(), spec, EMA(model, spec.average_buffers), History(), memory)

    def objects(self) -> dict[str, Stateful]:
        """The state by its names in a checkpoint."""
        optimizers = {f"optimiser {name}": one.optimizer for name, one in self.spec.optimizations.items()}
        return {
            "model": self.model,
            "average": self.ema,
            "history": self.history,
            "memory": self.memory,
            **optimizers,
            **self.spec.extra_state,
        }

    def add_to_history(self, step: int) -> None:
        skipped = {"skipped": self.memory.value["skipped"]} if _may_skip(self.spec) else {}
        self.history.add(step=step, **self.memory.value["losses"], **skipped)


class _TrainStep:
    """One training step: every loss term that is due, each with its own optimizer step on a batch of its own."""

    def __init__(
        self,
        state: GeneratorState,
        images: ImageSet,
        settings: TrainedGeneratorConfig,
        device: torch.device | str,
        precision: str,
    ):
        self.state, self.settings, self.precision = state, settings, precision
        self.pixels, self.labels = images.pixels(device), images.targets(device)
        self.rank, self.world = distributed.place()
        batch_size = settings.batch_size
        if batch_size % self.world:
            raise ValueError(f"batch_size ({batch_size}) must be a multiple of the {self.world} processes")
        self.own_rows = slice(self.rank * batch_size // self.world, (self.rank + 1) * batch_size // self.world)

    def __call__(self, t: int, rng: Rng) -> Tensor:
        """Make step t; returns the loss that decides whether the training has diverged."""
        spec, values = self.state.spec, dict[str, Tensor]()
        for name, term in spec.loss_terms.items():
            if t % term.every == 0:
                for repeat in range(term.repeats):
                    # The first term of a step draws at the place of the step itself, all others below it.
                    values[name] = self._update(term, rng.at(name, repeat) if values else rng, t)
        spec.after_step(self.settings.batch_size)
        self.state.ema.update(self.state.model, _ema_decay(self.settings, t))
        return _check_losses(values, spec, self.state.memory)

    def _update(self, term: LossTerm, rng: Rng, t: int) -> Tensor:
        """Make the optimizer step of one loss term on a batch drawn at the place of `rng`; returns its loss."""
        settings, spec, memory = self.settings, self.state.spec, self.state.memory
        index = rng.at("which").integers(len(self.pixels), (settings.batch_size,))[self.own_rows]
        own = rng if self.world == 1 else rng.at("process", self.rank)
        batch = to_unit(self.pixels[index])
        if settings.flip:
            mirrored = (own.at("flip").uniform((len(batch),)) < 0.5).view(-1, 1, 1, 1)
            batch = torch.where(mirrored, batch.flip(3), batch)
        batch = batch.contiguous(memory_format=torch.channels_last)
        optimization = spec.optimizations[term.optimization]
        for other in spec.optimizations.values():
            for parameter in other.parameters:
                parameter.requires_grad_(other is optimization)
        with own.at("layers").seeding_torch(), autocast(self.precision, batch.device):
            value = term.loss(batch, self.labels[index], own, t / settings.steps)
        optimization.optimizer.zero_grad(set_to_none=True)
        value.backward()
        value = value.detach()
        distributed.mean_over_all([value])
        _scale_lr(optimization.optimizer, lr_share(t * settings.batch_size, settings))
        if _optimizer_step(optimization, value):
            memory.value["skipped_in_a_row"] = 0
        else:
            memory.value["skipped"] += 1
            memory.value["skipped_in_a_row"] += 1
        return value


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
    """Train by the model's `training_spec`, resuming from `folder`; returns the EMA model in evaluation mode.

    Batches are drawn with replacement. NaN gradients are set to 0, infinite ones to +-1e5, as in EDM. Under torchrun
    each process takes its share of every batch, gradients are averaged, and the first process writes; batch norms
    see the share of their own process only. Leaves `history.npz` (step, the loss of every term, steps skipped) and
    grids of samples in `folder`, and with precision "auto" the choice, which a resumed training keeps.

    Raises:
        Diverged: a loss is NaN or infinite (see `training.loop`).
        Preempted: the process received SIGTERM; a checkpoint is kept.
        ValueError: the batch cannot be divided evenly among the processes.
    """
    precision = choose_precision(
        settings.precision, device, folder / "precision.json", settings.steps, _trial(model, images, settings, device)
    )
    state = GeneratorState.initial(model, settings, seed)
    spec, train_step = state.spec, _TrainStep(state, images, settings, device, precision)
    writes = distributed.place()[0] == 0
    preview_every = math.ceil(settings.steps / settings.previews) if settings.previews else 0

    with Loop(
        folder / "checkpoint.pt", settings.steps, state.objects(), unit_per_step=settings.batch_size,
        progress=progress, writes=writes,
    ) as loop:  # fmt: skip
        for t in loop:
            loop.record(train_step(t, rng_for(seed, "fit", t, device=device)))
            state.add_to_history(t + 1)
            if writes and preview_every and (t + 1) % preview_every == 0:
                save_grid(state.ema.model, folder / "grids" / f"{t + 1:07d}.png", device)
    if writes:
        state.history.save(folder / "history.npz")
    spec.finish(state.ema.model, rng_for(seed, "finish", device=device))
    return state.ema.model.eval()


def _trial(
    model: nn.Module, images: ImageSet, settings: TrainedGeneratorConfig, device: torch.device | str
) -> Callable[[str], object]:
    """A function that makes a training step of a copy in a precision, to time it."""
    steps: list[_TrainStep] = []

    def step(precision: str) -> None:
        if not steps:
            state = GeneratorState.initial(copy.deepcopy(model), settings, 0)
            steps.append(_TrainStep(state, images, settings, device, precision))
        steps[0].precision = precision
        steps[0](0, rng_for(0, "trial", device=device))

    return step


def _scale_lr(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set the learning rate to a fraction of the one the optimizer was created with."""
    for group in optimizer.param_groups:
        group["lr"] = share * group.setdefault("initial_lr", group["lr"])


def _optimizer_step(optimization: Optimization, value: Tensor) -> bool:
    """Step along the gradients, averaged over processes, NaN replaced, clipped; False if the step is skipped."""
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


def _ema_decay(settings: TrainedGeneratorConfig, t: int) -> float:
    half_life = settings.ema_half_life_images
    if settings.ema_half_life_share is not None:
        half_life = min(half_life, settings.ema_half_life_share * (t + 1) * settings.batch_size)
    return half_life_decay(half_life, settings.batch_size)


def _may_skip(training_spec: TrainingSpec) -> bool:
    return any(optimization.skip_above is not None for optimization in training_spec.optimizations.values())


def _check_losses(values: dict[str, Tensor], training_spec: TrainingSpec, memory: Holder) -> Tensor:
    """Remember the losses of a step; returns the one that `Loop.record` checks.

    A loss that is not finite stops the training. Where steps may be skipped, it does so only after many in a row.
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
    """Save `rows` images of each of the first ten classes as a PNG, one column per class; the same noise each time."""
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
