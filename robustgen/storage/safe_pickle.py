"""Read published pickles without running code: NumPy arrays and plain values only."""

from __future__ import annotations

import io
import math
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.storage.arrays import read_header
from robustgen.storage.files import first_line


class _Array(np.ndarray):
    """An array while it is being unpickled: NumPy makes room for one of objects without looking how many there are."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, content = state
        if dtype.hasobject and (not isinstance(content, list) or len(content) != math.prod(shape)):
            raise pickle.UnpicklingError(f"an array of shape {shape} has another number of values")
        super().__setstate__(state)


def _array(kind: object, shape: tuple[int, ...], dtype: object) -> np.ndarray:
    """The empty array that a pickle then gives its shape and content."""
    if kind is not _NDARRAY or shape != (0,):
        raise pickle.UnpicklingError(f"it starts an array of shape {shape!r}, expected (0,)")
    return np.ndarray.__new__(_Array, shape, "b")


def _scalar(dtype: np.dtype, content: bytes | str) -> Any:
    content = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(dtype, np.dtype) or dtype.hasobject or len(content) != dtype.itemsize:
        raise pickle.UnpicklingError(f"a number of type {dtype} has another size")
    return np.frombuffer(content, dtype)[0]


def _from_buffer(content: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as pickles of protocol 2 write them."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}, expected latin1")
    return text.encode("latin1")


_NDARRAY = object()
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("haiku._src.data_structures", "FlatMapping"): dict,
    ("haiku._src.data_structures", "FlatMap"): dict,
    ("haiku._src.data_structures", "frozendict"): dict,
    ("collections", "OrderedDict"): dict,
}
"""Functions and types that pickles of NumPy arrays refer to, in old and new NumPy and in Python 2, and what is used in
their place; mappings of other packages are read as plain dictionaries."""


_PythonUnpickler: Any = pickle._Unpickler
"""The one in C makes room for as many values as a damaged file says it has."""


class _ArraysOnly(_PythonUnpickler):  # type: ignore[misc]
    dispatch = _PythonUnpickler.dispatch.copy()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which plain image data does not need")
        return _ALLOWED[module, name]

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(min(length, sys.maxsize))))  # not more than there is

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def load_plain_pickle(path: Path, encoding: str = "bytes") -> Any:
    """Read a pickle that holds NumPy arrays, numbers, strings and containers of them.

    Raises:
        ValueError: the file is missing, truncated, or holds anything else; none of its code is run.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    return _load(path, path.read_bytes(), encoding)


def load_object_array(path: Path) -> Any:
    """Read the objects of a `.npy` file that was saved from Python objects, as `load_plain_pickle` does.

    Raises:
        ValueError: the file is missing, not a `.npy`, truncated, or holds anything but arrays, values and containers.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    with path.open("rb") as file:
        try:
            _, _, dtype = read_header(file)
        except ValueError as error:
            raise ValueError(f"{path} is not an .npy file ({error})") from None
        if not dtype.hasobject:
            raise ValueError(f"{path} holds one array of {dtype}, expected Python objects")
        content = _load(path, file.read(), "latin1")
    return content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content


def _load(path: Path, content: bytes, encoding: str) -> Any:
    try:
        return _ArraysOnly(io.BytesIO(content), encoding=encoding).load()
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise ValueError(f"{path} cannot be read as a pickle of plain arrays ({first_line(error)})") from None
