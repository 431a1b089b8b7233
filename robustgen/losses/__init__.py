"""Training losses, by the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable

from robustgen.contracts import Loss
from robustgen.losses.adversarial import Adversarial, Plain
from robustgen.losses.certified import MACER, SmoothAdv
from robustgen.losses.smoothing import Consistency, GaussianNoise, Stability
from robustgen.losses.trades import TRADES, trades_loss

LOSSES: dict[str, Callable[..., Loss]] = {
    "plain": Plain,
    "adversarial": Adversarial,
    "trades": TRADES,
    "gaussian-noise": GaussianNoise,
    "stability": Stability,
    "consistency": Consistency,
    "smoothadv": SmoothAdv,
    "macer": MACER,
}

__all__ = [
    "LOSSES", "MACER", "TRADES", "Adversarial", "Consistency", "GaussianNoise", "Plain", "SmoothAdv", "Stability",
    "trades_loss",
]  # fmt: skip
