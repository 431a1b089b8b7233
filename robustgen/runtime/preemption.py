"""Stopping at SIGTERM, which cluster schedulers send before they reclaim a machine."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: a temporary failure; running the command again resumes."""


SAVING_SECONDS = 60.0
"""Time for a process to write its checkpoint after SIGTERM."""


class Preempted(SystemExit):
    """Exits the program with `EXIT_CODE`. Finished work is kept, and running the command again resumes."""

    def __init__(self, where: str = ""):
        super().__init__(EXIT_CODE)
        self.where = where

    def __str__(self) -> str:
        return f"stopped by SIGTERM{self.where}; everything finished is kept; run the command again to resume"


class _State:
    requested = False
    patient = False


def stop_requested() -> bool:
    """Whether SIGTERM was received while `listening`."""
    return _State.requested


@contextmanager
def listening() -> Iterator[None]:
    """Raise `Preempted` at SIGTERM: at once or, within `finishing_steps`, where the code checks `stop_requested`.

    Only the main thread receives signals; in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        _State.requested = True
        if not _State.patient:
            raise Preempted()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _State.requested = False


@contextmanager
def finishing_steps() -> Iterator[None]:
    """Only note SIGTERM: the training loop checks `stop_requested` after a step, saves, and raises `Preempted`."""
    _State.patient = True
    try:
        yield
    finally:
        _State.patient = False
