"""What the verbs that make and handle proxy sets do: settings and folders in, files and a sentence for the user out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.fits import Draw
from robustgen.recipe import Data, Keep, Sampling, Threat
from robustgen.records import save_arrays
from robustgen.verbs.making import images_in_a_pass, load_data, preview

if TYPE_CHECKING:
    from robustgen.contracts import Progress


def sample(
    generator: Path,
    settings: Sampling,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
    draw: Draw | None = None,
    guide: Path | None = None,
) -> str:
    """Draw a proxy set from a finished generator, by `draw` (the settings' own when not given)."""
    from robustgen.generators import load_generator, weights_file
    from robustgen.proxy.sampling import sample_proxies
    from robustgen.proxy.store import digest_of

    model, about = load_generator(generator)
    leader = load_generator(guide)[0].to(device) if guide else None
    made_by: dict[str, Any] = {
        "kind": about["settings"]["kind"],
        "weights": digest_of(weights_file(generator)),
        **model.to(device).draw_by(draw or settings, leader),
        **({"guide_weights": digest_of(weights_file(guide))} if guide else {}),
    }
    proxies = sample_proxies(
        model,
        settings.count,
        folder,
        classes=about["classes"],
        seed=seed,
        batch_size=images_in_a_pass(model.shape, device),
        shard_images=settings.shard_images,
        made_by=made_by,
        device=device,
        progress=progress,
    )
    return f"{len(proxies)} images"


def label(proxy: Path, classifier: Path, device: str, progress: Progress, labels: str = "predicted") -> str:
    """Give a proxy set labels and confidences by a finished classifier."""
    from robustgen.models.saved import load_classifier
    from robustgen.proxy.labeling import pseudo_label
    from robustgen.proxy.store import ProxySet, digest_of

    proxies = ProxySet(proxy)
    model = load_classifier(classifier)
    pseudo_label(
        proxies,
        model,
        made_by={"what": "by a classifier", "weights": digest_of(classifier / "weights.safetensors")},
        labels=labels,
        batch_size=images_in_a_pass(proxies.shape, device),
        device=device,
        progress=progress,
    )
    if labels == "condition":
        return f"mean probability of the class asked for: {100 * float(proxies.column('confidence').mean()):.1f} %"
    if not proxies.has("condition") or proxies.manifest["generator"].get("conditional") is False:
        return f"mean confidence {100 * float(proxies.column('confidence').mean()):.1f} %"
    agreed = (proxies.column("label") == proxies.column("condition")).mean()
    return f"{100 * agreed:.1f} % of the labels are the class asked for"


def keep_best(proxy: Path, settings: Keep, progress: Progress) -> str:
    """Choose which images of a labelled proxy set are used."""
    from robustgen.proxy.filtering import keep
    from robustgen.proxy.store import ProxySet

    proxies = ProxySet(proxy)
    labels = proxies.column("label")
    keep(proxies, settings)
    rows = proxies.kept()
    shown = preview(rows, labels[rows], len(proxies.classes))
    save_arrays(proxy / "preview.npz", {"images": proxies.images(shown["images"]), "labels": shown["labels"]})
    return f"{len(rows)} of {len(proxies)} images kept"


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


def check_set(
    proxy: Path, real: Data | None, near: Threat | None, within: bool, device: str, progress: Progress
) -> str:
    """Look for damage, duplicates, and copies of real images in a proxy set."""
    import numpy as np

    from robustgen.proxy.copies import Near, find_copies
    from robustgen.proxy.store import ProxySet

    proxies = ProxySet(proxy)
    proxies.verify(progress)
    references = {}
    if real is not None:
        splits = load_data(real)
        seen = np.concatenate([splits.train.images, splits.validation.images])
        references = {"training": seen, "test": splits.test.images}
    threshold = None if near is None else Near(near.norm, near.eps, within)
    counts = find_copies(proxies, references, near=threshold, device=device, progress=progress)
    looked = {"duplicates", *(f"copies of {name} images" for name in references)}
    if near is not None:
        looked |= {f"near-copies of {name} images" for name in references} | ({"near-duplicates"} if within else set())
    found = [f"{count} {name}" for name, count in counts.items() if name in looked]
    return f"{len(proxies)} images as they were made; {', '.join(found)}"
