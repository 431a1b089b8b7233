"""What several stages share: data, previews, sizes of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustgen.config.recipe import DataConfig, ThreatConfig

if TYPE_CHECKING:
    from robustgen.threat import ThreatModel


def load_data(data: DataConfig) -> Any:
    """The splits of a recipe's images."""
    from robustgen.datasets import load_splits

    return load_splits(data)


def preview(images: Any, labels: Any, classes: int, each: int = 10) -> dict[str, Any]:
    """The first `each` images of each class, class after class, with their labels."""
    import numpy as np

    rows = np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(classes)])
    return {"images": images[rows], "labels": labels[rows]}


def threat_model(threat: ThreatConfig) -> ThreatModel:
    from robustgen.threat import ThreatModel

    return ThreatModel(threat.norm, threat.eps)


def images_in_a_pass(shape: tuple[int, int, int], device: str) -> int:
    """How many images go through a network together: on a CPU what its caches hold, on a GPU what fills it."""
    pixels = shape[1] * shape[2]
    return max(16, 2**16 // pixels if device == "cpu" else 2**20 // pixels)
