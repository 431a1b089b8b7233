"""One pass of an attack: logits, objective and its gradient in the images, nothing else; and what an attack found."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustgen.modes import frozen_parameters
from robustgen.objectives import Objective


class AttackResult(NamedTuple):
    """What an attack's `search` returns.

    points  (N, ...) allowed images
    step    (N,) after how many steps a misclassified one was found, -1 where none was; only a claim
    """

    points: Tensor
    step: Tensor


class NoGradient(ValueError):
    """The model's output cannot be differentiated in the images."""

    def __init__(self) -> None:
        super().__init__(_ADVICE)


_ADVICE = (
    "the model's output has no gradient: something in its forward pass cuts it (torch.no_grad, .detach(), .data, "
    "rounding through integers); gradient attacks need a differentiable stand-in (BPDA)"
)


def value_and_grad(
    model: nn.Module, points: Tensor, targets: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, K), objective (N,) and its gradient in each of `points` (N, ...), without a graph.

    Only the gradient of the images is computed: the parameters' are neither touched nor paid for. An objective
    of an image does not depend on other images' gradients, so summing over the batch loses nothing.

    Raises:
        ValueError: the output does not depend on the images in a way that can be differentiated.
    """
    with torch.enable_grad(), frozen_parameters(model):
        points = points.detach().requires_grad_()
        logits = model(points)
        values = objective(logits, targets)
        if not values.requires_grad:
            raise NoGradient()
        (gradient,) = torch.autograd.grad(values.sum(), points)
    return logits.detach(), values.detach(), gradient


def averaged_value_and_grad(
    model: nn.Module, points: Tensor, targets: Tensor, objective: Objective, times: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`value_and_grad`, averaged over passes of a stochastic model (EOT); the logits are the last pass's."""
    logits, value, gradient = value_and_grad(model, points, targets, objective)
    for _ in range(times - 1):
        logits, again, another = value_and_grad(model, points, targets, objective)
        value, gradient = value + again, gradient + another
    return (logits, value, gradient) if times == 1 else (logits, value / times, gradient / times)


def logit_differences(model: nn.Module, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """z_k - z_y for the K - 1 wrong classes, (N, K - 1), and their gradients in the points, (N, K - 1, ...)."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        logits = model(points)
        if not logits.requires_grad:
            raise NoGradient()
        others = torch.arange(logits.shape[1] - 1, device=points.device)
        wrong = others + (others >= labels[:, None]).long()
        values = logits.gather(1, wrong) - logits.gather(1, labels[:, None])
        last = values.shape[1] - 1
        gradients = [torch.autograd.grad(values[:, k].sum(), points, retain_graph=k < last)[0] for k in range(last + 1)]
    return values.detach(), torch.stack(gradients, dim=1)
