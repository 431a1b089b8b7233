"""Code that losses share: clean pass and attack, weights of original and generated images, schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor, nn

from robustgen.contracts import Attack, Batch, Loss
from robustgen.modes import frozen_bn_stats
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel

AIMS = ("predictions", "targets")


def check_settings(aim: str = "predictions", real_weight: float | None = None, **prices: float) -> None:
    """Raise ValueError for an unknown aim, a real_weight outside [0, 1], or another weight below 0."""
    if aim not in AIMS:
        raise ValueError(f"unknown aim {aim!r}; known: {', '.join(AIMS)}")
    if real_weight is not None and not 0 <= real_weight <= 1:
        raise ValueError(f"real_weight must lie in [0, 1], got {real_weight}")
    for name, price in prices.items():
        if price < 0:
            raise ValueError(f"{name} must be at least 0, got {price}")


def clean_and_attacked(
    model: nn.Module, batch: Batch, attack: Attack, threat: ThreatModel, rng: Rng, aim: str
) -> tuple[Tensor, Tensor]:
    """Logits of the clean images, and adversarial examples. Running batch-norm statistics do not change.

    The attack moves predictions away from the clean predictions (aim "predictions") or from the batch's targets (aim
    "targets"), as the official code does when CutMix has mixed them (google-deepmind/deepmind-research,
    adversarial_robustness/jax/experiment.py).
    """
    with frozen_bn_stats(model):
        clean_logits = model(batch.images)
        aimed = batch.targets if aim == "targets" else clean_logits.detach().softmax(1)
        return clean_logits, attack(model, batch.images, aimed, threat, rng)


def by_origin(value: Callable[..., Tensor], generated: Tensor, real_weight: float | None, *rows: Tensor) -> Tensor:
    """A mean loss over a batch, with separate weights for original and generated images.

        real_weight * value(rows of original images) + (1 - real_weight) * value(rows of generated images)

    If `real_weight` is None, or the batch has images of one origin only, each image has the same weight:
    value(all rows).

    Source: PORT's gamma, Sehwag et al. 2021, arXiv:2104.09425 (0.4 is best on CIFAR-10).
    """
    if real_weight is None or not generated.any() or generated.all():
        return value(*rows)
    parts = [value(*(x[kind] for x in rows)) for kind in (~generated, generated)]
    return real_weight * parts[0] + (1 - real_weight) * parts[1]


def with_attack(loss: Loss, change: Callable[[Attack], Attack]) -> Loss:
    """The same loss with another inner attack; losses without one, or with a fixed one, are returned unchanged."""
    given: Any = loss
    names = {field.name for field in fields(given)} if is_dataclass(loss) else set[str]()
    changed: Loss = loss
    if "attack" in names:
        changed = replace(given, attack=change(given.attack))
    elif "loss" in names:
        changed = replace(given, loss=with_attack(given.loss, change))
    return changed


def loss_at(loss: Loss, share: float) -> Loss:
    """The loss for the step that completes this share (0 to 1] of a training; most losses do not depend on it."""
    at = getattr(loss, "at", None)
    return loss if at is None else at(share)
