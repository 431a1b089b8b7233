"""What the verbs that make and handle proxy sets do: settings and folders in, files and a sentence for the user out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustgen.contracts import Progress


def import_set(files: list[Path], format: str | None, folder: Path, shard_images: int, progress: Progress) -> str:
    """Make a proxy set of a published one."""
    from robustgen.proxy.exchange import import_proxies, open_source
    from robustgen.proxy.formats import format_of

    chosen = format or format_of(files)
    sources = [{"name": file.name, "bytes": file.stat().st_size if file.is_file() else 0} for file in files]
    proxies = import_proxies(
        open_source(files, chosen),
        folder,
        made_by={"kind": "imported", "format": chosen, "files": sources},
        shard_images=shard_images,
        progress=progress,
    )
    guessed = "" if format else ", by the name"
    return f"{len(proxies)} images of {len(proxies.classes)} classes (format {chosen}{guessed})"


def export_set(proxy: Path, path: Path, kept: bool, progress: Progress) -> str:
    """Write a proxy set as an `.npz`, or as a folder of pictures."""
    from robustgen.proxy.exchange import export_proxies
    from robustgen.proxy.store import ProxySet

    format = "npz" if path.suffix == ".npz" else "folder"
    count = export_proxies(ProxySet(proxy), path, format, kept=kept, progress=progress)
    return f"{count} images -> {path}"


def merge_sets(proxies: list[Path], shares: list[float], folder: Path, seed: int, progress: Progress) -> str:
    """Draw one proxy set from several."""
    import numpy as np

    from robustgen.proxy.merging import merge
    from robustgen.proxy.store import ProxySet

    merged = merge([ProxySet(proxy) for proxy in proxies], shares, folder, seed=seed, progress=progress)
    drawn = np.bincount(merged.column("source")[merged.kept()], minlength=len(proxies))
    parts = ", ".join(f"{count} of {proxy}" for count, proxy in zip(drawn, proxies, strict=True))
    return f"{drawn.sum()} of {len(merged)} images kept: {parts}"
