"""Reading published pickles without running code: NumPy arrays and plain values, nothing else."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

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
"""What pickles of NumPy arrays name, in old and new NumPy and in Python 2."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which plain image data does not need")
        return super().find_class(module, name)


def load_plain_pickle(path: Path, encoding: str = "bytes") -> Any:
    """The content of a pickle that holds NumPy arrays, numbers, strings and containers of them.

    Raises:
        ValueError: missing, truncated, or with anything else inside; nothing of it is run.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        return _ArraysOnly(io.BytesIO(path.read_bytes()), encoding=encoding).load()
    except Exception as error:  # a damaged pickle may raise nearly anything
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} cannot be read as a pickle of plain arrays ({detail})") from None
