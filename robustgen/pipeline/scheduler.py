"""Run stages when they are ready, several at a time in worker processes, and display their progress.

Small networks do not get faster with a second thread, so on a CPU independent stages run in parallel processes with
one thread each. Worker processes exit with their parent, however it ends.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.config.base import Config
from robustgen.config.loading import from_content
from robustgen.config.recipe import Recipe
from robustgen.pipeline.graph import Node, check_recipe, stages
from robustgen.runtime.distributed import tell_others
from robustgen.runtime.preemption import Preempted, listening
from robustgen.runtime.progress import Display, make_display
from robustgen.storage.files import Note, differences, locked, read_json, write_json
from robustgen.storage.run_folder import RunDir

if TYPE_CHECKING:
    from robustgen.contracts import Progress

from robustgen.runtime.cpu import configure_cpu
from robustgen.runtime.errors import describe_error, is_bug


class StageFailed(ValueError):
    """A stage ended with an error; the message is for the user, `details` is its traceback."""

    def __init__(self, message: str, details: str = "", ours: bool = False):
        super().__init__(message)
        self.details = details
        self.ours = ours
        """Whether it looks like a bug of this program, not a mistake of the user."""


SAVING_SECONDS = 60.0
"""Time for a worker to write its checkpoint after SIGTERM."""


def plan_jobs(stage_list: Sequence[Node], device: str, threads: int) -> int:
    """Number of stages to run at a time: on a CPU as many as cores allow and the graph can use; on a GPU one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device != "cpu" else max(1, min(cores // threads, _widest(stage_list)))


def _levels(stage_list: Sequence[Node]) -> dict[str, int]:
    """Number of stages on the longest path from each stage to the end."""
    after = {stage.name: 0 for stage in stage_list}
    for stage in reversed(stage_list):
        for need in stage.needs:
            after[need] = max(after[need], after[stage.name] + 1)
    return after


def _widest(stage_list: Sequence[Node]) -> int:
    levels = list(_levels(stage_list).values())
    return max(levels.count(level) for level in set(levels))


def run_stages(
    recipe: Recipe, run: RunDir, stage_list: Sequence[Node], device: str, jobs: int, display: Display
) -> None:
    """Run all stages in worker processes, skipping the finished ones.

    Raises:
        StageFailed: a stage failed; the others are stopped, and can be resumed.
    """
    _skip(stage_list, display)
    todo = [stage for stage in stage_list if not stage.finished]
    after = _levels(stage_list)
    done = {stage.name for stage in stage_list if stage.finished}
    workers = [_Worker(recipe, run, device) for _ in range(min(jobs, len(todo)))]
    try:
        while todo or any(worker.stage for worker in workers):
            for worker in workers:
                ready = [stage for stage in todo if done.issuperset(stage.needs)]
                if worker.stage is None and ready:
                    chosen = max(ready, key=lambda stage: after[stage.name])
                    todo.remove(chosen)
                    worker.start(chosen.name)
                    display.started(chosen.name)
            for worker in _speaking(workers):
                message = worker.receive()
                if message[0] == "progress":
                    display.progress(*message[1:])
                elif message[0] == "done":
                    _, name, sentence, seconds = message
                    run.add_timing(name, seconds)
                    run.record_failure(name, None)
                    done.add(name)
                    worker.stage = None
                    display.finished(name, sentence, seconds)
                elif message[0] == "unmade":
                    _, name, why = message
                    run.record_failure(name, why)
                    done.add(name)
                    worker.stage = None
                    display.failed(name, why)
                elif message[0] == "note":
                    warnings.warn(message[1], Note, stacklevel=2)  # the same text of several workers appears once
                else:
                    _, name, text, details, ours = message
                    raise StageFailed(f"{name}: {text}", details, ours)
    except Preempted:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(SAVING_SECONDS)
        raise
    finally:
        for worker in workers:
            worker.stop()


def _skip(stage_list: Sequence[Node], display: Display) -> None:
    """Report finished stages. The report stage depends on all others, so it reruns if any of them will."""
    if not all(stage.finished for stage in stage_list):
        stage_list[-1].output.unlink(missing_ok=True)
    for stage in stage_list:
        if stage.finished:
            display.skipped(stage.name)


def _speaking(workers: Sequence[_Worker]) -> list[_Worker]:
    heard = wait([worker.connection for worker in workers if worker.stage], timeout=1.0)
    return [worker for worker in workers if worker.connection in heard]


@dataclass
class _Worker:
    """A worker process that runs one stage after the other."""

    recipe: Recipe
    run: RunDir
    device: str

    def __post_init__(self) -> None:
        self.stage: str | None = None
        configure_cpu(self.recipe.threads)  # inherited: a child's libraries read the environment when they load
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.recipe.to_json(), str(self.run.root), self.device), daemon=True
        )
        self.process.start()
        theirs.close()

    def start(self, stage: str) -> None:
        self.stage = stage
        self.connection.send(stage)

    def receive(self) -> tuple[Any, ...]:
        try:
            message: tuple[Any, ...] = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(5)
            code = self.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            if code == -signal.SIGKILL:
                how += ", usually out of memory"
            raise StageFailed(f"{self.stage}: the worker was killed ({how}); repeat the command to resume") from None
        return message

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def die_with_parent() -> None:
    """Let this process end when its parent has ended, however that was."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _serve(connection: Connection, content: dict[str, Any], root: str, device: str) -> None:
    """The main loop of a worker process: run stages by name until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    die_with_parent()
    shown = warnings.showwarning

    def pass_on(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if isinstance(message, Note):
            connection.send(("note", str(message)))
        else:
            shown(message, category, *rest, **more)

    warnings.showwarning = pass_on
    recipe = from_content(content, root)
    configure_cpu(recipe.threads)
    by_name = {stage.name: stage for stage in stages(recipe, RunDir(root))}
    while True:
        try:
            name = connection.recv()
        except EOFError:
            return
        began = time.monotonic()
        try:
            with listening():
                sentence = by_name[name].stage(device, _ProgressSender(connection, name))
            connection.send(("done", name, sentence, time.monotonic() - began))
        except Preempted:
            raise
        except BaseException as error:
            if by_name[name].optional and isinstance(error, ValueError):
                connection.send(("unmade", name, describe_error(error)))
                continue
            connection.send(("failed", name, describe_error(error), traceback.format_exc(), is_bug(error)))


class _ProgressSender:
    """Send progress to the parent, at most ten times a second."""

    def __init__(self, connection: Connection, stage: str):
        self.connection, self.stage = connection, stage
        self.told = 0.0

    def __call__(self, done: int, total: int, unit: str, note: str = "") -> None:
        now = time.monotonic()
        if now - self.told > 0.1 or done >= total:
            self.told = now
            self.connection.send(("progress", self.stage, done, total, unit, note))


def run_here(stage_list: Sequence[Node], run: RunDir, device: str, display: Display) -> None:
    """Run all stages in this process, one after the other: for GPUs, and for debuggers."""
    _skip(stage_list, display)
    for stage in stage_list:
        if stage.finished:
            continue
        display.started(stage.name)
        began = time.monotonic()
        try:
            sentence = stage.stage(device, partial(display.progress, stage.name))
        except ValueError as error:
            if not stage.optional:
                raise
            run.record_failure(stage.name, describe_error(error))
            display.failed(stage.name, describe_error(error))
            continue
        seconds = time.monotonic() - began
        run.add_timing(stage.name, seconds)
        run.record_failure(stage.name, None)
        display.finished(stage.name, sentence, seconds)


def run_all(recipe: Recipe, run: RunDir, stage_list: Sequence[Node], device: str, jobs: int) -> None:
    """Run all stages, in this process or in workers, and display the progress."""
    with listening(), make_display() as display:
        if jobs == 1:
            configure_cpu(recipe.threads)
            run_here(stage_list, run, device, display)
        else:
            run_stages(recipe, run, stage_list, device, jobs, display)


def run_alone(
    name: str,
    folder: Path,
    work: Callable[[Progress], str],
    *,
    threads: int,
    file_name: str = "",
    asked: dict[str, Any] | None = None,
    finished: Path | None = None,
) -> None:
    """Run one stage in this process, with a lock on its folder.

    Args:
        file_name: the only file that the stage writes, if other stages may write to the folder at the same time.
        asked: the settings; stored in the folder, so that unfinished work is only resumed with the same settings.
        finished: the file that exists when the stage is finished.

    Raises:
        ValueError: the folder holds work with other settings (the differences are listed), or is in use.
    """
    configure_cpu(threads)
    with listening(), locked(folder, file_name), make_display() as display:
        if asked is not None:
            ensure_settings(folder, asked)
        if finished is not None and finished.exists():
            display.skipped(name)
            return
        display.started(name)
        began = time.monotonic()
        try:
            sentence = work(partial(display.progress, name))
        except Exception as error:
            tell_others(describe_error(error))
            raise
        display.finished(name, sentence, time.monotonic() - began)


def ensure_settings(folder: Path, asked: Mapping[str, Any]) -> None:
    """Store the settings of a command in its folder, or verify that the stored settings are the same.

    Args:
        asked: configurations and plain values by name. Stored configurations of an older version are completed with
            settings that have been added since, and their old names are replaced.

    Raises:
        ValueError: the folder was created with other settings; lists the differences.
    """
    path = folder / "asked.json"
    wanted = {name: value.to_json() if isinstance(value, Config) else value for name, value in asked.items()}
    wanted = json.loads(json.dumps(wanted))
    stored = read_json(path) if path.exists() else {}
    migrated = {name: _migrated(asked.get(name), value) for name, value in stored.items()}
    if migrated == wanted:
        if stored != wanted:
            write_json(path, wanted)
    elif not stored:
        write_json(path, wanted)
    else:
        found = differences(migrated, wanted)
        raise ValueError(
            f"{folder} was created with other settings: {'; '.join(found[:4])}; choose another folder with --into, or "
            "remove it"
        )


def _migrated(wanted: Any, stored: Any) -> Any:
    """Stored settings under their current names, if they can be read as a configuration of the same kind."""
    if not isinstance(wanted, Config):
        return stored
    try:
        return type(wanted).model_validate(stored).to_json()
    except ValueError:
        return stored


def check_apart(recipe: Recipe) -> None:
    """Run `pipeline.graph.check_recipe` in another process, so that this one does not import torch."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_check, args=(theirs, recipe.to_json()), daemon=True)
    process.start()
    theirs.close()
    try:
        problem, details, bug = ours.recv()
    except EOFError:
        problem, details, bug = f"checking the recipe failed (exit code {process.exitcode})", "", True
    process.join()
    if problem:
        raise StageFailed(problem, details, bug)


def _check(connection: Connection, content: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        check_recipe(from_content(content, "recipe"))
        connection.send(("", "", False))
    except Exception as error:
        connection.send((describe_error(error), traceback.format_exc(), is_bug(error)))
