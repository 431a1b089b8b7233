"""Adversarial weight perturbation (AWP): a loss at the worst weights nearby."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robustgen.contracts import Attack, Batch, Loss
from robustgen.losses.common import check_settings, loss_at, with_attack
from robustgen.losses.trades import TRADES
from robustgen.modes import frozen_bn_stats
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


class _Once:
    """Run an attack on the first call, and return its adversarial examples again on later calls."""

    def __init__(self, attack: Attack):
        self.attack = attack
        self.found: Tensor | None = None

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor:
        if self.found is None:
            self.found = self.attack(model, images, targets, threat, rng)
        return self.found


class _Moved(nn.Module):
    """A network evaluated at other weights; batch norms and modes are those of the network itself."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]):
        super().__init__()
        self.model = model
        self.weights = weights

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.model, self.weights, (images,))
        return logits


def worst_nearby(weights: dict[str, Tensor], gradients: dict[str, Tensor], radius: float) -> dict[str, Tensor]:
    """w + radius * |w| * g / |g| for each tensor: one ascent step on the loss, of relative length `radius`."""
    return {
        name: weights[name] + gradient * (radius * weights[name].detach().norm() / gradient.norm().clamp_min(1e-20))
        for name, gradient in gradients.items()
    }


@dataclass(frozen=True)
class AWP:
    """A loss whose value and gradients are taken at adversarially perturbed weights; the weights are not changed.

        v = radius * |w| * g / |g|,  g the gradient of the loss in w,  for each weight of a convolution or linear layer
        loss = inner loss at w + v

    Images are attacked once, at w. The first pass does not change the running statistics. The gradient at w + v
    reaches w unchanged, since v is held fixed. AWP adds a forward and a backward pass of clean images and adversarial
    examples to each step: with TRADES it takes 2 K + 12 units instead of 2 K + 6.

    radius  0.005 in the paper
    warmup  share of the training without perturbation; 10 of 200 epochs in the paper's code

    Source: Wu et al. 2020, arXiv:2004.05884.
    """

    loss: Loss = field(default_factory=TRADES)
    radius: float = 0.005
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_settings(radius=self.radius, warmup=self.warmup)

    def at(self, share: float) -> Loss:
        inner = loss_at(self.loss, share)
        return replace(self, loss=inner) if share > self.warmup else inner

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        again = rng.to(rng.keys.device)  # a copy: both passes draw the same numbers
        loss = with_attack(self.loss, _Once)
        weights: dict[str, Tensor] = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1}
        with frozen_bn_stats(model):
            value = loss(model, batch, threat, rng)
        found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(weights, found, strict=True) if gradient is not None}
        return loss(_Moved(model, worst_nearby(weights, gradients, self.radius)), batch, threat, again)
