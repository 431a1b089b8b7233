"""Pseudo-labels and confidences, streamed through a classifier."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.contracts import Progress, silent
from robustgen.images import to_unit
from robustgen.modes import batch_invariant, evaluating
from robustgen.proxy.partial_rows import PartialRows
from robustgen.proxy.store import ProxySet
from robustgen.runtime.precision import autocast

SCORES = np.dtype([("label", "<i4"), ("second", "<i4"), ("margin", "<f4"), ("confidence", "<f4")])
"""Columns that labeling writes; the last column is written last."""
LABELS = ("predicted", "condition")
QUEUE = 16
"""Batches whose results may wait on the device: fetching them makes it idle."""


@torch.no_grad()
def pseudo_label(
    proxies: ProxySet,
    model: nn.Module,
    *,
    made_by: dict[str, Any],
    labels: str = "predicted",
    precision: str = "float32",
    batch_size: int = 1024,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> None:
    """Add the columns `label`, `second`, `margin` and `confidence`.

    label       most likely class; with labels="condition" the class that the generator sampled (arXiv:2302.04638)
    second      the second most likely class, int32
    margin      probability of the most likely class minus that of the second, float32
    confidence  softmax probability of `label`, float32

    Images are read while the device works. Rows are saved while it runs; a killed run resumes there.

    Args:
        made_by: description of the classifier for the manifest.
        precision: float32 or bfloat16, of the classifier's passes; softmax and columns are in float32.

    Raises:
        ValueError: the classifier has another number of classes than the set, or returns NaN; or labeling by
            another one is unfinished.
    """
    if labels not in LABELS:
        raise ValueError(f"unknown labels {labels!r}; known: {', '.join(LABELS)}")
    condition = proxies.column("condition") if labels == "condition" else None
    plan = {"made_by": made_by, "labels": labels, "shards": [shard["sha256"] for shard in proxies.manifest["shards"]]}
    rows = PartialRows(proxies.folder / "labelling", SCORES, plan)
    model = model.to(device)
    pinned = torch.device(device).type == "cuda"

    def read(first: int) -> Tensor:
        pixels = torch.from_numpy(proxies.block(first, min(first + batch_size, len(proxies)))).permute(0, 3, 1, 2)
        return pixels.pin_memory() if pinned else pixels

    waiting: list[tuple[Tensor, ...]] = []

    def fetch() -> None:
        found = [torch.cat(values).cpu().numpy() for values in zip(*waiting, strict=True)]
        waiting.clear()
        scores = np.empty(len(found[0]), dtype=SCORES)
        for name, values in zip(SCORES.names or (), found, strict=True):
            scores[name] = values
        if not np.isfinite(scores["confidence"]).all():
            wrong = rows.done + int(np.flatnonzero(~np.isfinite(scores["confidence"]))[0])
            raise ValueError(f"the labeler's answer to image {wrong} of {proxies.folder} is not a number")
        rows.add(scores)
        progress(rows.done, len(proxies), "images")

    try:
        with evaluating(model), ThreadPoolExecutor(1) as reader:
            starts = range(rows.done, len(proxies), batch_size)
            coming = reader.submit(read, starts[0]) if len(starts) else None
            for number, first in enumerate(starts):
                assert coming is not None
                pixels = coming.result().to(device, non_blocking=True)
                if number + 1 < len(starts):
                    coming = reader.submit(read, starts[number + 1])
                probabilities = probabilities_of(model, to_unit(pixels), precision)
                if probabilities.shape[1] != len(proxies.classes):
                    raise ValueError(
                        f"the labeler has {probabilities.shape[1]} classes, the proxy set {len(proxies.classes)}"
                    )
                asked = None if condition is None else condition[first : first + len(pixels)].astype(np.int64)
                waiting.append(_scores(probabilities, asked))
                if len(waiting) == QUEUE or number + 1 == len(starts):
                    fetch()
    except ValueError:
        if not rows.done:  # a labeler that does not fit must not block the next one
            rows.remove()
        raise
    made_by = made_by if labels == "predicted" else {**made_by, "labels": labels}
    proxies.add_columns(made_by, **{name: rows.column(name) for name in SCORES.names or ()})
    rows.remove()


@torch.no_grad()
def probabilities_of(model: nn.Module, images: Tensor, precision: str = "float32") -> Tensor:
    """Class probabilities (N, K) in float32 by a classifier computed in a precision, float32 or bfloat16."""
    with autocast(precision, images.device):
        logits = batch_invariant(model, images)
    return (logits.float() if precision == "bfloat16" else logits).softmax(1)


def _scores(probabilities: Tensor, condition: np.ndarray | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """label, second, margin and confidence of each row; among equals the first class."""
    best = probabilities.max(1)
    second = probabilities.scatter(1, best.indices[:, None], -1.0).max(1)
    label, confidence = best.indices, best.values
    if condition is not None:
        label = torch.from_numpy(condition).to(probabilities.device)
        confidence = probabilities.gather(1, label[:, None])[:, 0]
    return label, second.indices, best.values - second.values.clamp_min(0), confidence
