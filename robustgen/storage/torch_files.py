"""Read files of torch.save without running code, with reasons of our own when that fails."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from robustgen.storage.files import first_line


def load_torch_file(path: Path) -> Any:
    """What torch.save wrote, on the CPU: tensors, plain values and containers of them.

    Raises:
        ValueError: why the file cannot be read, as part of a sentence. What torch says is not passed on: it advises to
            load the file with the code in it.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: zip, pickle, key and runtime errors
        raise ValueError(_reason(path, error)) from None


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start:
        return "it is empty"
    if start.startswith(b"<"):
        return "it is a web page"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file"
    if found := re.search(r"(?:Unsupported global: GLOBAL|Unsupported class) ([\w.]+\w)", str(error)):
        return f"it holds code or objects, {found[1]}; save model.state_dict() instead"
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            return "it is cut off"
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return "it is a TorchScript program; save its state_dict() instead"
        return "its content is damaged"
    if start.startswith(b"\x80"):
        return "it is a pickle of other objects, or damaged; save model.state_dict() instead"
    said = re.split(r"(?<=[.!]) |: This is an internal", first_line(error))[0]
    return "torch.save did not write it" if "load" in said.lower() or "weights_only" in said else said
