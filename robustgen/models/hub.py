"""Published classifiers by name: `hub:NAME` wherever a model is asked for, from weights that the user has."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.models.catalog import ABSENT, RELEASE_INFOS, RELEASES, Release
from robustgen.models.wide_resnet import Normalize
from robustgen.storage.downloads import weights_folder
from robustgen.storage.weights import assign_weights, read_weights

PREFIX = "hub:"


def find_release(name: str, info: DatasetInfo | None = None) -> tuple[str, Release]:
    """A published classifier and its full name, DATA/NORM/NAME.

    Args:
        name: in full, or the end of it: NORM/NAME, or NAME. Of several that fit, those for images like `info`'s are
            meant, and of these the linf model, as in RobustBench.
        info: the images at hand.

    Raises:
        ValueError: unknown, or for other images than those at hand.
    """
    named = {full: release for full, release in RELEASES.items() if f"/{full}".endswith(f"/{name}")}
    if not named:
        if absent := find_absent(name):
            raise ValueError(
                f"{PREFIX}{absent} cannot be opened: {ABSENT[absent]}; give FILE.py:FUNCTION instead, a function that "
                "returns RobustBench's load_model(...)"
            )
        short = sorted({full.rpartition("/")[2] for full in RELEASES})
        wrong = name.rpartition("/")[2].lower()
        alike = [known for known in short if known.lower().startswith(wrong[:4])]
        alike.sort(key=lambda known: not known.lower().startswith(wrong[:8]))  # the same author and year first
        alike = alike or get_close_matches(name, short) or short
        raise ValueError(
            f"no published model is called {name!r}; known: {', '.join(alike[:4])} ... (see: robustgen list hub)"
        )
    fitting = {
        full: release for full, release in named.items() if info is None or _fits(RELEASE_INFOS[release.data], info)
    }
    if not fitting:
        wanted = RELEASE_INFOS[next(iter(named.values())).data]
        assert info is not None
        raise ValueError(
            f"{PREFIX}{name} is for {wanted.name}, images {wanted.shape} of {len(wanted.classes)} classes; {info.name} "
            f"has {info.shape} of {len(info.classes)}; say which data with --data"
        )
    if info is not None and len({release.data for release in fitting.values()}) > 1:
        fitting = {
            full: release for full, release in fitting.items() if RELEASE_INFOS[release.data].name == info.name
        } or fitting
    full = min(fitting, key=lambda full: (full.split("/")[1] != "linf", list(RELEASES).index(full)))
    return full, fitting[full]


def find_absent(name: str) -> str | None:
    """The full name of a model of RobustBench that cannot be opened here, of which `name` is the end; else None."""
    return next((full for full in ABSENT if f"/{full}".endswith(f"/{name}")), None)


def _fits(own: DatasetInfo, other: DatasetInfo) -> bool:
    return own.shape == other.shape and len(own.classes) == len(other.classes)


def weights_candidates(full: str, release: Release) -> list[Path]:
    """Paths where the weights may be, the fetched file first; RobustBench's own folder counts when named."""
    data, norm, name = full.split("/")
    folder = weights_folder()
    return [
        *(folder / file.name for file in release.files),
        folder / data / norm.capitalize() / f"{name}.pt",
        folder / f"{name}.pt",
    ]


def locate(full: str, release: Release) -> Path:
    """The file of a published classifier's weights.

    Raises:
        ValueError: it is not there; says which file from where goes to which place.
    """
    candidates = weights_candidates(full, release)
    for place in candidates:
        if place.is_file():
            return place
    first = release.files[0]
    source = first.url or f"its authors ({release.cited}; no lasting address is known)"
    fetch = f"; robustgen fetch {full} does both" if first.url else ""
    raise ValueError(
        f"{PREFIX}{full} needs its weights: get them from {source} and put them at {candidates[0]}, or give the file "
        f"with --weights FILE{fetch}"
    )


def load_release(name: str, info: DatasetInfo | None = None, weights: Path | None = None) -> nn.Module:
    """A published classifier with its weights, which must fit exactly; it normalizes by itself, as published.

    Raises:
        ValueError: an unknown name, other images, no weights there, or weights of another network.
    """
    full, release = find_release(name, info)
    return open_release(release, weights or locate(full, release))


def open_release(release: Release, path: Path) -> nn.Module:
    """The network of a published classifier with the weights of a file: a checkpoint, or JAX's `.npy`."""
    model = build(release)
    network = model[-1] if isinstance(model, nn.Sequential) else model
    weights = _without_constants(read_weights(path), network, path)
    assign_weights(network, weights, path, release.unused)
    return model


def _without_constants(weights: dict[str, Tensor], network: nn.Module, path: Path) -> dict[str, Tensor]:
    """The weights without the normalization constants that some files hold, which must be those of the catalog.

    Raises:
        ValueError: they are others.
    """
    normalize = network.normalize
    if not isinstance(normalize, Normalize):
        return weights
    ours = {"mu": normalize.mean, "mean": normalize.mean, "sigma": normalize.std, "std": normalize.std}
    for name in [name for name in weights if name.rpartition(".")[2] in ours]:
        found, expected = weights.pop(name).flatten(), ours[name.rpartition(".")[2]].flatten()
        if found.shape != expected.shape or not torch.allclose(found, expected, atol=1e-4):
            raise ValueError(
                f"{path} normalizes with {name} {found.tolist()}, the catalog with {expected.tolist()}; "
                "it is not the published file"
            )
    return weights


def build(release: Release) -> nn.Module:
    """The network of a published classifier, without its weights; behind its padding where it has one."""
    model = build_model(release.architecture, RELEASE_INFOS[release.data])
    return nn.Sequential(nn.ZeroPad2d(release.padding), model) if release.padding else model
