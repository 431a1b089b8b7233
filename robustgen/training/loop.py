"""What the training of classifiers and of generators share: steps, checkpoints, a stop at NaN or at SIGTERM."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustgen.contracts import Progress
from robustgen.runtime import distributed
from robustgen.runtime.preemption import Preempted, asked, finishing_steps
from robustgen.storage.checkpoints import Stateful, load_checkpoint, save_checkpoint
from robustgen.storage.files import SaveInterval


class Diverged(ValueError):
    """A loss stopped being a number."""


def run_steps(
    step: Callable[[int], Tensor],
    steps: int,
    *,
    checkpoint: Path,
    objects: dict[str, Stateful],
    after: Callable[[int, float], None],
    unit_per_step: int,
    progress: Progress,
    writes: bool = True,
    reads_at: Callable[[int], bool] = lambda t: True,
    note: Callable[[], str] = lambda: "",
) -> None:
    """Take `steps` steps, from where a checkpoint left off; `step(t)` returns the loss.

    Losses are read where `reads_at(t)`, which must be so for all processes at once: reading makes a GPU wait.
    `after(t, loss)` then follows for each step since, in order, and may change what `objects` hold. Checkpoints come
    at their `SaveInterval`, where this process is the one that `writes`. `note` is told with the progress.

    Raises:
        Diverged: the loss is NaN or infinite; the last checkpoint is from before that step.
        Preempted: SIGTERM came to one of the processes; a checkpoint of the last step is kept.
        ValueError: processes that see different checkpoints.
    """
    place = load_checkpoint(checkpoint, **objects)
    first = place["step"] if place else 0
    _same_for_all(first, checkpoint)
    pace = SaveInterval()
    unread: list[tuple[int, Tensor]] = []

    def read() -> float:
        for number, value in unread:
            loss = float(value)
            if not math.isfinite(loss):
                kept = (
                    f"the checkpoint before it is kept in {checkpoint}" if checkpoint.exists() else "no checkpoint yet"
                )
                raise Diverged(
                    f"the loss is {loss} at step {number} of {steps} in {checkpoint.parent}; {kept}; "
                    "try a lower peak_lr or a longer warmup"
                )
            after(number, loss)
        unread.clear()
        return loss

    with finishing_steps():
        for t in range(first, steps):
            unread.append((t, step(t).detach()))
            last = t + 1 == steps
            together, saves = last or reads_at(t), writes and (last or pace.due())
            if not (together or saves):
                continue
            loss = read()
            said = "".join(f", {words}" for words in (note(),) if words)
            progress((t + 1) * unit_per_step, steps * unit_per_step, "images", f"loss {loss:.3f}{said}")
            stops = together and not last and distributed.total_over_all(int(asked()))[0] > 0
            if saves or (stops and writes):
                with pace.saving():
                    save_checkpoint(checkpoint, {"step": t + 1}, **objects)
            if stops:
                distributed.wait_for_all()
                raise Preempted(f" at step {t + 1} of {steps} in {checkpoint.parent}")


def _same_for_all(first: int, checkpoint: Path) -> None:
    rank, world = distributed.place()
    if world > 1 and len(set(distributed.total_over_all(*(first * (rank == r) for r in range(world))))) > 1:
        raise ValueError(
            f"process {rank} would go on from step {first}, others from another: {checkpoint.parent} must be one "
            "folder that all machines see"
        )


class Holder:
    """A plain value among stateful objects."""

    def __init__(self, value: Any = None):
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def rising_cosine(t: int, steps: int, warmup_steps: int) -> float:
    """Share of the peak: linear from 0 over the warm-up, then a cosine to 0. Step 0 takes the first of the rise."""
    if t < warmup_steps:
        return (t + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (t - warmup_steps) / max(1, steps - warmup_steps)))


def rising_drop(t: int, steps: int, warmup_steps: int) -> float:
    """Share of the peak: linear from 0 over the warm-up, then 1, and 0.1 once two thirds of the steps are done."""
    if t < warmup_steps:
        return (t + 1) / warmup_steps
    return 1.0 if t < 2 / 3 * steps else 0.1


def _eased(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def _one_cycle(t: int, steps: int, warmup_steps: int, low: float, high: float, last: float) -> float:
    """Half a cosine from `low` to `high` over the warm-up, half a cosine to `last` over the rest."""
    turn = max(warmup_steps - 1, 0)
    if t <= turn:
        return _eased(low, high, t / turn if turn else 1.0)
    return _eased(high, last, (t - turn) / max(1, steps - 1 - turn))


def one_cycle(t: int, steps: int, warmup_steps: int) -> float:
    """Share of the peak: from 1/25 to 1 over the warm-up, then to 1/250000, as PyTorch's OneCycleLR (arXiv:1708.07120).

    The ports step it once an epoch; here it moves with every step.
    """
    return _one_cycle(t, steps, warmup_steps, 1 / 25, 1.0, 1 / 250_000)


def one_cycle_momentum(t: int, steps: int, warmup_steps: int) -> float:
    """0.95, down to 0.85 at the peak, and back: OneCycleLR's default, which overrules the momentum SGD was given."""
    return _one_cycle(t, steps, warmup_steps, 0.95, 0.85, 0.95)


LR_SHARES: dict[str, Callable[[int, int, int], float]] = {
    "cosine": rising_cosine,
    "step": rising_drop,
    "one-cycle": one_cycle,
}


def set_lr(optimizer: torch.optim.Optimizer, lr: float, momentum: float | None = None) -> None:
    """The learning rate of all groups, and the momentum where it is given."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if momentum is not None:
            group["momentum"] = momentum
