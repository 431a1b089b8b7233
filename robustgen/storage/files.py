"""Atomic writes, save intervals, locks, differences of settings. No torch here."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from robustgen.units import show_value

_PART = ".part"


class Note(UserWarning):
    """A note for the user that is not a warning; the command line prints it as one line."""


class WriteError(OSError):
    """A file or folder that cannot be written: `filename` says which, `needed` and `free` are in bytes if known."""

    def __init__(self, error: OSError, path: Path, needed: int | None = None):
        super().__init__(error.errno, error.strerror or str(error), str(path))
        self.needed = needed
        self.free = free_bytes(path) if error.errno == errno.ENOSPC else None


def free_bytes(path: Path) -> int | None:
    """Free bytes on the disk of `path`; None if the system does not say."""
    for place in (path, *path.parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


@contextmanager
def writing_to(path: Path, needed: int | None = None) -> Iterator[None]:
    """Raise a disk error in the block as a WriteError that names `path`, which needs `needed` bytes."""
    try:
        yield
    except OSError as error:
        if isinstance(error, WriteError) or error.errno is None:  # gzip's error about damaged data has no number
            raise
        raise WriteError(error, path, needed) from error


def _create(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


class _NewFile(io.BufferedIOBase):
    """A file for writing that does not raise disk errors: after the first one it only counts bytes.

    Libraries replace such an error by one of their own that names neither the reason nor the file (torch's zip writer:
    "unexpected pos"). Counting shows how many bytes the file needs.
    """

    def __init__(self, path: Path):
        self.error: OSError | None = None
        self.size = self._position = 0
        with self._noting():
            self._file = _create(path)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._position = place + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if self.error is None:
            with self._noting():
                self._file.seek(self._position)
        return self._position

    def write(self, content: Any) -> int:
        count = memoryview(content).nbytes
        if self.error is None:
            with self._noting():
                self._file.write(content)
        self._position += count
        self.size = max(self.size, self._position)
        return count

    def flush(self) -> None:
        if self.error is None and not self._file.closed:
            with self._noting():
                self._file.flush()

    def sync(self) -> None:
        """Flush to the disk, as far as the system guarantees it."""
        self.flush()
        if self.error is None:
            with self._noting():
                os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            with self._noting():
                self._file.close()
        super().close()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write a file atomically: under a temporary name, synced, then renamed.

    Raises:
        WriteError: the disk is full, the folder read-only or missing, ...; an existing file is unchanged.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    file = _NewFile(aside)
    try:
        try:
            yield cast(BinaryIO, file)
            file.sync()
        except Exception:
            if file.error is None:  # not an error of the disk
                raise
        file.close()
        if file.error is None:
            with writing_to(path, file.size):
                aside.replace(path)
    finally:
        file.close()
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    if file.error is not None:
        raise WriteError(file.error, path, file.size) from file.error


def write_json(path: Path, content: object) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError with the file's name if it is not JSON, or nested too deeply."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8, and numbers of thousands of digits
        raise ValueError(f"{path} is not a JSON file ({error}); restore it or remove it") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON file of settings by name. Raises ValueError when it is not JSON, or holds another value."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected settings by name, got {show_value(content)}; restore it or remove it")
    return content


def first_line(error: Exception) -> str:
    """The first line of an error's message without escape codes, or the name of its type if it has no message."""
    return printable((str(error).strip().splitlines() or [""])[0]).strip() or type(error).__name__


def printable(text: str, longest: int = 1500) -> str:
    """Text as one line without escape codes; other characters that cannot be shown become ?, a long text its ends."""
    text = " ".join(without_escapes(text).split())
    if len(text) > longest:
        text = f"{text[: longest * 2 // 3]} ... {text[-longest // 3 :]}"
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def without_escapes(text: str) -> str:
    """Text without terminal codes for bold and color."""
    return re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~])?", "", text)


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
    """Lock a folder, or one file of it, against writes by other processes.

    The system releases the lock of a process that dies. Partially written files of killed processes are removed first.

    Raises:
        ValueError: another process holds the lock.
        WriteError: the folder cannot be created or written.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":  # pragma: no cover - flock is POSIX; other systems do not lock
        yield
        return
    import fcntl

    with writing_to(folder):
        file = (folder / (f".{file_name}.lock" if file_name else ".lock")).open("a+b", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().decode().strip() or "unknown"
            raise ValueError(
                f"{folder / file_name} is in use by process {holder}; wait for it, or choose another folder with --into"
            ) from None
        with suppress(OSError):  # a full disk: the process id is only for the message above
            file.truncate(0)
            os.write(file.fileno(), str(os.getpid()).encode())
        _remove_parts(folder, file_name)
        try:
            yield
        finally:
            _remove_parts(folder, file_name)  # of workers that were stopped when another one failed


def _remove_parts(folder: Path, file_name: str) -> None:
    """Remove partially written files of killed processes."""
    for aside in folder.glob(f".{file_name}.*{_PART}") if file_name else folder.rglob(f".*{_PART}"):
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def differences(found: Any, wanted: Any, path: str = "", terms: tuple[str, str] = ("stored", "requested")) -> list[str]:
    """Where two sets of settings differ, one line for each: "train.loss.beta: stored 6.0, requested 5.0".

    Args:
        path: prefix of the settings' names.
        terms: names of the two sets in the lines.
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        lines = []
        for key in sorted({*found, *wanted}):
            name = f"{path}.{key}" if path else str(key)
            if key not in found:
                lines.append(f"{name}: not {terms[0]}, {terms[1]} {_shown(wanted[key])}")
            elif key not in wanted:
                lines.append(f"{name}: {terms[0]} {_shown(found[key])}, not {terms[1]}")
            else:
                lines += differences(found[key], wanted[key], name, terms)
        return lines
    return [] if found == wanted else [f"{path}: {terms[0]} {_shown(found)}, {terms[1]} {_shown(wanted)}"]


def _shown(value: Any) -> str:
    """A setting as JSON; a long list, such as the names of 200 classes, by its first values and its length."""
    if isinstance(value, list) and len(value) > 10:
        return f"[{json.dumps(value[:5])[1:-1]}, ... {len(value)} in all]"
    return json.dumps(value)
