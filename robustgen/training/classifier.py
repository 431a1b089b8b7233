"""Training of classifiers, standard or adversarial."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from robustgen.config.training import TrainingConfig
from robustgen.contracts import Batch, Loss, Progress, silent
from robustgen.losses import loss_at
from robustgen.modes import debias_statistics, evaluating
from robustgen.randomness import Rng, rng_for
from robustgen.records.history import History
from robustgen.runtime import distributed
from robustgen.runtime.precision import choose_precision
from robustgen.runtime.trackers import Tracking
from robustgen.stats.intervals import Proportion
from robustgen.storage.checkpoints import Stateful
from robustgen.threat import ThreatModel
from robustgen.training.batch_norms import Statistics, follow_momentum, statistics_of, use_own_batch_norms
from robustgen.training.compiling import Compiled
from robustgen.training.ema import EMA, ramped
from robustgen.training.loop import Holder, Loop
from robustgen.training.low_precision import casting_once, in_precision
from robustgen.training.memory import explain_out_of_memory, passes_of
from robustgen.training.mixing import Mixture
from robustgen.training.schedules import LR_SHARES, one_cycle_momentum, set_lr

NORMALIZATION_LAYERS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
"""Layers whose parameters are left out of weight decay."""
READ_EVERY = 16
"""On a GPU losses are read, and SIGTERM is handled, only every N-th step, so that the CPU can run ahead."""


@dataclass(frozen=True)
class ValidationAccuracies:
    """Clean and robust accuracy on the validation images."""

    clean: Proportion
    robust: Proportion


Validate = Callable[[nn.Module], ValidationAccuracies]


@dataclass(frozen=True)
class Trained:
    """A trained classifier: the selected weights, their step, and their accuracies on the validation images."""

    model: nn.Module
    step: int
    measured: ValidationAccuracies | None


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for weights and biases of convolutions and linear layers; none for normalization layers."""
    layers = [module for module in model.modules() if isinstance(module, NORMALIZATION_LAYERS)]
    norms = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    decayed = [p for p in model.parameters() if id(p) not in norms]
    still = [p for p in model.parameters() if id(p) in norms]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": still, "weight_decay": 0.0}]


@dataclass(frozen=True)
class ClassifierState:
    """What the training of a classifier changes; a checkpoint holds all of it.

    best        the EMA weights with the best robust accuracy on the validation images so far
    best_place  their step, and the number of the `total` validation images that they classify correctly
    history     step, loss and learning rate of every step
    validation  step and four accuracies of every validation
    """

    model: nn.Module
    ema: EMA
    best: nn.Module
    best_place: Holder
    optimizer: torch.optim.Optimizer
    history: History
    validation: History

    @classmethod
    def initial(cls, model: nn.Module, settings: TrainingConfig) -> ClassifierState:
        optimizer = torch.optim.SGD(
            parameter_groups(model, settings.weight_decay),
            lr=settings.schedule.peak_lr,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
        )
        ema = EMA(model)
        ema.model.train()
        nothing = Holder({"step": settings.schedule.steps, "clean": 0, "robust": -1, "total": 0})
        return cls(model.train(), ema, copy.deepcopy(ema.model), nothing, optimizer, History(), History())

    def objects(self) -> dict[str, Stateful]:
        """The state by its names in a checkpoint."""
        return {
            "model": self.model,
            "average": self.ema,
            "best": self.best,
            "best_place": self.best_place,
            "optimiser": self.optimizer,
            "history": self.history,
            "validation": self.validation,
        }

    def validate(self, step: int, validate: Validate) -> ValidationAccuracies:
        """Measure raw and EMA weights, and add both to `validation`; returns the accuracies of the EMA weights."""
        with evaluating(self.model), evaluating(self.ema.model):
            raw, averaged = validate(self.model), validate(self.ema.model)
        self.validation.add(
            step=step,
            raw_clean=raw.clean.value,
            raw_robust=raw.robust.value,
            averaged_clean=averaged.clean.value,
            averaged_robust=averaged.robust.value,
        )
        return averaged

    def last_validation(self) -> dict[str, float]:
        """The four accuracies of the last validation, by column; empty before the first."""
        return {name: values[-1] for name, values in self.validation.columns.items() if name != "step"}

    def note(self) -> str:
        """The last validation as words for the progress."""
        if not len(self.validation):
            return ""
        clean, robust = (100 * self.validation[f"averaged_{kind}"][-1] for kind in ("clean", "robust"))
        return f"validation clean {clean:.1f} %, robust {robust:.1f} %"

    def keep_best(self, step: int, found: ValidationAccuracies, *, always: bool) -> None:
        """Make the EMA weights the best ones if their robust accuracy is at least the best so far, or `always`."""
        if always or found.robust.count >= self.best_place.value["robust"]:
            self.best.load_state_dict(self.ema.model.state_dict())
            self.best_place.value = {
                "step": step,
                "clean": found.clean.count,
                "robust": found.robust.count,
                "total": found.robust.total,
            }


