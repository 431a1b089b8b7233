"""Run an analysis of a classifier, or of the images of a proxy set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import DataConfig, ThreatConfig
from robustgen.stages.common import check_same_shape, first_images, load_data, threat_model

if TYPE_CHECKING:
    from robustgen.analysis.contracts import Analysis
    from robustgen.contracts import Progress
    from robustgen.records.record import ClassifierRecord, ProxyRecord


@dataclass(frozen=True)
class Analyse:
    """Run an analysis of a classifier on test images, such as a sweep over radii."""

    analysis: Analysis
    classifier: Path
    data: DataConfig
    threat: ThreatConfig
    path: Path
    seed: int
    batch_size: int = 512

    def __call__(self, device: str, progress: Progress) -> str:
        self.record(device, progress)
        return f"{self.classifier.name} -> {self.path}"

    def record(self, device: str, progress: Progress) -> ClassifierRecord:
        """The analysis's record, which is also saved to `path`."""
        from robustgen.analysis.contracts import Subject
        from robustgen.datasets import load_test
        from robustgen.images import to_unit
        from robustgen.models.saved import load_classifier
        from robustgen.models.sources import check_accepts, check_gradient
        from robustgen.proxy.store import digest_of

        model = load_classifier(self.classifier).to(device).requires_grad_(False)
        test = load_test(self.data)
        images = to_unit(test.pixels(device))
        check_accepts(model, str(self.classifier), images, len(test.info.classes))
        check_gradient(model, str(self.classifier), images)
        subject = Subject(
            model,
            images,
            test.targets(device),
            threat_model(self.threat),
            made_for=digest_of(self.classifier / "weights.safetensors"),
        )
        return self.analysis(subject, seed=self.seed, batch_size=self.batch_size, path=self.path, progress=progress)


@dataclass(frozen=True)
class AnalyseImages:
    """Run an analysis of the first `images` images of a proxy set against real images: docs/analyses.md.

    Discriminators and nearest neighbors know the training and validation images; test images are held out.

    analysis  its name
    labeller  a standard classifier, for the analyses that need one
    model     the classifier whose robustness is transferred, for the analyses that need one
    changes   settings of the analysis, such as steps=5
    """

    analysis: str
    proxy: Path
    data: DataConfig
    threat: ThreatConfig
    path: Path
    seed: int
    labeller: Path | None = None
    model: Path | None = None
    images: int = 10_000
    changes: tuple[str, ...] = ()
    batch_size: int = 512

    @property
    def shared(self) -> bool:
        """Whether processes share the work of the analysis."""
        return self.analysis == "arc"

    def __call__(self, device: str, progress: Progress) -> str:
        return self.record(device, progress).summary

    def record(self, device: str, progress: Progress) -> ProxyRecord:
        """The analysis's record, which is also saved to `path`."""
        import numpy as np
        import torch

        from robustgen.analysis import find_proxy_analysis
        from robustgen.analysis.contracts import ProxySubject
        from robustgen.models.saved import load_classifier
        from robustgen.models.sources import check_accepts
        from robustgen.proxy.store import ProxySet

        chosen = find_proxy_analysis(self.analysis, self.changes)
        proxies, splits = ProxySet(self.proxy), load_data(self.data)
        check_same_shape(proxies, splits.train.info)
        count = min(self.images, len(proxies))
        labels = proxies.column("label" if proxies.has("label") else "condition")[:count]
        networks = [
            load_classifier(folder).to(device).requires_grad_(False) if folder else None
            for folder in (self.labeller, self.model)
        ]
        for folder, network in zip((self.labeller, self.model), networks, strict=True):
            if network is not None:
                check_accepts(network, str(folder), first_images(proxies, device))
        known = [part for part in (splits.train, splits.validation) if len(part)]
        subject = ProxySubject(
            info=splits.train.info,
            threat=threat_model(self.threat),
            train=torch.cat([part.pixels(device) for part in known]),
            train_labels=torch.cat([part.targets(device) for part in known]),
            test=splits.test.pixels(device),
            test_labels=splits.test.targets(device),
            generated=torch.from_numpy(proxies.block(0, count)).to(device).permute(0, 3, 1, 2),
            generated_labels=torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device),
            labeler=networks[0],
            model=networks[1],
        )
        return chosen(subject, seed=self.seed, batch_size=self.batch_size, path=self.path, progress=progress)
