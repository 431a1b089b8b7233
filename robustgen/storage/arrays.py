"""Arrays on disk: written atomically, never unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.storage.files import atomic_write


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an uncompressed `.npz` atomically; equal arrays give equal bytes."""
    with atomic_write(path) as file:
        np.savez(file, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` atomically."""
    with atomic_write(path) as file:
        np.save(file, array)


_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, MemoryError)


def array_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an `.npz`, whose contents are not read.

    Raises:
        ValueError: the file is missing or damaged.
    """
    with _opened(path) as stored:
        return tuple(stored.files)


def load_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an `.npz`, all or those that are named; never unpickles.

    Raises:
        ValueError: the file is missing, damaged or has pickled content.
    """
    with _opened(path) as stored:
        found = {}
        for name in stored.files if names is None else names:
            try:
                found[name] = stored[name]
            except _DAMAGE as error:
                raise _unreadable(path, ".npz", error, name) from None
        return found


def load_array(path: Path) -> np.ndarray:
    """Read an `.npy`; never unpickles.

    Raises:
        ValueError: the file is missing, damaged or has pickled content.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
    except _DAMAGE as error:
        raise _unreadable(path, ".npy", error) from None
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} is not an .npy but an .npz; give it this ending")
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    with path.open("rb") as file:
        try:
            stored = np.load(file, allow_pickle=False)
        except _DAMAGE as error:
            raise _unreadable(path, ".npz", error) from None
        if isinstance(stored, np.ndarray):
            raise ValueError(f"{path} is not an .npz but an .npy; give it this ending")
        with stored:
            yield stored


def _unreadable(path: Path, kind: str, error: Exception, name: str = "") -> ValueError:
    if "allow_pickle" in str(error) and "Object arrays" in str(error):
        what = f"{path}: {name!r}" if name else str(path)
        return ValueError(
            f"{what} holds Python objects, which would have to be unpickled; save numbers, or names with .astype(str)"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return ValueError(f"cannot read {path}: {error.strerror}")
    return ValueError(f"{path} is damaged or not an {kind} ({error})")
