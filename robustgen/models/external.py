"""Classifiers from elsewhere: a network of others, a program, a weights file, a published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.models.foreign import adapted, build_network, open_program
from robustgen.models.hub import PREFIX, load
from robustgen.models.wide_resnet import Normalize
from robustgen.storage.references import Reference
from robustgen.storage.weights import load_weights


def load_model(
    source: str, info: DatasetInfo, weights: Path | None = None, architecture: str | None = None
) -> nn.Module:
    """A classifier by a reference (`foreign.Reference`), `hub:NAME`, or the path of a weights file or a program.

    Args:
        source: a function or class is called with what its signature takes of the data's facts. Naming one runs its
            file's code, as importing it would; weights files and programs run no Python.
        info: classes, shape and normalization of the data.
        weights: a file to load into the network, or into the published one.
        architecture: of a weights file: wrn-28-10, preact-resnet-18, or a reference.

    Raises:
        ValueError: what was expected, what came, what to do.
    """
    if source.startswith(PREFIX):
        if architecture is not None:
            raise ValueError(f"{source} knows its architecture; leave out --architecture")
        return load(source.removeprefix(PREFIX), info, weights)
    if not Path(source).is_file():
        reference = Reference.parse(source)
        if reference is None:
            raise ValueError(
                f"{source} is neither a folder made by train, nor a file of weights or a program, nor hub:NAME, nor "
                "FILE.py:NAME, PACKAGE.MODULE:NAME, timm:NAME or hf:FOLDER"
            )
        network = build_network(reference, info)
        return adapted(network if weights is None else load_weights(network, weights), info)
    if architecture is None:
        program = open_program(Path(source))
        if program is not None:
            return adapted(program, info)
        raise ValueError(
            f"{source} holds weights; say of which network: --architecture wrn-28-10, preact-resnet-18, net.py:make ..."
        )
    reference = Reference.parse(architecture)
    network = build_model(architecture, info) if reference is None else build_network(reference, info)
    loaded = load_weights(network, Path(source))
    return loaded if reference is None else adapted(loaded, info)


def with_normalization(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """The model behind (images - mean) / std, for networks that expect normalized images."""
    if len(mean) != len(std) or min(std) <= 0:
        raise ValueError(f"expected as many means as positive deviations, got {list(mean)} and {list(std)}")
    return nn.Sequential(Normalize(mean, std), model)
