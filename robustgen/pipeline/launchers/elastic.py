"""Run one stage in several processes of this machine, started by torch's elastic launcher.

If one of them dies, the launcher ends the others. All exit with the process that started them, however it ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from robustgen.config.loading import from_content
from robustgen.pipeline.graph import stages
from robustgen.runtime.cpu import configure_cpu
from robustgen.runtime.distributed import OtherProcessFailed, leave, place, tell_others
from robustgen.runtime.errors import StageFailed, describe_error, is_bug
from robustgen.runtime.preemption import EXIT_CODE, SAVING_SECONDS, Preempted, listening
from robustgen.storage.files import Note
from robustgen.storage.run_folder import RunDir

Tell = Callable[[tuple[Any, ...]], None]
"""Passes a message on: ("progress", stage, done, total, unit, note) or ("note", text)."""


def run_shared(content: dict[str, Any], root: str, name: str, devices: tuple[str, ...], tell: Tell) -> str:
    """Run a stage in as many processes as there are devices, and return its sentence.

    Args:
        content: the recipe.
        root: the run folder.

    Raises:
        ValueError: the stage raised one, for example about the user's settings.
        StageFailed: it failed otherwise, or a process died; the message is that of the process that failed first.
        Preempted: SIGTERM was received; the processes have saved their work.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for logger in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # they would print tracebacks and warnings
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(int(SAVING_SECONDS)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=len(devices),
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        signals_to_handle="SIGTERM",
    )
    messages = multiprocessing.get_context("spawn").SimpleQueue()
    failures: list[tuple[Any, ...]] = []
    listener = threading.Thread(target=_listen, args=(messages, failures, tell), daemon=True)
    listener.start()
    try:
        sentences = elastic_launch(config, _process)(messages, content, root, name, devices)
    except SignalException:
        raise Preempted() from None
    except ChildFailedError as error:
        messages.put(None)
        listener.join(5)
        raise _failure(failures, {rank: found.exitcode for rank, found in error.failures.items()}) from None
    messages.put(None)
    listener.join(5)
    return str(sentences[0])


def _listen(messages: Any, failures: list[tuple[Any, ...]], tell: Tell) -> None:
    while (message := messages.get()) is not None:
        if message[0] == "failed":
            failures.append(message[1:])
        else:
            tell(message)


def _failure(failures: list[tuple[Any, ...]], exit_codes: dict[int, int]) -> ValueError:
    """The error that explains best why the processes ended: a message, else a signal, else that one was lost."""
    for text, details, ours, caused in failures:
        if not caused:
            return StageFailed(text, details, ours) if ours else ValueError(text)
    for rank, code in exit_codes.items():
        if code == EXIT_CODE:
            return StageFailed(f"process {rank} was stopped by SIGTERM; repeat the command to resume")
        if code < 0 and -code != signal.SIGTERM:
            return StageFailed(f"process {rank} was killed ({how_it_ended(code)}); repeat the command to resume")
    if failures:
        return StageFailed(failures[0][0])
    rank, code = next(iter(exit_codes.items()))
    return StageFailed(f"process {rank} ended ({how_it_ended(code)}); repeat the command to resume")


def how_it_ended(code: int | None) -> str:
    """The exit code of a process, or the signal that killed it."""
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {-code}" + (", usually out of memory" if code == -signal.SIGKILL else "")


def exit_with_parent() -> None:
    """Make this process exit when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def pass_notes_on(tell: Tell) -> None:
    """Send the notes of this process as messages, instead of printing them."""
    shown = warnings.showwarning

    def pass_on(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if isinstance(message, Note):
            tell(("note", str(message)))
        else:
            shown(message, category, *rest, **more)

    warnings.showwarning = pass_on


class ProgressSender:
    """Send progress to the parent, at most ten times a second."""

    def __init__(self, tell: Tell, stage: str):
        self.tell, self.stage = tell, stage
        self.told = 0.0

    def __call__(self, done: int, total: int, unit: str, note: str = "") -> None:
        now = time.monotonic()
        if now - self.told > 0.1 or done >= total:
            self.told = now
            self.tell(("progress", self.stage, done, total, unit, note))


def _process(messages: Any, content: dict[str, Any], root: str, name: str, devices: tuple[str, ...]) -> str:
    """One process of a stage."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started the run decides what Ctrl-C means
    exit_with_parent()
    rank, _ = place()
    first = rank == 0
    pass_notes_on(messages.put if first else _ignore)
    recipe = from_content(content, root)
    configure_cpu(recipe.threads)
    device = devices[int(os.environ["LOCAL_RANK"])]
    if device != "cpu":
        import torch

        torch.cuda.set_device(device)
    stage = {node.name: node for node in stages(recipe, RunDir(root))}[name].stage
    try:
        with listening():
            sentence = stage(device, ProgressSender(messages.put if first else _ignore, name))
    except Exception as error:
        tell_others(describe_error(error))
        caused = isinstance(error, OtherProcessFailed)
        messages.put(("failed", describe_error(error), traceback.format_exc(), is_bug(error), caused))
        raise SystemExit(1) from None
    leave()
    return sentence


def _ignore(message: tuple[Any, ...]) -> None:
    pass
