"""Check a proxy set for damage, duplicates and copies of real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import DataConfig, ThreatConfig
from robustgen.stages.common import load_data

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Check:
    """Check a proxy set for damage, duplicates, and copies of real images.

    real    the real images to compare with, if any
    near    images closer than this count as near-copies
    within  whether generated images are also compared with each other
    """

    proxy: Path
    real: DataConfig | None = None
    near: ThreatConfig | None = None
    within: bool = False

    def __call__(self, device: str, progress: Progress) -> str:
        import numpy as np

        from robustgen.proxy.copies import NearDuplicate, find_copies
        from robustgen.proxy.store import ProxySet

        proxies = ProxySet(self.proxy)
        proxies.verify(progress)
        references = {}
        if self.real is not None:
            splits = load_data(self.real)
            seen = np.concatenate([splits.train.images, splits.validation.images])
            references = {"training": seen, "test": splits.test.images}
        threshold = None if self.near is None else NearDuplicate(self.near.norm, self.near.eps, self.within)
        counts = find_copies(proxies, references, near=threshold, device=device, progress=progress)
        looked = {"duplicates", *(f"copies of {name} images" for name in references)}
        if self.near is not None:
            looked |= {f"near-copies of {name} images" for name in references}
            looked |= {"near-duplicates"} if self.within else set()
        found = [f"{count} {name}" for name, count in counts.items() if name in looked]
        return f"{len(proxies)} images as they were made; {', '.join(found)}"
