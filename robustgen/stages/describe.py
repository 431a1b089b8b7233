"""Describe the data of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import DataConfig
from robustgen.stages.common import load_data, preview
from robustgen.storage.arrays import save_arrays
from robustgen.storage.files import write_json

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Describe:
    """Save the sizes of the splits, and some real images for the report."""

    data: DataConfig
    path: Path
    samples: Path

    def __call__(self, device: str, progress: Progress) -> str:
        splits = load_data(self.data)
        parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        info = splits.train.info
        save_arrays(self.samples, preview(splits.train.images, splits.train.labels, len(info.classes)))
        write_json(
            self.path,
            {
                "name": self.data.name,
                "classes": info.classes,
                "shape": info.shape,
                "counts": {name: len(part) for name, part in parts.items()},
            },
        )
        return ", ".join(f"{len(part)} {name}" for name, part in parts.items()) + " images"
