"""A classifier from a folder, a weights file, a function or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from robustgen.images import DatasetInfo


@dataclass(frozen=True)
class Source:
    """Where a classifier comes from.

    place         a folder made by train, a weights file, FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION or
                  hub:NAME
    weights       a file to load into what the function returned, or into the published network
    architecture  of a weights file
    normalise     "none", "data" for mean and deviation of the data set, or MEAN/DEVIATION, a number a channel
    """

    place: str
    weights: Path | None = None
    architecture: str | None = None
    normalise: str = "none"


def open_classifier(source: Source, info: DatasetInfo) -> nn.Module:
    """The classifier of a source, in evaluation mode, its parameters without gradients.

    Raises:
        ValueError: nothing there, or something that does not fit.
    """
    from robustgen.models.external import load_model, with_normalization
    from robustgen.models.saved import load_classifier

    if Path(source.place).is_dir():
        for given, name in ((source.weights, "--weights"), (source.architecture, "--architecture")):
            if given is not None:
                raise ValueError(f"{source.place} is a folder made by train, which needs no {name}")
        return load_classifier(Path(source.place)).requires_grad_(False)
    model = load_model(source.place, info, source.weights, source.architecture)
    if source.normalise != "none":
        if source.architecture is not None or source.place.startswith("hub:"):
            raise ValueError(f"{source.place} normalizes by itself; leave out --normalise")
        model = with_normalization(model, *_normalization(source.normalise, info))
    return model.eval().requires_grad_(False)


def _normalization(text: str, info: DatasetInfo) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of each channel: the data set's, or as written."""
    if text == "data":
        return info.mean, info.std
    mean, slash, std = text.partition("/")
    try:
        values = [float(x) for x in mean.split(",")], [float(x) for x in std.split(",")]
    except ValueError:
        slash = ""
    if not slash or len(values[0]) != info.shape[0] or len(values[1]) != info.shape[0]:
        raise ValueError(
            f"--normalise takes none, data, or MEAN/DEVIATION with {info.shape[0]} numbers each, such as "
            f"{','.join(map(str, info.mean))}/{','.join(map(str, info.std))}; got {text!r}"
        )
    return values
