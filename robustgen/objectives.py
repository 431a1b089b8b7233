"""Objectives that attacks maximize: functions of logits (N, K) and targets that return one value per image, (N,).

Targets are labels (N,), probabilities (N, K), or pairs (N, 2) of label and target class, as each docstring says.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum_k q_k log softmax(logits)_k; targets are labels (N,) or probabilities q (N, K). In nats."""
    return F.cross_entropy(logits, targets, reduction="none")


def kl_divergence(logits: Tensor, targets: Tensor) -> Tensor:
    """KL(q || softmax(logits)) of probabilities q (N, K), in nats.

    Its gradient in the logits is the cross-entropy's; only the value differs, by the entropy of q.
    """
    return F.kl_div(logits.log_softmax(1), targets, reduction="none").sum(1)


def _of_class(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Best wrong logit minus the true one; positive exactly when misclassified. Targets are labels."""
    wrong = logits.scatter(1, targets[:, None], -torch.inf).amax(1)
    return wrong - _of_class(logits, targets)


def targeted_margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Logit of the target class minus the true one; targets are pairs (N, 2) of label and target class.

    Source: MultiTargeted, arXiv:1910.09338.
    """
    return _of_class(logits, targets[:, 1]) - _of_class(logits, targets[:, 0])


def dlr(logits: Tensor, targets: Tensor) -> Tensor:
    """Difference of logits ratio: margin over the gap between the first and third largest logit.

        (max_{k != y} z_k - z_y) / (z_pi1 - z_pi3 + 1e-12)        targets are labels y

    Invariant to a shift or a positive scaling of the logits, which make the gradient of cross-entropy vanish.

    Raises:
        ValueError: there are fewer than 3 classes, so that a third logit does not exist.

    Source: Croce & Hein 2020, arXiv:2003.01690.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"the DLR objective needs at least 3 classes, got {logits.shape[1]}; use the margin")
    top = logits.topk(3, dim=1).values
    return margin(logits, targets) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, targets: Tensor) -> Tensor:
    """Targeted difference of logits ratio; targets are pairs (N, 2) of label y and target class t.

        (z_t - z_y) / (z_pi1 - (z_pi3 + z_pi4) / 2 + 1e-12)

    Raises:
        ValueError: there are fewer than 4 classes.

    Source: Croce & Hein 2020, arXiv:2003.01690.
    """
    if logits.shape[1] < 4:
        raise ValueError(
            f"the targeted DLR objective needs at least 4 classes, got {logits.shape[1]}; use the targeted margin"
        )
    top = logits.topk(4, dim=1).values
    return targeted_margin(logits, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def hard_labels(targets: Tensor) -> Tensor:
    """The labels within targets: themselves (N,), the first of pairs (N, 2), the most likely class of probabilities."""
    if targets.ndim == 1:
        return targets
    return targets.argmax(1) if targets.is_floating_point() else targets[:, 0]


def classes_aimed_at(clean_logits: Tensor, labels: Tensor) -> Tensor:
    """(N, K - 1) wrong classes, the most likely first: the order of targeted attacks."""
    ranked = clean_logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
    return ranked[:, :-1]
