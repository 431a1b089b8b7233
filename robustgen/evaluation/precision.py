"""Attacks in bfloat16: a copy of a model that computes in it, and the choice between the two precisions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import cast

import torch
from torch import Tensor, fx, nn

from robustgen.attacks.common import NoGradient, image_gradient
from robustgen.evaluation.prepare import agrees, folded, laid_out
from robustgen.runtime import distributed
from robustgen.runtime.precision import check_precision, faster

CLOSE = 0.05
"""Largest difference of the copy's logits, as a fraction of the largest logit."""
CLOSE_GRADIENT = 0.5
"""The same of input gradients, by their length."""


class _InBfloat16(nn.Module):
    """A model whose parameters are bfloat16, called with float32 images; returns float32 logits."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.bfloat16()

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.model(images.bfloat16())).float()


def in_bfloat16(model: nn.Module, images: Tensor) -> nn.Module | None:
    """A copy of a model that computes in bfloat16, with its weights cast once; None if it cannot be made.

    Batch norms are folded and the layout is channels-last, as in `prepare.prepared`. The first and the last convolution
    or linear layer stay in float32, so that neither images nor logits are rounded to 8 bits; where the model cannot be
    traced, all of it is cast. None for models with parameters other than float32, for those whose passes fail in
    bfloat16, forward or backward, and where the copy's logits of `images` differ by more than `CLOSE`, or its gradients
    by more than `CLOSE_GRADIENT`.
    """
    if any(parameter.is_floating_point() and parameter.dtype != torch.float32 for parameter in model.parameters()):
        return None
    attempts: tuple[Callable[[nn.Module], nn.Module], ...] = (_middle_cast, lambda m: _InBfloat16(laid_out(m)))
    for attempt in attempts:
        with suppress(Exception):  # foreign code may raise anything when it is copied, traced or called
            candidate = attempt(model)
            if agrees(candidate, model, images, CLOSE, CLOSE_GRADIENT):
                return candidate
    return None


def _middle_cast(model: nn.Module) -> nn.Module:
    """All between the first and the last layer of a traced copy in bfloat16."""
    traced = folded(model)
    modules = dict(traced.named_modules())
    nodes = list(traced.graph.nodes)
    layers = [n for n in nodes if n.op == "call_module" and isinstance(modules[n.target], nn.Conv2d | nn.Linear)]
    first, last = layers[0], layers[-1]
    for node in nodes[nodes.index(first) + 1 : nodes.index(last)]:
        if node.op == "call_module" and node.target not in (first.target, last.target):
            modules[node.target].bfloat16()
        elif node.op == "get_attr":
            _cast_attribute(traced, str(node.target))
    with traced.graph.inserting_after(first):
        entered = traced.graph.call_method("to", (first, torch.bfloat16))
    first.replace_all_uses_with(entered, delete_user_cb=lambda user: user is not entered)
    with traced.graph.inserting_before(last):
        left = traced.graph.call_method("float", (last.args[0],))
    last.args = (left, *last.args[1:])
    traced.graph.lint()
    traced.recompile()
    return traced


def _cast_attribute(traced: fx.GraphModule, name: str) -> None:
    """Cast a parameter or buffer that the graph reads by its name."""
    owner, _, last = name.rpartition(".")
    module = traced.get_submodule(owner)
    value = getattr(module, last)
    if torch.is_tensor(value) and value.is_floating_point():
        cast_value = value.detach().bfloat16()
        setattr(module, last, nn.Parameter(cast_value, False) if isinstance(value, nn.Parameter) else cast_value)


def low_precision_copy(
    model: nn.Module, images: Tensor, precision: str, kept: str | None, fast: nn.Module, passes: int
) -> tuple[nn.Module | None, str]:
    """The copy that proposes in bfloat16, or None for float32; and a note on the choice, "" if there is nothing to say.

    Args:
        images: a batch of the real size, to time both precisions.
        precision: auto, float32 or bfloat16.
        kept: precision in which these verdicts were begun, if they were.
        fast: the float32 copy that the attacks would use.
        passes: number of passes that the evaluation makes, at least.

    Raises:
        ValueError: the device cannot compute in bfloat16, and that was demanded.
    """
    if precision == "float32":
        return None, ""
    begun = [one for one in distributed.gathered(kept) if one is not None]
    if precision == "auto" and begun and begun[0] == "float32":
        return None, ""
    if precision == "bfloat16":
        check_precision(precision, images.device)
    low = in_bfloat16(model, images[:16])
    if not all(distributed.gathered(low is not None)):
        return None, "attacks ran in float32: a copy of this model in bfloat16 fails or differs too much"
    assert low is not None
    if precision == "bfloat16" or begun:
        return low, ""
    copies = {"float32": fast, "bfloat16": low}
    chosen, why, _ = faster(images.device, passes, lambda which: _climb(copies[which], images))
    return (low, "") if chosen == "bfloat16" else (None, f"attacks ran in float32: {why}")


def _climb(model: nn.Module, images: Tensor) -> None:
    """One forward and one backward pass, as in an attack."""
    with torch.enable_grad(), suppress(NoGradient):
        points = images.detach().requires_grad_()
        image_gradient(model(points).sum(), points)
