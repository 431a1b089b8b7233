"""Code that stages share: data, previews, batch sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from robustgen.config.recipe import DataConfig, ThreatConfig

if TYPE_CHECKING:
    from torch import Tensor

    from robustgen.contracts import Progress
    from robustgen.datasets import Splits
    from robustgen.images import DatasetInfo
    from robustgen.proxy.store import ProxySet
    from robustgen.threat import ThreatModel


class Stage(Protocol):
    """A step of a run as a value: fields hold its settings and folders.

    Calling it does the work on a device ("cpu", "cuda", "cuda:1"), reports progress, and returns one sentence for the
    user. Calling it again resumes unfinished work. torch is imported only then.
    """

    def __call__(self, device: str, progress: Progress) -> str: ...


def load_data(data: DataConfig) -> Splits:
    """Training, validation and test images of a recipe's data."""
    from robustgen.datasets import load_splits

    return load_splits(data)


def first_images(proxies: ProxySet, device: str) -> Tensor:
    """The first two images (2, C, H, W) in [0, 1], to try a classifier on."""
    import torch

    from robustgen.images import to_unit

    return to_unit(torch.from_numpy(proxies.block(0, min(2, len(proxies)))).to(device).permute(0, 3, 1, 2))


def check_same_shape(proxies: ProxySet, info: DatasetInfo) -> None:
    """Raise ValueError unless generated images have the shape of the real ones."""
    if tuple(proxies.shape) != tuple(info.shape):
        raise ValueError(
            f"{proxies.folder} holds images of shape {tuple(proxies.shape)}, the data set {info.name} "
            f"{tuple(info.shape)}; choose other real images with --data"
        )


def preview(images: Any, labels: Any, classes: int, each: int = 10) -> dict[str, Any]:
    """The first `each` images of each class, class after class, with their labels."""
    import numpy as np

    rows = np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(classes)])
    return {"images": images[rows], "labels": labels[rows]}


def threat_model(threat: ThreatConfig) -> ThreatModel:
    """The threat model of a configuration."""
    from robustgen.threat import ThreatModel

    return ThreatModel(threat.norm, threat.eps)


def images_in_a_pass(shape: tuple[int, int, int], device: str) -> int:
    """Images per forward pass of sampling and labeling: as many as fit a CPU's caches, or fill a GPU."""
    pixels = shape[1] * shape[2]
    return max(16, 2**16 // pixels if device == "cpu" else 2**20 // pixels)
