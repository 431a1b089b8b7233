"""Run the stages of a run on this machine when they are ready, several at a time, in worker processes.

Small networks do not get faster with a second thread, so on a CPU independent stages run in parallel processes with
one thread each. On several GPUs every worker has one; a stage that shares its work takes those of others too. Worker
processes exit with their parent, however it ends.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from types import MappingProxyType
from typing import Any

from robustgen.config.loading import from_content
from robustgen.config.recipe import Recipe
from robustgen.pipeline.graph import Node, levels, stages
from robustgen.pipeline.launchers.elastic import (
    ProgressSender,
    exit_with_parent,
    how_it_ended,
    pass_notes_on,
    run_shared,
)
from robustgen.runtime.cpu import configure_cpu
from robustgen.runtime.errors import StageFailed, describe_error, is_bug
from robustgen.runtime.preemption import SAVING_SECONDS, Preempted, listening
from robustgen.runtime.progress import Display
from robustgen.storage.files import Note
from robustgen.storage.run_folder import RunDir


def run_stages(
    recipe: Recipe,
    run: RunDir,
    stage_list: Sequence[Node],
    device_names: Sequence[str],
    display: Display,
    *,
    shares: Mapping[str, int] = MappingProxyType({}),
    jobs: int | None = None,
    others_finish: bool = False,
) -> None:
    """Run all stages in worker processes, skipping the finished ones.

    Args:
        device_names: the device of each worker.
        shares: devices of the stages that take more than one, by their names.
        jobs: the most stages at a time; default as many as workers.
        others_finish: when a stage fails, go on with those that do not need it.

    Raises:
        StageFailed: a stage failed; the others are stopped, or finished, and all can be resumed.
    """
    skip_finished(stage_list, display)
    crew = _Crew(recipe, run, stage_list, device_names, display, shares, jobs or len(device_names), others_finish)
    try:
        crew.work()
    except Preempted:
        for worker in crew.workers:
            worker.process.terminate()
        for worker in crew.workers:
            worker.process.join(SAVING_SECONDS)
        raise
    finally:
        for worker in crew.workers:
            worker.stop()


def skip_finished(stage_list: Sequence[Node], display: Display) -> None:
    """Report finished stages. The report stage depends on all others, so it reruns if any of them will."""
    if not all(stage.finished for stage in stage_list):
        stage_list[-1].output.unlink(missing_ok=True)
    for stage in stage_list:
        if stage.finished:
            display.skipped(stage.name)


class _Crew:
    """Workers, and the stages that are left for them."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunDir,
        stage_list: Sequence[Node],
        device_names: Sequence[str],
        display: Display,
        shares: Mapping[str, int],
        jobs: int,
        others_finish: bool,
    ):
        self.recipe, self.run, self.display = recipe, run, display
        self.shares, self.jobs, self.others_finish = shares, jobs, others_finish
        self.todo = [stage for stage in stage_list if not stage.finished]
        self.after = levels(stage_list)
        self.done = {stage.name for stage in stage_list if stage.finished}
        self.failures: list[StageFailed] = []
        needed = len(device_names) if shares else min(len(device_names), len(self.todo))
        self.workers = [_Worker(recipe, run, name) for name in device_names[:needed]]

    def work(self) -> None:
        """Run all stages; raise the first failure, with the names of the others."""
        while self.todo or any(worker.stage for worker in self.workers):
            while self._start_one():
                pass
            if not any(worker.stage for worker in self.workers):
                break  # what is left needs a stage that failed
            for worker in _speaking(self.workers):
                try:
                    self._hear(worker, worker.receive())
                except StageFailed as failure:
                    self._failed(worker, failure)
        if self.failures:
            first, *others = self.failures
            more = f"; also failed: {', '.join(str(other).partition(':')[0] for other in others)}" if others else ""
            raise StageFailed(f"{first}{more}", first.details, first.ours)

    def _start_one(self) -> bool:
        """Start the ready stage that most depends on, of those for which enough workers are free."""
        free = [worker for worker in self.workers if not worker.stage and not worker.lent]
        if len([worker for worker in self.workers if worker.stage]) >= self.jobs:
            return False
        ready = [stage for stage in self.todo if self.done.issuperset(stage.needs)]
        fitting = [stage for stage in ready if self._takes(stage) <= len(free)]
        if not fitting:
            return False
        chosen = max(fitting, key=lambda stage: self.after[stage.name])
        self.todo.remove(chosen)
        first, *helpers = free[: self._takes(chosen)]
        first.start(chosen.name, helpers)
        self.display.started(chosen.name)
        return True

    def _takes(self, stage: Node) -> int:
        return self.shares.get(stage.name, 1)

    def _hear(self, worker: _Worker, message: tuple[Any, ...]) -> None:
        """Act on a message of a worker. Raises StageFailed if its stage has failed."""
        kind, *rest = message
        if kind == "progress":
            self.display.progress(*rest)
        elif kind == "done":
            name, sentence, seconds = rest
            self.run.add_timing(name, seconds)
            self.run.record_failure(name, None)
            self.done.add(name)
            worker.release()
            self.display.finished(name, sentence, seconds)
        elif kind == "unmade":
            name, why = rest
            self.run.record_failure(name, why)
            self.done.add(name)
            worker.release()
            self.display.failed(name, why)
        elif kind == "note":
            warnings.warn(rest[0], Note, stacklevel=2)  # the same text of several workers appears once
        else:
            name, text, details, ours = rest
            raise StageFailed(f"{name}: {text}", details, ours)

    def _failed(self, worker: _Worker, failure: StageFailed) -> None:
        """Give the stage of a worker up, or the whole run."""
        if not self.others_finish:
            raise failure
        self.failures.append(failure)
        assert worker.stage is not None
        self.display.failed(worker.stage, str(failure).removeprefix(f"{worker.stage}: "))
        worker.release()
        if not worker.process.is_alive():
            worker.stop()
            self.workers[self.workers.index(worker)] = _Worker(self.recipe, self.run, worker.device)


