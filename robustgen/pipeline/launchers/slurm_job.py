"""What a job of Slurm does: every process of it runs one stage, and the first keeps the stage's state up to date."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustgen.config.loading import from_content
from robustgen.pipeline.graph import Node, stages
from robustgen.pipeline.launchers.jobs import (
    FAILED,
    FINISHED,
    REQUEUED,
    RUNNING,
    STOPPED,
    UNMADE,
    as_state,
    collect,
    keep_state,
    read_jobs,
    read_state,
)
from robustgen.runtime.cpu import configure_cpu
from robustgen.runtime.devices import device_named
from robustgen.runtime.distributed import OtherProcessFailed, leave, local_device, place, tell_others
from robustgen.runtime.errors import describe_error
from robustgen.runtime.preemption import EXIT_CODE, Preempted, listening
from robustgen.runtime.progress import make_display
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir

RECORDED_SECONDS = 60.0
"""Time for whoever submitted a job to note its number, and for a network's file system to show it."""
STATE_SECONDS = 5.0
"""A running stage keeps its progress this often."""


@dataclass(frozen=True)
class StageJob:
    """One stage of a run, as submitit calls it in every process of a job.

    root    the run folder, which all nodes must see
    device  "auto", "cpu" or "cuda"
    """

    root: str
    name: str
    device: str

    def __call__(self) -> str:
        from submitit.helpers import TorchDistributedEnvironment

        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's, before a time limit and where Slurm wants the node
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        run, number = RunDir(self.root), os.environ["SLURM_JOB_ID"]
        _check_recorded(run, self.name, number)
        recipe = from_content(read_json(run.recipe), str(run.recipe))
        configure_cpu(recipe.threads)
        node = {node.name: node for node in stages(recipe, run)}[self.name]
        if node.finished:
            return "done before"
        if node.kind == "report":
            collect(run)
        kept = _Kept(run, self.name, number)
        try:
            with listening(signal.SIGTERM, signal.SIGUSR2):
                kept.finish(FINISHED, self._work(node, kept))
        except Preempted as stopped:
            kept.finish(STOPPED if stopped.received == signal.SIGTERM else REQUEUED, "")
            if stopped.received != signal.SIGTERM:
                _requeue(requeue)
            raise SystemExit(EXIT_CODE) from None
        except Exception as error:
            tell_others(describe_error(error))
            if node.optional and isinstance(error, ValueError):
                kept.finish(UNMADE, describe_error(error))
                return f"not made: {describe_error(error)}"
            kept.fail(error)
            raise
        leave()
        return "finished"

    def checkpoint(self) -> Any:
        """What submitit is to start after a requeue: the same, which resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _work(self, node: Node, kept: _Kept) -> str:
        device = local_device(device_named(self.device))
        if device != "cpu":
            import torch

            torch.cuda.set_device(device)
        with make_display() as display:
            display.started(self.name)
            began = time.monotonic()

            def progress(done: int, total: int, unit: str, note: str = "") -> None:
                display.progress(self.name, done, total, unit, note)
                kept.progress(done, total, unit)

            sentence = node.stage(device, progress)
            display.finished(self.name, sentence, time.monotonic() - began)
        return sentence


class _Kept:
    """The state of the stage, kept by the first process of its job."""

    def __init__(self, run: RunDir, name: str, number: str):
        self.run, self.name = run, name
        self.began = self.told = time.monotonic()
        before = read_state(run, name)
        self.before = 0.0 if before is None else before.seconds
        starts = 1 if before is None or before.job != number else before.starts + 1
        self.fields: dict[str, Any] = {"job": number, "starts": starts, "machine": socket.gethostname()}
        self._keep(RUNNING, text="", done=0, total=0)

    def _keep(self, state: str, any_process: bool = False, **more: Any) -> None:
        if place()[0] == 0 or any_process:
            seconds = round(self.before + time.monotonic() - self.began, 3)
            keep_state(self.run, self.name, as_state(self.run, self.name, **self.fields, state=state,
                                                     seconds=seconds, **more))  # fmt: skip

    def progress(self, done: int, total: int, unit: str) -> None:
        if time.monotonic() - self.told > STATE_SECONDS:
            self.told = time.monotonic()
            self._keep(RUNNING, done=done, total=total, unit=unit)

    def finish(self, state: str, text: str) -> None:
        self._keep(state, text=text)

    def fail(self, error: Exception) -> None:
        """Keep the reason of the process that failed first, not that it took the others with it."""
        found = read_state(self.run, self.name)
        caused = isinstance(error, OtherProcessFailed)
        if not caused or found is None or found.state != FAILED:
            self._keep(FAILED, any_process=not caused, text=describe_error(error))


def _requeue(handler: Callable[..., Any] | int | None) -> None:
    """Let submitit put this job back in the queue; the first process does, and the others wait to be ended."""
    if place()[0]:
        time.sleep(60)
        return
    assert callable(handler)
    try:
        handler(signal.SIGUSR2, None)
    except SystemExit:
        pass


def _check_recorded(run: RunDir, name: str, number: str) -> None:
    """Raise ValueError unless this job is the one on record for its stage: one that nobody knows must not work too."""
    deadline = time.monotonic() + RECORDED_SECONDS
    while True:
        job = read_jobs(run).get(name)
        if job is not None and job.id == number:
            return
        if time.monotonic() > deadline:
            other = f"job {job.id} is" if job else f"{Path(run.jobs_file)} names none"
            raise ValueError(f"job {number} is not on record for {name}: {other}; repeat robustgen run to go on")
        time.sleep(0.5)
