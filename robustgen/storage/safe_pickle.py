"""Read published pickles without running code: NumPy arrays and plain values only."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.storage.files import first_line

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
"""Functions and types that pickles of NumPy arrays refer to, in old and new NumPy and in Python 2."""


_STAND_INS = {
    ("haiku._src.data_structures", "FlatMapping"): dict,
    ("haiku._src.data_structures", "FlatMap"): dict,
    ("haiku._src.data_structures", "frozendict"): dict,
    ("collections", "OrderedDict"): dict,
}
"""Mappings of other packages, which are read as plain dictionaries."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which plain image data does not need")
        return super().find_class(module, name)


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
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = read(file)
        except (ValueError, EOFError) as error:
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
