"""Exponential moving averages (EMA) of weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """A copy of a model, `self.model`, whose parameters are the exponential moving average of the model's.

        ema <- d * ema + (1 - d) * parameters

    Buffers (running statistics) are copied from the model, as in the official code; with `buffers` those of floating
    point are averaged too, as in BigGAN.
    """

    def __init__(self, model: nn.Module, buffers: bool = False):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._buffers = buffers

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float) -> None:
        mine: list[torch.Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(mine, [p.detach() for p in model.parameters()], 1 - decay)
        for own, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            if self._buffers and own.is_floating_point():
                own.lerp_(theirs, 1 - decay)
            else:
                own.copy_(theirs)

    def state_dict(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = self.model.state_dict()
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(state)


def ramped(decay: float, step: int) -> float:
    """EMA warm-up: min(decay, (1 + t) / (10 + t)) (google-deepmind/deepmind-research, jax/utils.py)."""
    return min(decay, (1 + step) / (10 + step))


def half_life_decay(half_life: float, amount: float) -> float:
    """Decay d per step of `amount` such that a weight is halved after `half_life`, in the same unit."""
    return float(0.5 ** (amount / half_life)) if half_life > 0 else 0.0
