"""Pseudo-labels and confidences, streamed through a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from robustgen.contracts import Progress, silent
from robustgen.images import to_unit
from robustgen.modes import evaluating, row_stable
from robustgen.proxy.store import ProxySet


@torch.no_grad()
def pseudo_label(
    proxies: ProxySet,
    model: nn.Module,
    *,
    made_by: dict[str, Any],
    batch_size: int = 1024,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> None:
    """Add the columns `label` (likeliest class) and `confidence` (its softmax probability, float32).

    Args:
        made_by: what the manifest says of the classifier.

    Raises:
        ValueError: the classifier has another number of classes than the set.
    """
    labels = np.empty(len(proxies), dtype=np.int32)
    confidences = np.empty(len(proxies), dtype=np.float32)
    model = model.to(device)
    with evaluating(model):
        for first in range(0, len(proxies), batch_size):
            index = np.arange(first, min(first + batch_size, len(proxies)))
            pixels = torch.from_numpy(proxies.images(index)).to(device).permute(0, 3, 1, 2)
            probabilities = row_stable(model, to_unit(pixels)).softmax(1)
            if probabilities.shape[1] != len(proxies.classes):
                raise ValueError(
                    f"the labeller knows {probabilities.shape[1]} classes, the proxy set {len(proxies.classes)}"
                )
            best = probabilities.max(1)
            labels[index], confidences[index] = best.indices.cpu().numpy(), best.values.cpu().numpy()
            progress(int(index[-1]) + 1, len(proxies), "images")
    proxies.add_columns(made_by, label=labels, confidence=confidences)
