"""Being asked to stop by SIGTERM, as schedulers do before they take a machine away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, try again later."""


class Preempted(SystemExit):
    """Leaves the program with `EXIT_CODE`; what is finished is kept, and repeating the command goes on."""

    def __init__(self, where: str = ""):
        super().__init__(EXIT_CODE)
        self.where = where

    def __str__(self) -> str:
        return f"stopped by SIGTERM{self.where}; everything finished is kept, repeat the command to go on"


class _State:
    asked = False
    patient = False


def asked() -> bool:
    """Whether SIGTERM has come while `listening`."""
    return _State.asked


@contextmanager
def listening() -> Iterator[None]:
    """SIGTERM raises `Preempted` inside, at once or, within `finishing_steps`, where `asked` is looked at.

    Signals belong to the main thread; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        _State.asked = True
        if not _State.patient:
            raise Preempted()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _State.asked = False


@contextmanager
def finishing_steps() -> Iterator[None]:
    """SIGTERM is only noted inside: whoever runs steps looks at `asked` after each, and saves first."""
    _State.patient = True
    try:
        yield
    finally:
        _State.patient = False
