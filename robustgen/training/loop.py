"""The training loop of classifiers, generators and discriminators: resuming, checkpoints, SIGTERM, divergence."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from robustgen.contracts import Progress, silent
from robustgen.runtime import distributed
from robustgen.runtime.preemption import Preempted, finishing_steps, stop_signal
from robustgen.storage.checkpoints import Stateful, load_checkpoint, save_checkpoint
from robustgen.storage.files import SaveInterval


class Diverged(ValueError):
    """A loss is NaN or infinite."""


class Loop:
    """Iterate over the steps of a training, starting from its checkpoint.

        with Loop(checkpoint, steps, state, unit_per_step=batch_size, progress=progress) as loop:
            for t in loop:
                loss = train_step(t)
                loop.record(loss, lr=schedule(t))

    Entering restores `state`, the named objects of the checkpoint. Each step calls `record` once. After the body of a
    step, the loop reports progress (with `note`), saves if `SaveInterval` is due or it was the last step, and stops
    if any process received SIGTERM. All of `state` is saved after the body, so what the body changes at a step, such
    as a history, is in that step's checkpoint exactly once.

    Reading a loss synchronizes with the GPU. So losses are read only if `reads_at(t)`, at a save and at the last step;
    in between the CPU runs ahead of the GPU.

    Args:
        checkpoint: its file; the process that `writes` saves it, and all processes read it.
        unit_per_step: images per step, for the progress.
        reads_at: must return the same for all processes, which agree at these steps on whether to stop.
        log: receives {"step": t + 1, "loss": loss, **values} of each recorded step, in order, when losses are read.

    Raises:
        Diverged: a loss is NaN or infinite (by `record`); the last checkpoint is from before that step.
        Preempted: a process received SIGTERM (by the iteration); a checkpoint of the last step is kept.
        ValueError: processes see different checkpoints (on entering).
    """

    note: str = ""
    """Text after the loss in the progress."""

    def __init__(
        self,
        checkpoint: Path,
        steps: int,
        state: Mapping[str, Stateful],
        *,
        unit_per_step: int,
        progress: Progress = silent,
        writes: bool = True,
        reads_at: Callable[[int], bool] = lambda t: True,
        log: Callable[[dict[str, float]], None] = lambda row: None,
    ):
        self.checkpoint, self.steps, self.state = checkpoint, steps, state
        self._unit_per_step, self._progress, self._log = unit_per_step, progress, log
        self._writes, self._reads_at = writes, reads_at
        self._unread: list[tuple[int, Tensor, dict[str, float]]] = []
        self._finishing_steps = finishing_steps()

    def __enter__(self) -> Self:
        place = load_checkpoint(self.checkpoint, **self.state)
        self._first = place["step"] if place else 0
        _check_same_step(self._first, self.checkpoint)
        self._interval = SaveInterval()
        self._finishing_steps.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._finishing_steps.__exit__(*error)

    def __iter__(self) -> Iterator[int]:
        for t in range(self._first, self.steps):
            self._step, self._recorded = t, False
            yield t
            assert self._recorded, "every step records its loss"
            if not self._unread:
                self._end_step(t)

    def record(self, loss: Tensor, **values: float) -> None:
        """Record the loss of the current step, a scalar, with values to log; read all losses so far if due."""
        t, self._recorded = self._step, True
        self._unread.append((t, loss.detach(), values))
        last = t + 1 == self.steps
        self._all_read = last or self._reads_at(t)
        self._saves = self._writes and (last or self._interval.due())
        if self._all_read or self._saves:
            for step, value, others in self._unread:
                self._loss = float(value)
                self._check_finite(step)
                self._log({"step": step + 1, "loss": self._loss, **others})
            self._unread.clear()

    def _check_finite(self, step: int) -> None:
        if math.isfinite(self._loss):
            return
        exists = self.checkpoint.exists()
        kept = f"the checkpoint before it is kept in {self.checkpoint}" if exists else "no checkpoint yet"
        raise Diverged(
            f"the loss is {self._loss} at step {step} of {self.steps} in {self.checkpoint.parent}; {kept}; "
            "try a lower peak_lr or a longer warmup"
        )

    def _end_step(self, t: int) -> None:
        """After a step whose loss was read: report progress, save, stop."""
        note = f", {self.note}" if self.note else ""
        done, total = (count * self._unit_per_step for count in (t + 1, self.steps))
        self._progress(done, total, "images", f"loss {self._loss:.3f}{note}")
        last = t + 1 == self.steps
        stops = self._all_read and not last and distributed.total_over_all(int(stop_signal() > 0))[0] > 0
        if self._saves or (stops and self._writes):
            with self._interval.saving():
                save_checkpoint(self.checkpoint, {"step": t + 1}, **self.state)
        if stops:
            signals = distributed.gathered(stop_signal())
            last_word = signal.SIGTERM if signal.SIGTERM in signals else max(signals)
            raise Preempted(f" at step {t + 1} of {self.steps} in {self.checkpoint.parent}", last_word)


def _check_same_step(first: int, checkpoint: Path) -> None:
    rank, world = distributed.place()
    if world > 1 and len(set(distributed.total_over_all(*(first * (rank == r) for r in range(world))))) > 1:
        raise ValueError(
            f"process {rank} resumes at step {first} but others do not: {checkpoint.parent} must be on a file system "
            "shared by all nodes"
        )


class Holder:
    """A plain value with a state dictionary, so that it can be part of a checkpoint."""

    def __init__(self, value: Any = None):
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
