"""Stopping at SIGTERM, or at other signals that cluster schedulers send before they reclaim a machine."""

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
    """Exits the program with `EXIT_CODE`. Finished work is kept, and running the command again resumes.

    received  the signal that this process received, or that the processes of its job have agreed on
    """

    def __init__(self, where: str = "", received: int | None = None):
        super().__init__(EXIT_CODE)
        self.where = where
        self.received = stop_signal() if received is None else received

    def __str__(self) -> str:
        name = signal.Signals(self.received or signal.SIGTERM).name
        return f"stopped by {name}{self.where}; everything finished is kept; run the command again to resume"


class _State:
    received = 0
    patient = False


def stop_signal() -> int:
    """The first signal to stop that was received while `listening`; 0 without one."""
    return _State.received


@contextmanager
def listening(*signals: signal.Signals) -> Iterator[None]:
    """Raise `Preempted` at a signal: at once or, within `finishing_steps`, where the code checks `stop_signal`.

    Without `signals` at SIGTERM.

    Only the main thread receives signals; in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        _State.received = _State.received or number
        if not _State.patient:
            raise Preempted()

    before = {number: signal.signal(number, stop) for number in signals or (signal.SIGTERM,)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.received = 0


@contextmanager
def finishing_steps() -> Iterator[None]:
    """Only note the signal: the training loop checks `stop_signal` after a step, saves, and raises `Preempted`."""
    _State.patient = True
    try:
        yield
    finally:
        _State.patient = False
