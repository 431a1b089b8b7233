"""Pseudo-labels and confidences, streamed through a classifier."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.contracts import Progress, silent
from robustgen.images import to_unit
from robustgen.modes import batch_invariant, evaluating
from robustgen.proxy.partial_rows import PartialRows
from robustgen.proxy.store import ProxySet
from robustgen.runtime import distributed
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

    Images are read while the device works. Rows are saved while it runs; a killed run resumes there. Of P processes
    (`runtime.distributed`), each labels a P-th of the images; the columns are the same for any number of them.

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
    rank, world = distributed.place()
    share = range(len(proxies) * rank // world, len(proxies) * (rank + 1) // world)
    rows = PartialRows(_unfinished(proxies, rank, world), SCORES, plan)
    model = model.to(device)
    pinned = torch.device(device).type == "cuda"

    def read(first: int) -> Tensor:
        pixels = torch.from_numpy(proxies.block(first, min(first + batch_size, share.stop))).permute(0, 3, 1, 2)
        return pixels.pin_memory() if pinned else pixels

    waiting: list[tuple[Tensor, ...]] = []

    def fetch() -> None:
        found = [torch.cat(values).cpu().numpy() for values in zip(*waiting, strict=True)]
        waiting.clear()
        scores = np.empty(len(found[0]), dtype=SCORES)
        for name, values in zip(SCORES.names or (), found, strict=True):
            scores[name] = values
        if not np.isfinite(scores["confidence"]).all():
            wrong = share.start + rows.done + int(np.flatnonzero(~np.isfinite(scores["confidence"]))[0])
            raise ValueError(f"the labeler's answer to image {wrong} of {proxies.folder} is not a number")
        rows.add(scores)
        progress(rows.done, len(share), "images")

    try:
        with evaluating(model), ThreadPoolExecutor(1) as reader:
            starts = range(share.start + rows.done, share.stop, batch_size)
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
    rows.save()
    distributed.wait_for_all()
    if rank == 0:
        parts = [rows] + [PartialRows(_unfinished(proxies, other, world), SCORES, plan) for other in range(1, world)]
        proxies.add_columns(made_by, **{name: _joined(parts, name) for name in SCORES.names or ()})
        for folder in proxies.folder.glob("labelling*"):  # also of another number of processes
            shutil.rmtree(folder)
    distributed.wait_for_all()


def _unfinished(proxies: ProxySet, rank: int, world: int) -> Path:
    """The folder of the rows that a process has labeled."""
    return proxies.folder / ("labelling" if world == 1 else f"labelling-{rank}-of-{world}")


def _joined(parts: Sequence[PartialRows], name: str) -> Callable[[], np.ndarray]:
    """A function that returns one column of all parts, one after the other."""
    columns = [part.column(name) for part in parts if part.done]
    return lambda: np.concatenate([column() for column in columns])


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
