"""Learning-rate and momentum schedules: linear warm-up with cosine or step decay, and the one-cycle policy."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch


def rising_cosine(t: int, steps: int, warmup_steps: int) -> float:
    """Fraction of the peak: linear from 0 over the warm-up, then a cosine to 0. Step 0 already has 1 / warmup_steps."""
    if t < warmup_steps:
        return (t + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (t - warmup_steps) / max(1, steps - warmup_steps)))


def rising_drop(t: int, steps: int, warmup_steps: int) -> float:
    """Fraction of the peak: linear from 0 over the warm-up, then 1, and 0.1 after two thirds of the steps."""
    if t < warmup_steps:
        return (t + 1) / warmup_steps
    return 1.0 if t < 2 / 3 * steps else 0.1


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def _one_cycle(t: int, steps: int, warmup_steps: int, low: float, high: float, last: float) -> float:
    """Half a cosine from `low` to `high` over the warm-up, then half a cosine to `last` over the remaining steps."""
    peak = max(warmup_steps - 1, 0)
    if t <= peak:
        return _cosine(low, high, t / peak if peak else 1.0)
    return _cosine(high, last, (t - peak) / max(1, steps - 1 - peak))


def one_cycle(t: int, steps: int, warmup_steps: int) -> float:
    """Fraction of the peak: from 1/25 to 1 over the warm-up, then to 1/250000 (arXiv:1708.07120).

    This is PyTorch's OneCycleLR. The PyTorch ports update it once an epoch; here it changes with every step.
    """
    return _one_cycle(t, steps, warmup_steps, 1 / 25, 1.0, 1 / 250_000)


def one_cycle_momentum(t: int, steps: int, warmup_steps: int) -> float:
    """Momentum 0.95, down to 0.85 at the peak, and back: OneCycleLR's default, which overrides SGD's own momentum."""
    return _one_cycle(t, steps, warmup_steps, 0.95, 0.85, 0.95)


LR_SHARES: dict[str, Callable[[int, int, int], float]] = {
    "cosine": rising_cosine,
    "step": rising_drop,
    "one-cycle": one_cycle,
}


def set_lr(optimizer: torch.optim.Optimizer, lr: float, momentum: float | None = None) -> None:
    """Set the learning rate of all parameter groups, and their momentum if given."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if momentum is not None:
            group["momentum"] = momentum
