"""Select the images of a labeled proxy set that are used for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import SelectionConfig
from robustgen.stages.common import preview
from robustgen.storage.arrays import save_arrays

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Keep:
    """Mark the selected images of a labeled proxy set, and save a preview of them."""

    proxy: Path
    config: SelectionConfig

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.proxy.filtering import keep
        from robustgen.proxy.store import ProxySet

        proxies = ProxySet(self.proxy)
        labels = proxies.column("label")
        keep(proxies, self.config)
        rows = proxies.kept()
        shown = preview(rows, labels[rows], len(proxies.classes))
        save_arrays(self.proxy / "preview.npz", {"images": proxies.images(shown["images"]), "labels": shown["labels"]})
        return f"{len(rows)} of {len(proxies)} images kept"
