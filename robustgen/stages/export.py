"""Write a proxy set for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Export:
    """Write a proxy set as an `.npz`, or as a folder of pictures."""

    proxy: Path
    path: Path
    kept: bool = False

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.proxy.exchange import export_proxies
        from robustgen.proxy.store import ProxySet

        format = "npz" if self.path.suffix == ".npz" else "folder"
        count = export_proxies(ProxySet(self.proxy), self.path, format, kept=self.kept, progress=progress)
        return f"{count} images -> {self.path}"
