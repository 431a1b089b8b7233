"""Score each generated image by how real robust discriminators find it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from robustgen.config.recipe import DataConfig, ThreatConfig
from robustgen.runtime.distributed import place, wait_for_all
from robustgen.stages.analyse import AnalyseImages
from robustgen.stages.common import images_in_a_pass, load_data

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Score:
    """Give a labeled proxy set the column `discriminator`: the mean probability of being real.

    The discriminators are those of the analysis arc at `path`, which is run first if necessary.
    """

    proxy: Path
    data: DataConfig
    threat: ThreatConfig
    path: Path
    seed: int
    changes: tuple[str, ...] = ()

    shared: ClassVar[bool] = True

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.analysis import find_proxy_analysis
        from robustgen.analysis.arc import ARC, load_discriminators
        from robustgen.analysis.arc import score as scored
        from robustgen.proxy.store import ProxySet

        arc_stage = AnalyseImages("arc", self.proxy, self.data, self.threat, self.path, self.seed, changes=self.changes)
        found = arc_stage.record(device, progress)
        wait_for_all()  # for the files of the first process
        arc = find_proxy_analysis("arc", self.changes)
        assert isinstance(arc, ARC)
        proxies = ProxySet(self.proxy)
        models = load_discriminators(self.path, load_data(self.data).train.info, arc)
        values = scored(
            models,
            proxies.images,
            len(proxies),
            batch_size=images_in_a_pass(proxies.shape, device),
            device=device,
            progress=progress,
        )
        made_by = {"what": "mean probability of being real, by the discriminators of an analysis"}
        if place()[0] == 0:
            proxies.add_columns({**made_by, "about": repr(found.about)}, discriminator=values)
        wait_for_all()
        return f"mean probability of being real {float(values.mean()):.3f}, by {len(models)} discriminators"
