"""Run all stages of a recipe on this machine, or one stage of a command, and display the progress."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.config.base import Config
from robustgen.config.loading import from_content
from robustgen.config.recipe import Recipe
from robustgen.pipeline.devices import Devices
from robustgen.pipeline.graph import Node, check_recipe, widest
from robustgen.pipeline.launchers.local import run_stages, skip_finished
from robustgen.runtime.cpu import configure_cpu
from robustgen.runtime.distributed import tell_others
from robustgen.runtime.errors import StageFailed, describe_error, is_bug
from robustgen.runtime.preemption import listening
from robustgen.runtime.progress import Display, make_display
from robustgen.storage.files import differences, locked, read_json, write_json
from robustgen.storage.run_folder import RunDir

if TYPE_CHECKING:
    from robustgen.contracts import Progress


def plan_jobs(stage_list: Sequence[Node], device: str, threads: int) -> int:
    """Number of stages to run at a time: on a CPU as many as cores allow and the graph can use; on a GPU one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device != "cpu" else max(1, min(cores // threads, widest(stage_list)))


def run_here(stage_list: Sequence[Node], run: RunDir, device: str, display: Display) -> None:
    """Run all stages in this process, one after the other: for GPUs, and for debuggers."""
    skip_finished(stage_list, display)
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


def run_all(
    recipe: Recipe,
    run: RunDir,
    stage_list: Sequence[Node],
    device: str,
    jobs: int | None = None,
    devices: Devices | None = None,
) -> None:
    """Run all stages, in this process or in workers, and display the progress.

    Args:
        device: of all stages, where `devices` does not name several.
        jobs: stages at a time; by default as `plan_jobs` says, or as many as there are devices.
    """
    with listening(), make_display() as display:
        if devices is not None:
            names, shares = devices.names, devices.shares
            run_stages(recipe, run, stage_list, names, display, shares=shares, jobs=jobs, others_finish=True)
            return
        jobs = jobs or plan_jobs(stage_list, device, recipe.threads)
        if jobs == 1:
            configure_cpu(recipe.threads)
            run_here(stage_list, run, device, display)
        else:
            run_stages(recipe, run, stage_list, [device] * jobs, display)


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