class _TrainStep:
    """One optimizer step on one batch, divided among processes and accumulation passes."""

    def __init__(
        self,
        state: ClassifierState,
        loss: Loss,
        threat: ThreatModel,
        settings: TrainingConfig,
        like: Mixture,
        record: Path,
    ):
        self.state, self.loss, self.threat, self.settings = state, loss, threat, settings
        self.rank, self.world = distributed.place()
        self.shares = self.world * settings.accumulate
        self.steps = settings.schedule.steps
        network = Compiled(state.model) if settings.compile else state.model

        def attempt(precision: str) -> Callable[[int], None]:
            def work(images: int) -> None:
                last = loss_at(loss, 1)
                passes_of(network, last, threat, like.shape, like.classes, like.device, precision)(images)

            return work

        attempts = {precision: attempt(precision) for precision in ("float32", "bfloat16")}
        images = settings.schedule.batch_size // self.shares
        with explain_out_of_memory(images, settings.accumulate, self.world, attempts["float32"]):
            self.precision = choose_precision(
                settings.precision, like.device, record, self.steps, lambda precision: attempts[precision](images)
            )
        self.attempt, self.network = attempts[self.precision], in_precision(network, self.precision)
        self.warmup_steps = round(settings.schedule.warmup * self.steps)
        self.ema_start = round(settings.ema_start * self.steps)

    def lr(self, t: int) -> float:
        schedule = self.settings.schedule
        return schedule.peak_lr * LR_SHARES[schedule.decay](t, self.steps, self.warmup_steps)

    def __call__(self, t: int, batch: Batch, rng: Rng) -> Tensor:
        """Make step t; returns the mean loss of the batch."""
        model, settings = self.state.model, self.settings
        one_cycle = settings.schedule.decay == "one-cycle"
        momentum = one_cycle_momentum(t, self.steps, self.warmup_steps) if one_cycle else None
        set_lr(self.state.optimizer, self.lr(t), momentum)
        debias_statistics(model, t, settings.statistics_decay)
        follow_momentum(model)
        self.state.optimizer.zero_grad(set_to_none=True)
        statistics = Statistics(model) if settings.accumulate > 1 else None
        values = []
        for part in range(settings.accumulate):
            with explain_out_of_memory(len(batch.images) // self.shares, settings.accumulate, self.world, self.attempt):
                values.append(self._pass(t, batch, rng, self.rank * settings.accumulate + part))
            if statistics is not None:
                statistics.end_part()
        if statistics is not None:
            statistics.end_step()
        value = torch.stack(values).mean() if len(values) > 1 else values[0]
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        distributed.mean_over_all([*gradients, *statistics_of(model), value])
        self.state.optimizer.step()
        self.state.ema.update(model, ramped(settings.ema_decay, t - self.ema_start) if t >= self.ema_start else 0.0)
        return value

    def _pass(self, t: int, batch: Batch, rng: Rng, share: int) -> Tensor:
        """Add the gradients of one share of a batch; returns its loss."""
        own = batch.share(share, self.shares)
        place = rng.share(share, self.shares, len(own.images))
        layers = place.at("layers") if self.shares == 1 else place.at("layers", share)
        with layers.seeding_torch(), casting_once(self.precision, batch.images.device):
            value = loss_at(self.loss, (t + 1) / self.steps)(self.network, own, self.threat, place)
        value.backward(torch.full_like(value, 1 / self.settings.accumulate))
        return value.detach()


def train_classifier(
    model: nn.Module,
    mixture: Mixture,
    loss: Loss,
    threat: ThreatModel,
    settings: TrainingConfig,
    folder: Path,
    *,
    seed: int,
    validate: Validate | None = None,
    progress: Progress = silent,
    track: Sequence[str] = (),
) -> Trained:
    """Train in place, resuming from `folder`, and return the selected EMA weights.

    The optimizer is SGD with Nesterov momentum; the learning rate is warmed up per step; running statistics are
    zero-debiased; the EMA model has the running statistics of the model. With `validate`, the accuracies of raw and EMA
    weights are measured `settings.validations` times. Early stopping returns the EMA weights with the best robust
    accuracy (the latest in case of a tie). Otherwise the last EMA weights are returned.

    The batch of a step can be divided among the processes of torchrun, and into `settings.accumulate` passes in each.
    Share s of S takes rows s, s + S, s + 2S ... and the corresponding random numbers of the step; the shares together
    equal the batch and the noise of a single process. Gradients, loss and running statistics are the means over the
    shares; batch norms see one share (with `batch_norms` "all": the shares of all processes). Process 0 writes
    `history.npz`, `validation.npz` and `progress.jsonl` (see `runtime.trackers`, which also defines the names in
    `track`) to `folder`, and with precision "auto" the choice, which a resumed training keeps, to `precision.json`.

    Raises:
        Diverged: the loss is NaN or infinite.
        OutOfMemory: a pass does not fit on the device; the message names settings that do.
        Preempted: the process received SIGTERM; a checkpoint is kept.
        ValueError: the batch cannot be divided evenly.
    """
    _prepare(model, settings)
    rank, _ = distributed.place()
    steps, batch_size = settings.schedule.steps, settings.schedule.batch_size
    state = ClassifierState.initial(model, settings)
    train_step = _TrainStep(state, loss, threat, settings, mixture, folder / "precision.json")
    tracking = Tracking(folder, track)
    every, on_cpu = max(1, steps // settings.validations), mixture.device.type == "cpu"

    def validates(t: int) -> bool:
        return validate is not None and ((t + 1) % every == 0 or t + 1 == steps)

    def log(row: dict[str, float]) -> None:
        state.history.add(**row)
        if rank == 0:
            step = int(row.pop("step"))
            tracking.log(step, batch_size, row, now=step == steps)

    with (
        closing(tracking),
        Loop(
            folder / "checkpoint.pt", steps, state.objects(), unit_per_step=batch_size, progress=progress,
            writes=rank == 0, reads_at=lambda t: on_cpu or validates(t) or t % READ_EVERY == 0, log=log,
        ) as loop,
    ):  # fmt: skip
        for t in loop:
            batch = mixture.batch(t)
            loss_value = train_step(t, batch, rng_for(seed, "train", t, device=batch.images.device))
            loop.record(loss_value, lr=train_step.lr(t))
            if validate is not None and validates(t):
                found = state.validate(t + 1, validate)
                if rank == 0:
                    tracking.log(t + 1, batch_size, state.last_validation(), now=True)
                state.keep_best(t + 1, found, always=t + 1 == steps and not settings.early_stopping)
            loop.note = state.note()
    return _finish(state, folder, steps, validated=validate is not None)


def _prepare(model: nn.Module, settings: TrainingConfig) -> None:
    """Check that the batch can be divided, and replace batch norms for compiled networks or shared statistics."""
    world, batch_size = distributed.place()[1], settings.schedule.batch_size
    shares = world * settings.accumulate
    if batch_size % shares:
        raise ValueError(
            f"batch_size ({batch_size}) must be a multiple of {shares} ({world} processes with "
            f"{settings.accumulate} passes each)"
        )
    if settings.compile or (settings.batch_norms == "all" and world > 1):
        use_own_batch_norms(model, world if settings.batch_norms == "all" else 1)


def _finish(state: ClassifierState, folder: Path, steps: int, *, validated: bool) -> Trained:
    """Write the records and return the selected weights."""
    writes = distributed.place()[0] == 0
    if writes:
        state.history.save(folder / "history.npz")
    if not validated:
        return Trained(state.ema.model.eval(), steps, None)
    if writes:
        state.validation.save(folder / "validation.npz")
    best = state.best_place.value
    clean, robust = (Proportion(best[kind], best["total"]) for kind in ("clean", "robust"))
    return Trained(state.best.eval(), best["step"], ValidationAccuracies(clean, robust))
