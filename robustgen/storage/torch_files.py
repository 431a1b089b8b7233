"""Read files of torch.save without running code; of files with other objects, only the tensors.

Plain pickles of networks too, such as NVIDIA's, which hold the source code of their classes: it is never executed.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustgen.storage.files import first_line, printable

try:
    import torch._weights_only_unpickler as _of_torch
except ImportError:  # a private module: without it torch.load is used as it is
    _of_torch = None  # type: ignore[assignment]


def load_torch_file(path: Path) -> Any:
    """The content of a file of torch.save, on the CPU: tensors, plain values and containers of them.

    Raises:
        ValueError: why the file cannot be read, as part of a sentence. torch's own message is not shown, because it
            suggests to run the code in the file.
    """
    try:
        # Where this variable is set torch.load accepts no unpickler but its own.
        if _of_torch is None or os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD"):
            with warnings.catch_warnings(action="ignore"):
                return torch.load(path, map_location="cpu", weights_only=True)
        return _read(path, _PLAIN)
    except Exception as error:  # torch raises many kinds: zip, pickle, key and runtime errors
        raise ValueError(_reason(path, error)) from None


class _PlainUnpickler(_of_torch.Unpickler if _of_torch else object):  # type: ignore[misc]
    """What `weights_only=True` uses. torch searches its messages for patterns, which takes hours where one is long."""

    def load(self) -> Any:
        try:
            return super().load()
        except Exception as error:
            raise pickle.UnpicklingError(printable(str(error)[:2000])) from None


def _read(path: Path, unpicklers: types.SimpleNamespace) -> Any:
    with warnings.catch_warnings(action="ignore"):
        # Said before torch would load a program; as an error it keeps torch from that.
        warnings.filterwarnings("error", message=".*looks like a TorchScript archive")
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=unpicklers)


class Inert:
    """Placeholder for an object of any other class: it stores the state from the file, and does nothing."""

    origin: ClassVar[str] = ""
    state: object = None

    def __new__(cls, *_: object, **__: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, _: object, __: object) -> None:
        pass

    def append(self, _: object) -> None:
        pass

    def extend(self, _: object) -> None:
        pass

    def tensors(self) -> dict[str, Tensor] | None:
        """Parameters and buffers by name if the object was an `nn.Module`, else None."""
        if not isinstance(self.state, Mapping) or not {"_parameters", "_modules"} <= self.state.keys():
            return None
        found: dict[str, Tensor] = {}
        for group in ("_parameters", "_buffers"):
            values = self.state.get(group) or {}
            found |= {name: value for name, value in values.items() if isinstance(value, Tensor)}
        for name, child in self.state["_modules"].items():
            inner = child.tensors() if isinstance(child, Inert) else None
            found |= {f"{name}.{key}": value for key, value in (inner or {}).items()}
        return found


def _rebuild_from_type(function: Any, _: object, arguments: tuple[Any, ...], __: object) -> object:
    """A tensor of a subclass, as a plain one; `function` is one of ALLOWED, or inert."""
    return function(*arguments)


def _storage(content: bytes) -> Any:
    """The storage of a tensor in a plain pickle: a file of torch.save within the file."""
    with warnings.catch_warnings(action="ignore"):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _persistent(meta: Mapping[str, Any]) -> Inert:
    """An object of NVIDIA's torch_utils.persistence: its state, without the class whose source code comes with it."""
    name = str(meta["class_name"])
    found: Inert = type(name, (Inert,), {"origin": name})()
    found.state = meta["state"]
    return found


ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("dnnlib.util", "EasyDict"): dict,
    **{("torch", name): kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)},
}
"""Classes and functions that a file may name; all others become `Inert`."""


class _InertUnpickler(pickle._Unpickler):
    """In Python: the one in C makes room for as many values as a damaged file says it has."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        return type(name, (Inert,), {"origin": f"{module}.{name}"})


def _module(unpickler: Any) -> types.SimpleNamespace:
    """An unpickler in the form in which torch.load takes one."""
    return types.SimpleNamespace(
        Unpickler=unpickler, load=lambda file, **options: unpickler(file, **options).load(), __name__="robustgen"
    )


_PLAIN, _INERT = _module(_PlainUnpickler), _module(_InertUnpickler)


def load_tensors(path: Path) -> Any:
    """As `load_torch_file`; objects of other classes become `Inert`, and none of their code is run.

    Checkpoints hold argument namespaces, NumPy scalars, optimizers, or whole pickled networks.

    Raises:
        ValueError: why the file cannot be read, as part of a sentence.
    """
    try:
        return load_torch_file(path)
    except ValueError as error:
        if "objects" not in str(error):
            raise
        try:
            return _read(path, _INERT)
        except Exception:  # damage that only the second unpickler meets
            raise error from None


def load_objects(path: Path) -> Any:
    """As `load_tensors`, of plain pickles too; objects of NVIDIA's persistence become `Inert` with their class's name.

    Raises:
        ValueError: why the file cannot be read, as part of a sentence.
    """
    with path.open("rb") as file:
        start = file.read(len(_LEGACY))
        if not start.startswith(b"\x80") or start == _LEGACY:
            return load_tensors(path)
        file.seek(0)
        try:
            return _InertUnpickler(file).load()
        except MemoryError:
            raise
        except Exception:  # a damaged pickle may raise nearly anything
            raise ValueError("it is cut off, damaged, or a pickle of other things than tensors") from None


_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
"""How files of torch.save begin that are no zip archives."""


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
    foreign = isinstance(error, pickle.UnpicklingError) or "load" in said.lower() or "weights_only" in said
    return "torch.save did not write it" if foreign else said
