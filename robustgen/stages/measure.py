"""Measure the quality of generated images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from robustgen.config.recipe import DataConfig, MeasureConfig
from robustgen.runtime.distributed import place, wait_for_all
from robustgen.stages.common import check_same_shape, first_images, images_in_a_pass, load_data

if TYPE_CHECKING:
    from robustgen.contracts import Progress
    from robustgen.datasets import Splits
    from robustgen.proxy.store import ProxySet
    from robustgen.records.quality import Quality


@dataclass(frozen=True)
class Measure:
    """Measure a proxy set against real images, with published feature networks if found, otherwise a classifier's."""

    proxy: Path
    classifier: Path
    data: DataConfig
    config: MeasureConfig
    path: Path
    seed: int

    shared: ClassVar[bool] = True

    def __call__(self, device: str, progress: Progress) -> str:
        import numpy as np

        from robustgen.analysis.features import classifier_features, features_at_hand
        from robustgen.analysis.quality import measure as measured
        from robustgen.models.saved import load_classifier
        from robustgen.models.sources import check_accepts
        from robustgen.proxy.store import ProxySet

        settings = self.config
        proxies, splits = ProxySet(self.proxy), load_data(self.data)
        check_same_shape(proxies, splits.train.info)
        model = load_classifier(self.classifier).to(device)
        check_accepts(model, str(self.classifier), first_images(proxies, device))
        features, neighbor_features = features_at_hand(model, proxies.shape, device)
        quality = measured(
            proxies,
            splits.train,
            splits.test,
            features,
            neighbor_features=neighbor_features,
            labeler=classifier_features(model),
            labels=proxies.column("condition"),
            index=proxies.kept() if settings.which == "kept" else np.arange(len(proxies)),
            seed=self.seed,
            judged=settings.judged,
            batch_size=images_in_a_pass(proxies.shape, device),
            device=device,
            progress=progress,
        )
        if place()[0] == 0:
            keep_neighbors(quality, proxies, splits, self.path)
            quality.save(self.path)
        wait_for_all()
        first = next(iter(quality.estimates))
        return f"{first} {quality.estimates[first]}, {quality.agreement} label agreement"


def keep_neighbors(quality: Quality, proxies: ProxySet, splits: Splits, path: Path) -> None:
    """Save the first samples of a quality record, which are in random order, with their nearest real images."""
    import numpy as np

    from robustgen.records.quality import SELF, SHOWN, TEST, TRAIN, neighbors_file
    from robustgen.storage.arrays import save_arrays

    shown = slice(SHOWN)
    source, index = quality.source[shown], quality.index[shown]
    samples = proxies.images(quality.sample[shown])
    nearest = np.empty_like(samples)
    for kind, images in ((TRAIN, splits.train.images), (TEST, splits.test.images)):
        nearest[source == kind] = images[index[source == kind]]
    nearest[source == SELF] = proxies.images(index[source == SELF])
    of_train = splits.train.images[quality.train_index[shown]]
    columns = {"samples": samples, "nearest": nearest, "nearest_train": of_train, "source": source}
    save_arrays(neighbors_file(path), columns)
