"""Select the images of a labelled proxy set that are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import KeepConfig
from robustgen.stages.common import preview
from robustgen.storage.arrays import save_arrays

if TYPE_CHECKING:
    from robustgen.contracts import Progress


def keep_best(proxy: Path, settings: KeepConfig, progress: Progress) -> str:
    """Choose which images of a labelled proxy set are used."""
    from robustgen.proxy.filtering import keep
    from robustgen.proxy.store import ProxySet

    proxies = ProxySet(proxy)
    labels = proxies.column("label")
    keep(proxies, settings)
    rows = proxies.kept()
    shown = preview(rows, labels[rows], len(proxies.classes))
    save_arrays(proxy / "preview.npz", {"images": proxies.images(shown["images"]), "labels": shown["labels"]})
    return f"{len(rows)} of {len(proxies)} images kept"
