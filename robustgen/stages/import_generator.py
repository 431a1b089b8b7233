"""Make a generator folder of a published generator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.config.recipe import DataConfig

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class ImportGenerator:
    """Convert a published generator's file into the folder that `sample` and recipes take; none of its code is run.

    data  whose classes its labels are; by default those of the data set in the file's name, or numbers
    """

    file: Path
    folder: Path
    data: DataConfig | None = None

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.generators import save_generator, weights_file
        from robustgen.generators.published import read_published
        from robustgen.proxy.store import digest_of
        from robustgen.storage.published_generators import published_as

        name, known = published_as(self.file)
        dataset, names = self._classes(known.dataset if known else name)
        opened = read_published(self.file, names, dataset, strict=self.data is not None)
        file = weights_file(self.file) if self.file.is_dir() else self.file
        source: dict[str, Any] = {"file": self.file.name, "sha256": digest_of(file), "layout": opened.layout}
        if known is not None:
            source |= {"url": known.file.url, "license": known.license}
        save_generator(self.folder, opened.model, opened.config, opened.info, imported=source)
        size = sum(parameter.numel() for parameter in opened.model.parameters()) / 1e6
        labels = f"{len(opened.info.classes)} classes" if opened.conditional else "unconditional"
        said = [f"{opened.layout}: {size:.1f} million parameters", "x".join(map(str, opened.info.shape)), labels]
        terms = f"; license of the weights: {known.license}" if known else "; check the license of the weights"
        how = f"; its authors sample it with {known.sampling}" if known and known.sampling else ""
        return f"{', '.join(said)}{terms}{how}"

    def _classes(self, name: str) -> tuple[str, tuple[str, ...]]:
        """The data set and the names of its classes: the user's, or by the beginning of a name (cifar10-32x32 ...)."""
        from robustgen.datasets import INFOS
        from robustgen.stages.common import load_data

        if self.data is not None:
            info = INFOS.get(self.data.name) or load_data(self.data).train.info
            return info.name, info.classes
        words = name.replace("_", "-").split("-")
        found = next((INFOS[word] for word in words if word in INFOS), None)
        return (found.name, found.classes) if found else (name, ())
