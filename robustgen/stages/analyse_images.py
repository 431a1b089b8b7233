"""Analyse the images of a proxy set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import DataConfig, ThreatConfig
from robustgen.stages.common import load_data, threat_model

if TYPE_CHECKING:
    from robustgen.contracts import Progress
    from robustgen.records.closeness import Closeness


def examine(
    analysis: str,
    proxy: Path,
    data: DataConfig,
    threat: ThreatConfig,
    path: Path,
    seed: int,
    device: str,
    progress: Progress,
    labeller: Path | None = None,
    model: Path | None = None,
    images: int = 10_000,
    changes: Iterable[str] = (),
    batch_size: int = 512,
) -> Closeness:
    """Analyse the first `images` images of a proxy set beside real ones; see `docs/analyses.md`.

    Training and validation images are what discriminators and nearest neighbours know, test images are held out.

    Args:
        labeller: a folder made by train --plain, for those that ask for it.
        model: the robust classifier whose robustness is carried over, for those that ask for it.
        changes: settings of the analysis, such as steps=5.
    """
    import numpy as np
    import torch

    from robustgen.analysis import find_proxy_analysis
    from robustgen.analysis.contracts import ProxySubject
    from robustgen.models.saved import load_classifier
    from robustgen.proxy.store import ProxySet

    chosen = find_proxy_analysis(analysis, changes)
    proxies, splits = ProxySet(proxy), load_data(data)
    count = min(images, len(proxies))
    labels = proxies.column("label" if proxies.has("label") else "condition")[:count]
    networks = [
        load_classifier(folder).to(device).requires_grad_(False) if folder else None for folder in (labeller, model)
    ]
    known = [part for part in (splits.train, splits.validation) if len(part)]
    subject = ProxySubject(
        info=splits.train.info,
        threat=threat_model(threat),
        train=torch.cat([part.pixels(device) for part in known]),
        train_labels=torch.cat([part.targets(device) for part in known]),
        test=splits.test.pixels(device),
        test_labels=splits.test.targets(device),
        generated=torch.from_numpy(proxies.block(0, count)).to(device).permute(0, 3, 1, 2),
        generated_labels=torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device),
        labeller=networks[0],
        model=networks[1],
    )
    return chosen(subject, seed=seed, batch_size=batch_size, path=path, progress=progress)
