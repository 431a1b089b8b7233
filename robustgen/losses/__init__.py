"""Training losses by the names that recipes use, and the wrappers that apply to any of them."""

from __future__ import annotations

from collections.abc import Callable

from robustgen.contracts import Loss
from robustgen.losses.adversarial import Adversarial, Plain
from robustgen.losses.awp import AWP
from robustgen.losses.certified import MACER, SmoothAdv
from robustgen.losses.common import loss_at
from robustgen.losses.gkl import GKL, gkl_loss
from robustgen.losses.hat import HAT, hat_loss
from robustgen.losses.mart import MART, mart_loss
from robustgen.losses.nfgsm import NFGSM
from robustgen.losses.score import SCORE, score_loss
from robustgen.losses.smoothing import Consistency, GaussianNoise, Stability
from robustgen.losses.trades import TRADES, trades_loss
from robustgen.losses.weak_to_strong import WeakToStrong

LOSSES: dict[str, Callable[..., Loss]] = {
    "plain": Plain,
    "adversarial": Adversarial,
    "trades": TRADES,
    "mart": MART,
    "hat": HAT,
    "score": SCORE,
    "gkl": GKL,
    "gaussian-noise": GaussianNoise,
    "stability": Stability,
    "consistency": Consistency,
    "smoothadv": SmoothAdv,
    "macer": MACER,
}

AROUND: dict[str, Callable[..., Loss]] = {
    "train.awp": AWP,
    "train.loss.attack.first_steps": WeakToStrong,
}
"""Losses that wrap another loss, by the settings that enable them."""

__all__ = [
    "AROUND", "AWP", "GKL", "HAT", "LOSSES", "MACER", "MART", "NFGSM", "SCORE", "TRADES", "Adversarial", "Consistency",
    "GaussianNoise", "Plain", "SmoothAdv", "Stability", "WeakToStrong", "gkl_loss", "hat_loss", "loss_at", "mart_loss",
    "score_loss", "trades_loss",
]  # fmt: skip