def _speaking(workers: Sequence[_Worker]) -> list[_Worker]:
    heard = wait([worker.connection for worker in workers if worker.stage], timeout=1.0)
    return [worker for worker in workers if worker.connection in heard]


class _Worker:
    """A worker process that runs one stage after the other.

    lent  whether another worker's stage uses its device
    """

    def __init__(self, recipe: Recipe, run: RunDir, device: str):
        self.device, self.lent = device, False
        self.stage: str | None = None
        self.helpers: list[_Worker] = []
        configure_cpu(recipe.threads)  # inherited: a child's libraries read the environment when they load
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, recipe.to_json(), str(run.root)))
        self.process.start()
        theirs.close()

    def start(self, stage: str, helpers: list[_Worker]) -> None:
        """Start a stage on the devices of this worker and of the helpers."""
        self.stage, self.helpers = stage, helpers
        for helper in helpers:
            helper.lent = True
        self.connection.send((stage, (self.device, *(helper.device for helper in helpers))))

    def release(self) -> None:
        """Take note that the stage has ended, so that its devices are free."""
        for helper in self.helpers:
            helper.lent = False
        self.stage, self.helpers = None, []

    def receive(self) -> tuple[Any, ...]:
        try:
            message: tuple[Any, ...] = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(5)
            how = how_it_ended(self.process.exitcode)
            raise StageFailed(f"{self.stage}: the worker was killed ({how}); repeat the command to resume") from None
        return message

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def _serve(connection: Connection, content: dict[str, Any], root: str) -> None:
    """The main loop of a worker process: run stages by name until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    exit_with_parent()
    pass_notes_on(connection.send)
    recipe = from_content(content, root)
    configure_cpu(recipe.threads)
    by_name = {stage.name: stage for stage in stages(recipe, RunDir(root))}
    while True:
        try:
            name, devices = connection.recv()
        except EOFError:
            return
        began = time.monotonic()
        try:
            with listening():
                if len(devices) > 1:
                    sentence = run_shared(content, root, name, devices, connection.send)
                else:
                    sentence = by_name[name].stage(devices[0], ProgressSender(connection.send, name))
            connection.send(("done", name, sentence, time.monotonic() - began))
        except Preempted:
            raise
        except BaseException as error:
            if by_name[name].optional and isinstance(error, ValueError) and not isinstance(error, StageFailed):
                connection.send(("unmade", name, describe_error(error)))
                continue
            details = getattr(error, "details", "") or traceback.format_exc()
            ours = error.ours if isinstance(error, StageFailed) else is_bug(error)
            connection.send(("failed", name, describe_error(error), details, ours))
        _free_gpu(devices[0])


def _free_gpu(device: str) -> None:
    """Give the memory that torch keeps back, because the next stage may use this GPU from another process."""
    torch = sys.modules.get("torch")  # some stages do not import it
    if device != "cpu" and torch is not None:
        torch.cuda.empty_cache()
