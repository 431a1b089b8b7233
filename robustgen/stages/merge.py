"""Merge several proxy sets into one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Merge:
    """Merge several proxy sets into one, in the given shares."""

    proxies: tuple[Path, ...]
    shares: tuple[float, ...]
    folder: Path
    seed: int = 0

    def __call__(self, device: str, progress: Progress) -> str:
        import numpy as np

        from robustgen.proxy.merging import merge
        from robustgen.proxy.store import ProxySet

        sets = [ProxySet(proxy) for proxy in self.proxies]
        merged = merge(sets, list(self.shares), self.folder, seed=self.seed, progress=progress)
        drawn = np.bincount(merged.column("source")[merged.kept()], minlength=len(sets))
        parts = ", ".join(f"{count} of {proxy}" for count, proxy in zip(drawn, self.proxies, strict=True))
        return f"{drawn.sum()} of {len(merged)} images kept: {parts}"
