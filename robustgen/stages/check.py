"""Check a proxy set for damage, duplicates and copies of real images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import DataConfig, ThreatConfig
from robustgen.stages.common import load_data

if TYPE_CHECKING:
    from robustgen.contracts import Progress


def check_set(
    proxy: Path, real: DataConfig | None, near: ThreatConfig | None, within: bool, device: str, progress: Progress
) -> str:
    """Look for damage, duplicates, and copies of real images in a proxy set."""
    import numpy as np

    from robustgen.proxy.copies import NearDuplicate, find_copies
    from robustgen.proxy.store import ProxySet

    proxies = ProxySet(proxy)
    proxies.verify(progress)
    references = {}
    if real is not None:
        splits = load_data(real)
        seen = np.concatenate([splits.train.images, splits.validation.images])
        references = {"training": seen, "test": splits.test.images}
    threshold = None if near is None else NearDuplicate(near.norm, near.eps, within)
    counts = find_copies(proxies, references, near=threshold, device=device, progress=progress)
    looked = {"duplicates", *(f"copies of {name} images" for name in references)}
    if near is not None:
        looked |= {f"near-copies of {name} images" for name in references} | ({"near-duplicates"} if within else set())
    found = [f"{count} {name}" for name, count in counts.items() if name in looked]
    return f"{len(proxies)} images as they were made; {', '.join(found)}"
