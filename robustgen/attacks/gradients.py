"""One pass of an attack: logits, objective and its gradient in the images, nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustgen.objectives import Objective


def climb(model: nn.Module, points: Tensor, targets: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, K), objective (N,) and its gradient in each of `points` (N, ...), without a graph.

    Only the gradient of the images is computed: the parameters' are neither touched nor paid for. An objective
    of an image does not depend on other images' gradients, so summing over the batch loses nothing.

    Raises:
        ValueError: the output does not depend on the images in a way that can be differentiated.
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        logits = model(points)
        values = objective(logits, targets)
        if not values.requires_grad:
            raise ValueError(
                "the model's output has no gradient: something in its forward pass cuts it (torch.no_grad, .detach(), "
                ".data, rounding through integers); gradient attacks need a differentiable stand-in (BPDA)"
            )
        (gradient,) = torch.autograd.grad(values.sum(), points)
    return logits.detach(), values.detach(), gradient
