"""Load external classifiers: a function in a file or package, a weights file, or a published model."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from torch import nn

from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.models.hub import PREFIX, load
from robustgen.models.wide_resnet import Normalize
from robustgen.storage.weights import load_weights
from robustgen.units import show_names


def load_model(
    source: str, info: DatasetInfo, weights: Path | None = None, architecture: str | None = None
) -> nn.Module:
    """Load a classifier from `FILE.py:FUNCTION`, `PACKAGE.MODULE:FUNCTION`, `hub:NAME`, or a weights file.

    Args:
        source: a FUNCTION takes no arguments and returns an `nn.Module`. Its file is imported, which runs its code;
            weights files run no code.
        info: classes and normalization of the data, for a known architecture.
        weights: a file to load into the model that the function returns, or into the published network.
        architecture: architecture of a weights file: wrn-28-10, preact-resnet-18 ...

    Raises:
        ValueError: the source does not exist, fails, or does not match the other arguments.
    """
    path, colon, function = source.rpartition(":")
    if source.startswith(PREFIX):
        if architecture is not None:
            raise ValueError(f"the architecture of {source} is known; leave out --architecture")
        return load(source.removeprefix(PREFIX), info, weights)
    if colon and function.isidentifier():
        model = _call(_module(path), function, source)
        return model if weights is None else load_weights(model, weights)
    if not Path(source).is_file():
        raise ValueError(
            f"expected a folder written by train, a weights file, hub:NAME, FILE.py:FUNCTION or "
            f"PACKAGE.MODULE:FUNCTION, got {source}, which does not exist"
        )
    if architecture is None:
        raise ValueError(
            f"the weights file {source} needs the name of its network: pass --architecture wrn-28-10, "
            "preact-resnet-18 ..."
        )
    return load_weights(build_model(architecture, info), Path(source))


def _module(path: str) -> ModuleType:
    if not path.endswith(".py"):
        try:
            return importlib.import_module(path)
        except ImportError as error:
            raise ValueError(f"cannot import {path} ({error})") from None
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"robustgen_external_{Path(path).stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))  # so that it can import modules of its folder
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} fails when it is imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return module


def _call(module: ModuleType, function: str, source: str) -> nn.Module:
    maker = getattr(module, function, None)
    if not callable(maker):
        known = [name for name, thing in vars(module).items() if callable(thing) and not name.startswith("_")]
        raise ValueError(f"{source}: no function {function!r}; known: {show_names(known) or 'none'}")
    try:
        model = maker()
    except Exception as error:
        raise ValueError(f"{source}() fails: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{source}() must return an nn.Module, got {type(model).__name__}")
    return model


def with_normalization(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Prepend (images - mean) / std to a model that expects normalized images."""
    if len(mean) != len(std) or min(std) <= 0:
        raise ValueError(f"expected equally many means and positive deviations, got {list(mean)} and {list(std)}")
    return nn.Sequential(Normalize(mean, std), model)
