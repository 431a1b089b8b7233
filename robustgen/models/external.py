"""Load external classifiers: a network of others, a program, a weights file, or a published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from robustgen.config.source import not_there
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.models.foreign import adapted, build_network, open_program
from robustgen.models.hub import PREFIX, load_release
from robustgen.models.wide_resnet import Normalize
from robustgen.storage.references import Reference
from robustgen.storage.weights import load_weights


def load_external(
    source: str, info: DatasetInfo, weights: Path | None = None, architecture: str | None = None
) -> nn.Module:
    """Load a classifier from a reference (`foreign.Reference`), `hub:NAME`, or a file of weights or a program.


    Args:
        source: a function or class receives the facts of the dataset that its signature has arguments for. Its file is
            imported, which runs its code; weights files and programs run no Python.
        info: classes, shape and normalization of the data.
        weights: a file to load into the network, or into the published one.
        architecture: architecture of a weights file: wrn-28-10, preact-resnet-18, or a reference.

    Raises:
        ValueError: the source does not exist, fails, or does not match the other arguments.
    """
    if source.startswith(PREFIX):
        if architecture is not None:
            raise ValueError(f"the architecture of {source} is known; leave out --architecture")
        return load_release(source.removeprefix(PREFIX), info, weights)
    if not Path(source).is_file():
        reference = Reference.parse(source)
        if reference is None:
            raise ValueError(not_there(source))
        if architecture is not None:
            raise ValueError(f"the architecture of {source} is known; leave out --architecture")
        network = build_network(reference, info)
        return adapted(network if weights is None else load_weights(network, weights), info)
    if weights is not None:
        raise ValueError(
            f"{source} is a file of weights or a program, but --weights {weights} is given too; leave one of them out, "
            "or name the network: FILE.py:NAME"
        )
    if source.endswith(".py"):
        raise ValueError(f"{source} is a file of Python; expected the name of a function or class in it: {source}:NAME")
    if architecture is None:
        program = open_program(Path(source))
        if program is not None:
            return adapted(program, info)
        raise ValueError(
            f"the weights file {source} needs the name of its network: pass --architecture wrn-28-10, "
            "preact-resnet-18, net.py:make ..."
        )
    reference = Reference.parse(architecture)
    network = build_model(architecture, info) if reference is None else build_network(reference, info)
    loaded = load_weights(network, Path(source))
    return loaded if reference is None else adapted(loaded, info)


def with_normalization(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Prepend (images - mean) / std to a model that expects normalized images."""
    if len(mean) != len(std) or min(std) <= 0:
        raise ValueError(f"expected equally many means and positive deviations, got {list(mean)} and {list(std)}")
    return nn.Sequential(Normalize(mean, std), model)
