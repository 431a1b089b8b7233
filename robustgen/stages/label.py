"""Pseudo-label a proxy set by a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.stages.common import images_in_a_pass

if TYPE_CHECKING:
    from robustgen.contracts import Progress


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
