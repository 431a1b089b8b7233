"""Arrays on disk: written atomically, never unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
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


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz`; never unpickles.

    Raises:
        ValueError: the file is missing, damaged or has pickled content.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError, MemoryError) as error:
        raise ValueError(f"{path} is damaged or not an .npz ({error})") from None
