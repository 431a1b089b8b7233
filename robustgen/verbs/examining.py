"""What the verbs that judge generated images do: `measure`, and `analyse` of a proxy set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.recipe import Data, Measuring, Threat
from robustgen.verbs.making import images_in_a_pass, load_data, threat_model

if TYPE_CHECKING:
    from robustgen.contracts import Progress
    from robustgen.datasets import Splits
    from robustgen.proxy.store import ProxySet
    from robustgen.records.closeness import Closeness
    from robustgen.records.quality import Quality


def measure(
    proxy: Path,
    classifier: Path,
    data: Data,
    settings: Measuring,
    path: Path,
    seed: int,
    device: str,
    progress: Progress,
) -> str:
    """Measure a proxy set beside real images, by the published features where they are at hand, else a classifier's."""
    import numpy as np

    from robustgen.analysis.features import classifier_features, features_at_hand
    from robustgen.analysis.measuring import measure as measured
    from robustgen.models.saved import load_classifier
    from robustgen.proxy.store import ProxySet

    proxies, splits = ProxySet(proxy), load_data(data)
    model = load_classifier(classifier).to(device)
    features, neighbour_features = features_at_hand(model, proxies.shape, device)
    quality = measured(
        proxies,
        splits.train,
        splits.test,
        features,
        neighbour_features=neighbour_features,
        labeller=classifier_features(model),
        labels=proxies.column("condition"),
        index=proxies.kept() if settings.which == "kept" else np.arange(len(proxies)),
        seed=seed,
        judged=settings.judged,
        batch_size=images_in_a_pass(proxies.shape, device),
        device=device,
        progress=progress,
    )
    keep_neighbours(quality, proxies, splits, path)
    quality.save(path)
    first = next(iter(quality.estimates))
    return f"{first} {quality.estimates[first]}, {quality.agreement} of the labels agreed with"


def keep_neighbours(quality: Quality, proxies: ProxySet, splits: Splits, path: Path) -> None:
    """Keep the first few samples of a quality, which are in random order, beside the images nearest to them."""
    import numpy as np

    from robustgen.records import save_arrays
    from robustgen.records.quality import SELF, SHOWN, TEST, TRAIN, neighbours_file

    shown = slice(SHOWN)
    source, index = quality.source[shown], quality.index[shown]
    samples = proxies.images(quality.sample[shown])
    nearest = np.empty_like(samples)
    for kind, images in ((TRAIN, splits.train.images), (TEST, splits.test.images)):
        nearest[source == kind] = images[index[source == kind]]
    nearest[source == SELF] = proxies.images(index[source == SELF])
    of_train = splits.train.images[quality.train_index[shown]]
    columns = {"samples": samples, "nearest": nearest, "nearest_train": of_train, "source": source}
    save_arrays(neighbours_file(path), columns)


def examine(
    analysis: str,
    proxy: Path,
    data: Data,
    threat: Threat,
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
    from robustgen.contracts import ProxySubject
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


def score(
    proxy: Path,
    data: Data,
    threat: Threat,
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
    from robustgen.analysis.proximity import ARC, load_discriminators
    from robustgen.analysis.proximity import score as scored
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
