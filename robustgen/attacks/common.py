"""Code that attacks share: logits, objective and its input gradient in one pass; the result of a search."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustgen.modes import frozen_parameters
from robustgen.objectives import Objective, hard_labels, margin
from robustgen.randomness import Rng, rng_for


class AttackResult(NamedTuple):
    """What an attack's `search` returns.

    points  (N, ...) images within the threat model
    step    (N,) number of steps after which an adversarial example was found, -1 where the attack failed; the caller
            verifies it
    margin  (N,) largest margin, `objectives.margin`, of the iterates within the threat model; None if the attack does
            not report it: what it did not break in bfloat16 is then always searched again in float32
    """

    points: Tensor
    step: Tensor
    margin: Tensor | None = None


def rng_or_default(rng: Rng | None, images: Tensor) -> Rng:
    """Return `rng`, or the stream of seed 0 on the device of `images` when none is given."""
    return rng_for(0, "attack", device=images.device) if rng is None else rng


def raised(reached: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) the margin of logits where it is larger than the one reached before, else that."""
    return torch.maximum(reached, margin(logits, hard_labels(targets)))


class NoGradient(ValueError):
    """The model's output cannot be differentiated in the images."""

    def __init__(self) -> None:
        super().__init__(_ADVICE)


_ADVICE = (
    "the model's output has no gradient: something in its forward pass cuts it (torch.no_grad, .detach(), .data, "
    "rounding through integers); gradient attacks need a differentiable stand-in (BPDA)"
)


def image_gradient(value: Tensor, points: Tensor, *, keep_graph: bool = False) -> Tensor:
    """The gradient of a scalar in `points`, of their shape; `keep_graph` where more gradients of the graph follow.

    Raises:
        ValueError: `value` does not depend on the points in a way that can be differentiated, though it may on the
            model's parameters.
    """
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, points, retain_graph=keep_graph, allow_unused=True)
    if gradient is None:
        raise NoGradient()
    return gradient


def value_and_grad(
    model: nn.Module, points: Tensor, targets: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, K), objective (N,) and its gradient in each of `points` (N, ...), without a graph.

    Only the gradient with respect to the images is computed; parameter gradients are neither computed nor changed. An
    objective of an image does not depend on other images' gradients, so summing over the batch loses nothing.

    Raises:
        ValueError: the output does not depend on the images in a way that can be differentiated.
    """
    with torch.enable_grad(), frozen_parameters(model):
        points = points.detach().requires_grad_()
        logits = model(points)
        values = objective(logits, targets)
        gradient = image_gradient(values.sum(), points)
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
        others = torch.arange(logits.shape[1] - 1, device=points.device)
        wrong = others + (others >= labels[:, None]).long()
        values = logits.gather(1, wrong) - logits.gather(1, labels[:, None])
        last = values.shape[1] - 1
        gradients = [image_gradient(values[:, k].sum(), points, keep_graph=k < last) for k in range(last + 1)]
    return values.detach(), torch.stack(gradients, dim=1)
