"""Files that appear whole, save intervals, locks, differences of settings. No torch here."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_PART = ".part"


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name complete or not at all: written to a temporary name, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError with the file's name when it is not JSON."""
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file ({error}); restore it or remove it") from None


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its type where it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class SaveInterval:
    """Save interval: saving takes at most 2 % of the run time, and happens at most once a second."""

    def __init__(self) -> None:
        self._last, self._cost = time.monotonic(), 0.0

    def due(self) -> bool:
        return time.monotonic() - self._last > max(1.0, 50 * self._cost)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure a save, whose duration sets the interval."""
        began = time.monotonic()
        yield
        self._last = time.monotonic()
        self._cost = self._last - began


@contextmanager
def locked(folder: Path, file_name: str = "") -> Iterator[None]:
    """Keep other processes from writing into a folder, or one file of it.

    The system releases the lock of a process that dies. Half-written files of killed processes are removed first.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":  # pragma: no cover - flock is POSIX; other systems do not lock
        yield
        return
    import fcntl

    parts = folder.glob(f".{file_name}.*{_PART}") if file_name else folder.rglob(f".*{_PART}")
    with (folder / (f".{file_name}.lock" if file_name else ".lock")).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ValueError(
                f"{folder / file_name} is in use by process {holder}; wait for it, or choose another folder with --into"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        for aside in parts:
            aside.unlink(missing_ok=True)
        yield


def differences(found: Any, wanted: Any, path: str = "", terms: tuple[str, str] = ("stored", "requested")) -> list[str]:
    """Where two sets of settings differ, one line for each: "train.loss.beta: stored 6.0, requested 5.0".

    Args:
        path: prefix of the settings' names.
        terms: what the lines call the two sets.
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        lines = []
        for key in sorted({*found, *wanted}):
            name = f"{path}.{key}" if path else str(key)
            if key not in found:
                lines.append(f"{name}: not {terms[0]}, {terms[1]} {json.dumps(wanted[key])}")
            elif key not in wanted:
                lines.append(f"{name}: {terms[0]} {json.dumps(found[key])}, not {terms[1]}")
            else:
                lines += differences(found[key], wanted[key], name, terms)
        return lines
    return [] if found == wanted else [f"{path}: {terms[0]} {json.dumps(found)}, {terms[1]} {json.dumps(wanted)}"]
