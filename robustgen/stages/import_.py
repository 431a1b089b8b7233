"""Import a published set as a proxy set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Import:
    """Convert a published set into a proxy set; if no format is given, it is inferred from the file names."""

    files: tuple[Path, ...]
    format: str | None
    folder: Path
    shard_images: int = 100_000

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.proxy.exchange import import_proxies, open_source
        from robustgen.proxy.formats import format_of

        files = list(self.files)
        chosen = self.format or format_of(files)
        sources = [{"name": file.name, "bytes": file.stat().st_size if file.is_file() else 0} for file in files]
        proxies = import_proxies(
            open_source(files, chosen),
            self.folder,
            made_by={"kind": "imported", "format": chosen, "files": sources},
            shard_images=self.shard_images,
            progress=progress,
        )
        guessed = "" if self.format else ", by the name"
        return f"{len(proxies)} images of {len(proxies.classes)} classes (format {chosen}{guessed})"
