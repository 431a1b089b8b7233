"""Training losses, by the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable

from robustgen.contracts import Loss
from robustgen.losses.adversarial import Adversarial, Plain
from robustgen.losses.trades import TRADES, trades_loss

LOSSES: dict[str, Callable[..., Loss]] = {
    "plain": Plain,
    "adversarial": Adversarial,
    "trades": TRADES,
}

__all__ = ["LOSSES", "TRADES", "Adversarial", "Plain", "trades_loss"]
