"""Pseudo-label a proxy set by a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from robustgen.stages.common import first_images, images_in_a_pass

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Label:
    """Pseudo-label a proxy set, with confidences, by a finished classifier.

    labels     "predicted": the classifier's predictions. "condition": the classes the generator was conditioned on.
    precision  of the classifier's passes: float32, bfloat16 or auto
    """

    proxy: Path
    classifier: Path
    labels: str = "predicted"
    precision: str = "float32"

    shared: ClassVar[bool] = True

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.models.saved import load_classifier
        from robustgen.models.sources import check_accepts
        from robustgen.proxy.labeling import probabilities_of, pseudo_label
        from robustgen.proxy.store import ProxySet, digest_of
        from robustgen.runtime.precision import choose_precision

        proxies = ProxySet(self.proxy)
        model = load_classifier(self.classifier)
        check_accepts(model, str(self.classifier), first_images(proxies, "cpu"))
        batch_size = images_in_a_pass(proxies.shape, device)
        some = first_images(proxies, device)[:1].expand(batch_size, -1, -1, -1)
        precision = choose_precision(
            self.precision, device, proxies.folder / "label-precision.json", -(-len(proxies) // batch_size),
            lambda precision: probabilities_of(model.to(device).eval(), some, precision),
        )  # fmt: skip
        made_by = {"what": "by a classifier", "weights": digest_of(self.classifier / "weights.safetensors")}
        pseudo_label(
            proxies,
            model,
            made_by=made_by if precision == "float32" else {**made_by, "precision": precision},
            labels=self.labels,
            batch_size=batch_size,
            precision=precision,
            device=device,
            progress=progress,
        )
        proxies = ProxySet(self.proxy)
        confidence = 100 * float(proxies.column("confidence").mean())
        if self.labels == "condition":
            return f"mean probability of the condition label: {confidence:.1f} %"
        if not proxies.has("condition") or proxies.manifest["generator"].get("conditional") is False:
            return f"mean confidence {confidence:.1f} %"
        agreed = (proxies.column("label") == proxies.column("condition")).mean()
        return f"label agreement {100 * agreed:.1f} %: predictions that equal the condition label"
