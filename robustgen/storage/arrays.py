"""Arrays on disk: written atomically, never unpickled, and read into no more memory than they have bytes for."""

from __future__ import annotations

import json
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from robustgen.storage.files import atomic_write, first_line
from robustgen.units import show_value

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, struct.error, NotImplementedError, RuntimeError)
"""What reading a damaged zip archive raises."""
_PIECE = 1 << 22
_DEFLATES_TO = 1100
"""Deflate makes data at most 1,032 times smaller; what claims more is damaged."""


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an uncompressed `.npz` atomically; equal arrays give equal bytes."""
    with atomic_write(path) as file:
        np.savez(file, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` atomically."""
    with atomic_write(path) as file:
        np.save(file, array)


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran order, type) of an `.npy`; the file is then at its data.

    Raises:
        ValueError: no such header.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        with warnings.catch_warnings(action="ignore"):  # headers of Python 2 are valid
            shape, fortran, dtype = read[version](file)
    except Exception as error:  # a damaged header may raise nearly anything
        raise ValueError(first_line(error)) from None
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, fortran, dtype


def array_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an `.npz`, whose contents are not read.

    Raises:
        ValueError: the file is missing or damaged.
    """
    with _opened(path) as archive:
        return tuple(name.removesuffix(".npy") for name in archive.namelist())


def load_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an `.npz`, all or those that are named; never unpickles.

    Raises:
        ValueError: the file is missing, damaged or has pickled content.
    """
    with _opened(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return {name: _member(archive, members[name], path) for name in (members if names is None else names)}


def load_array(path: Path) -> np.ndarray:
    """Read an `.npy`; never unpickles.

    Raises:
        ValueError: the file is missing, damaged or has pickled content.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    if zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npy but an .npz; give it this ending")
    try:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size, str(path))
    except OSError as error:
        if error.errno is not None:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
        raise ValueError(f"{path} is damaged or not an .npy ({first_line(error)})") from None
    except _PickledError:
        raise
    except (*DAMAGE, ValueError, MemoryError) as error:
        raise ValueError(f"{path} is damaged or not an .npy ({first_line(error)})") from None


class _PickledError(ValueError):
    """Content that would have to be unpickled."""


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise _PickledError(f"{path} is not an .npz but an .npy; give it this ending")
            with zipfile.ZipFile(file) as archive:
                yield archive
    except _PickledError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
        raise ValueError(f"{path} is damaged or not an .npz ({first_line(error)})") from None
    except (*DAMAGE, ValueError, KeyError, MemoryError) as error:
        raise ValueError(f"{path} is damaged or not an .npz ({first_line(error)})") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    """An array of the archive whose type and shape are those of the bytes that there are for it."""
    if not info.filename.endswith(".npy"):
        raise ValueError(f"it holds {info.filename!r}, which is not an array")
    stored, deflated = info.compress_type == zipfile.ZIP_STORED, info.compress_type == zipfile.ZIP_DEFLATED
    most = info.compress_size * _DEFLATES_TO if deflated else info.compress_size if stored else -1
    if info.file_size > most:
        raise ValueError(f"{info.filename!r} says it has {info.file_size:,} bytes, and cannot have them")
    with archive.open(info) as file:
        array = _array(file, info.file_size, f"{path}: {info.filename.removesuffix('.npy')!r}")
        file.read(1)  # lets zipfile compare the check sum
    return array


def _array(file: IO[bytes], length: int, what: str) -> np.ndarray:
    """The array of an open `.npy` of `length` bytes."""
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise _PickledError(
            f"{what} holds Python objects, which would have to be unpickled; save numbers, or names with .astype(str)"
        )
    size = math.prod(shape) * dtype.itemsize
    if file.tell() + size != length:
        raise ValueError(f"{what} says it is {dtype} {shape}, but holds {length:,} bytes")
    array = np.empty(shape, dtype, order="F" if fortran else "C")
    wanted = array.reshape(-1, order="A").view(np.uint8).data if array.size and dtype.itemsize else memoryview(b"")
    taken = 0
    while taken < size:
        count = file.readinto(wanted[taken : taken + _PIECE])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"{what} ends after {taken:,} of {size:,} bytes")
        taken += count
    return array


def read_about(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The settings that a record keeps as JSON in its array `about`. Raises ValueError or KeyError without them."""
    try:
        about = json.loads(str(arrays["about"]))
    except RecursionError as error:
        raise ValueError(f"about: {error}") from None
    if not isinstance(about, dict):
        raise ValueError(f"about: expected settings by name, got {show_value(about)}")
    return about


def check_array(name: str, array: np.ndarray, kinds: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless an array has this shape, and a type of one of NumPy's kinds: letters of "iufb"."""
    if array.dtype.kind not in kinds or array.shape != shape:
        what = {"i": "integers", "f": "numbers", "b": "true or false"}[kinds[0]]
        raise ValueError(f"{name} must be {what} of shape {shape}, got {array.dtype} of shape {array.shape}")
