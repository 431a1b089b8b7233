"""Code that stages share: data, previews, batch sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from robustgen.config.recipe import DataConfig, ThreatConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustgen.config.source import Source
    from robustgen.contracts import Progress
    from robustgen.datasets import Splits
    from robustgen.images import DatasetInfo, ImageSet
    from robustgen.proxy.store import ProxySet
    from robustgen.threat import ThreatModel


class Stage(Protocol):
    """A step of a run as a value: fields hold its settings and folders.

    Calling it does the work on a device ("cpu", "cuda", "cuda:1"), reports progress, and returns one sentence for the
    user. Calling it again resumes unfinished work. torch is imported only then.

    A stage with a true `shared` may be called in several processes at once, each with its own device: they share the
    work (`runtime.distributed`), and the files are the same as of one process, up to rounding in training.
    """

    def __call__(self, device: str, progress: Progress) -> str: ...


def load_data(data: DataConfig) -> Splits:
    """Training, validation and test images of a recipe's data."""
    from robustgen.datasets import load_splits

    return load_splits(data)


def load_judged(data: DataConfig, source: Source) -> tuple[ImageSet, nn.Module]:
    """The test images, labels numbered by the names of the classifier's classes where it knows them, and it.

    Raises:
        ValueError: nothing there, or images and classifier that do not fit each other.
    """
    from robustgen.datasets import load_test
    from robustgen.models.sources import images_known_to, open_classifier

    known = images_known_to(source)
    test = load_test(data, None if known is None else known.classes, source.place)
    if known is not None and known.shape[0] != test.info.shape[0]:
        raise ValueError(
            f"{source.place} takes {'RGB' if known.shape[0] == 3 else 'gray'} images, those of {test.origin} have "
            f"{test.info.shape[0]} channels; add --set data.color={'rgb' if known.shape[0] == 3 else 'gray'}"
        )
    return test, open_classifier(source, test.info)


def check_not_begun_by_one(path: Path, finished: bool) -> None:
    """Raise ValueError if one process has written a part of a result that several processes are to write."""
    if not finished:
        raise ValueError(f"{path} was begun by one process; let one finish it (--gpus-per-stage 1), or remove it")


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
