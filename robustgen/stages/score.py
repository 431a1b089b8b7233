"""Score each generated image by how real robust discriminators find it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import DataConfig, ThreatConfig
from robustgen.stages.common import images_in_a_pass, load_data

if TYPE_CHECKING:
    from robustgen.contracts import Progress

from robustgen.stages.analyse_images import examine


def score(
    proxy: Path,
    data: DataConfig,
    threat: ThreatConfig,
    path: Path,
    seed: int,
    device: str,
    progress: Progress,
    changes: Iterable[str] = (),
) -> str:
    """Give a labelled proxy set the column `discriminator`: how real each image looks to robust discriminators.

    They are those of the analysis arc at `path`, which is made first where it is not there.
    """
    from robustgen.analysis import find_proxy_analysis
    from robustgen.analysis.arc import ARC, load_discriminators
    from robustgen.analysis.arc import score as scored
    from robustgen.proxy.store import ProxySet

    found = examine("arc", proxy, data, threat, path, seed, device, progress, changes=changes)
    arc = find_proxy_analysis("arc", changes)
    assert isinstance(arc, ARC)
    proxies = ProxySet(proxy)
    models = load_discriminators(path, load_data(data).train.info, arc)
    values = scored(
        models,
        proxies.images,
        len(proxies),
        batch_size=images_in_a_pass(proxies.shape, device),
        device=device,
        progress=progress,
    )
    made_by = {"what": "mean probability of being real, by the discriminators of an analysis"}
    proxies.add_columns({**made_by, "about": repr(found.about)}, discriminator=values)
    return f"mean probability of being real {float(values.mean()):.3f}, by {len(models)} discriminators"
