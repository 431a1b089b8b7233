"""Training classifiers, plain or robust."""

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
from robustgen.runtime.trackers import Tracking
from robustgen.stats.intervals import Proportion
from robustgen.threat import ThreatModel
from robustgen.training.averaging import WeightAverage, ramped
from robustgen.training.batch_norms import Statistics, follow_momentum, statistics_of, use_own_batch_norms
from robustgen.training.compiling import Compiled
from robustgen.training.loop import LR_SHARES, Holder, one_cycle_momentum, run_steps, set_lr
from robustgen.training.memory import explained, passes_of
from robustgen.training.mixing import Mixture


@dataclass(frozen=True)
class Measured:
    """Clean and robust accuracy on the validation images."""

    clean: Proportion
    robust: Proportion


READ_EVERY = 16
"""On a GPU losses are read, and SIGTERM is heeded, every so many steps: the processor runs ahead in between."""

Validate = Callable[[nn.Module], Measured]


@dataclass(frozen=True)
class Trained:
    """A trained classifier: the weights chosen, from which step, and how they did on the validation images."""

    model: nn.Module
    step: int
    measured: Measured | None


def autocast(settings: TrainingConfig, device: torch.device) -> torch.autocast:
    """Passes in the settings' precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay for weights of convolutions and linear layers and for their biases; none for batch norms."""
    norms = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for p in module.parameters(recurse=False)
    }
    decayed = [p for p in model.parameters() if id(p) not in norms]
    still = [p for p in model.parameters() if id(p) in norms]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": still, "weight_decay": 0.0}]


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
    """Train in place, resuming from `folder`, and return the averaged weights that are to be kept.

    Stochastic gradient descent with Nesterov momentum; warm-up a step at a time; zero-debiased running statistics;
    averaged weights with the model's running statistics. With `validate`, raw and averaged weights are measured
    `settings.validations` times; with early stopping the averaged weights of the best robust accuracy are returned
    (the later among equals), else the last.

    A step's batch may be divided: among the processes of torchrun, and into `settings.accumulate` passes of each.
    Share s of S takes rows s, s + S, s + 2S ... and their part of the step's random numbers, so that the shares make up
    the batch and the noise of one process. Gradients, loss and running statistics are the means over the shares;
    batch norms see one share (with `batch_norms` "all": the shares of all processes). Process 0 writes.

    Leaves `history.npz` (step, loss, learning rate), `validation.npz` (step, four accuracies) and `progress.jsonl` (see
    `tracking`, which knows what `track` may name) in `folder`.

    Raises:
        Diverged: the loss is no longer a number.
        OutOfMemory: a pass does not fit on the device; says what does.
        Preempted: SIGTERM came; a checkpoint is kept.
        ValueError: a batch that cannot be divided evenly.
    """
    schedule = settings.schedule
    steps = schedule.steps
    rank, world = distributed.place()
    shares = world * settings.accumulate
    if schedule.batch_size % shares:
        raise ValueError(
            f"batch_size ({schedule.batch_size}) must be a multiple of {shares}: {world} processes, "
            f"{settings.accumulate} passes each"
        )
    warmup_steps = round(schedule.warmup * steps)
    averaging_start = round(settings.averaging_start * steps)
    if settings.compile or (settings.batch_norms == "all" and world > 1):
        use_own_batch_norms(model, world if settings.batch_norms == "all" else 1)
    network = Compiled(model) if settings.compile else model
    optimizer = torch.optim.SGD(
        parameter_groups(model, settings.weight_decay),
        lr=schedule.peak_lr,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )
    average = WeightAverage(model)
    best = copy.deepcopy(average.model)
    best_place = Holder({"step": steps, "clean": 0, "robust": -1, "total": 0})
    history, validation = History(), History()
    tracking = Tracking(folder, track)
    every = max(1, steps // settings.validations)
    on_cpu = mixture.device.type == "cpu"

    def lr(t: int) -> float:
        return schedule.peak_lr * LR_SHARES[schedule.decay](t, steps, warmup_steps)

    def one_pass(t: int, batch: Batch, rng: Rng, share: int) -> Tensor:
        """Add the gradients of one share of a batch; returns its loss."""
        own = batch.share(share, shares)
        place = rng.share(share, shares, len(own.images))
        layers = place.at("layers") if shares == 1 else place.at("layers", share)
        with layers.seeding_torch(), autocast(settings, batch.images.device):
            value = loss_at(loss, (t + 1) / steps)(network, own, threat, place)
        value.backward(torch.full_like(value, 1 / settings.accumulate))
        return value.detach()

    attempt = passes_of(
        network, loss, threat, mixture.shape, mixture.classes, mixture.device, autocast(settings, mixture.device)
    )

    def step(t: int) -> Tensor:
        batch = mixture.batch(t)
        rng = rng_for(seed, "train", t, device=batch.images.device)
        one_cycles = schedule.decay == "one-cycle"
        set_lr(optimizer, lr(t), one_cycle_momentum(t, steps, warmup_steps) if one_cycles else None)
        debias_statistics(model, t, settings.statistics_decay)
        follow_momentum(model)
        optimizer.zero_grad(set_to_none=True)
        statistics = Statistics(model) if settings.accumulate > 1 else None
        values = []
        for part in range(settings.accumulate):
            with explained(schedule.batch_size // shares, settings.accumulate, world, attempt):
                values.append(one_pass(t, batch, rng, rank * settings.accumulate + part))
            if statistics is not None:
                statistics.end_part()
        if statistics is not None:
            statistics.end_step()
        value = torch.stack(values).mean() if len(values) > 1 else values[0]
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        distributed.mean_over_all([*gradients, *statistics_of(model), value])
        optimizer.step()
        average.update(model, ramped(settings.averaging, t - averaging_start) if t >= averaging_start else 0.0)
        return value

    def validates(t: int) -> bool:
        return validate is not None and ((t + 1) % every == 0 or t + 1 == steps)

    def after(t: int, value: float) -> None:
        history.add(step=t + 1, loss=value, lr=lr(t))
        if rank == 0:
            tracking.log(t + 1, schedule.batch_size, {"loss": value, "lr": lr(t)}, now=t + 1 == steps)
        if not validates(t):
            return
        assert validate is not None
        with evaluating(model), evaluating(average.model):
            raw, averaged = validate(model), validate(average.model)
        accuracies = {
            "raw_clean": raw.clean.value,
            "raw_robust": raw.robust.value,
            "averaged_clean": averaged.clean.value,
            "averaged_robust": averaged.robust.value,
        }
        validation.add(step=t + 1, **accuracies)
        if rank == 0:
            tracking.log(t + 1, schedule.batch_size, accuracies, now=True)
        if averaged.robust.count >= best_place.value["robust"] or (t + 1 == steps and not settings.early_stopping):
            best.load_state_dict(average.model.state_dict())
            best_place.value = {
                "step": t + 1,
                "clean": averaged.clean.count,
                "robust": averaged.robust.count,
                "total": averaged.robust.total,
            }

    def note() -> str:
        if not len(validation):
            return ""
        clean, robust = (100 * validation[f"averaged_{kind}"][-1] for kind in ("clean", "robust"))
        return f"validation clean {clean:.1f} %, robust {robust:.1f} %"

    model.train()
    average.model.train()
    with closing(tracking):
        run_steps(
            step,
            steps,
            checkpoint=folder / "checkpoint.pt",
            objects={
                "model": model,
                "average": average,
                "best": best,
                "best_place": best_place,
                "optimiser": optimizer,
                "history": history,
                "validation": validation,
            },
            after=after,
            unit_per_step=schedule.batch_size,
            progress=progress,
            writes=rank == 0,
            reads_at=lambda t: on_cpu or validates(t) or t % READ_EVERY == 0,
            note=note,
        )
    if rank == 0:
        history.save(folder / "history.npz")
    if validate is None:
        return Trained(average.model.eval(), steps, None)
    if rank == 0:
        validation.save(folder / "validation.npz")
    place = best_place.value
    measured = Measured(Proportion(place["clean"], place["total"]), Proportion(place["robust"], place["total"]))
    return Trained(best.eval(), place["step"], measured)
