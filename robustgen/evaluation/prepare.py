"""A faster copy of a model for attacks; the model itself verifies what they find."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustgen.attacks.common import NoGradient, image_gradient
from robustgen.modes import channels_last

TOLERANCE = 1e-3
"""Largest difference of the copy's logits, as a fraction of the largest logit."""
GRADIENT_TOLERANCE = 0.05
"""Length of the difference of the two input gradients, as a fraction of the gradient's length."""


class _Affine(nn.Module):
    """A batch norm in evaluation mode as one multiply-add per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale * norm.weight if norm.weight is not None else scale
        shift = -norm.running_mean * scale
        shift = shift + norm.bias if norm.bias is not None else shift
        self.register_buffer("scale", scale.detach().view(-1, 1, 1))
        self.register_buffer("shift", shift.detach().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


def prepared(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy in evaluation mode, without parameter gradients, channels-last, with batch norms folded.

    A batch norm directly after a convolution whose output is not used elsewhere is folded into its weights; others
    become one multiply-add. If a model cannot be copied or traced, or the copy's logits or gradients differ for
    `images`, the last step that works is used, at worst the model itself. Tracing sees only the forward pass: it loses
    `torch.no_grad`, and the gradients that a `torch.autograd.Function` defines.
    """
    best = model
    for attempt in (laid_out, folded):
        try:
            candidate = attempt(model)
            if agrees(candidate, model, images, TOLERANCE, GRADIENT_TOLERANCE):
                best = candidate
        except Exception:  # foreign code may raise anything when it is copied, traced or called
            continue
    return best


def agrees(candidate: nn.Module, model: nn.Module, images: Tensor, tolerance: float, gradient_tolerance: float) -> bool:
    """Whether a copy has a model's logits and input gradients of these images, within fractions as `TOLERANCE` says.

    Where the model has no gradient, any gradient of the copy will do: attacks on the copy lose nothing by it.

    Raises:
        Exception: whatever a pass of the copy can raise, forward or backward.
    """
    logits, gradient = _answers(model, images)
    copied, copied_gradient = _answers(candidate, images)
    if (copied.shape, copied.dtype) != (logits.shape, logits.dtype):
        return False
    if not (copied - logits).abs().max() <= tolerance * logits.abs().max():
        return False
    if gradient is None or copied_gradient is None:
        return gradient is None
    return bool((copied_gradient - gradient).norm() <= gradient_tolerance * gradient.norm())


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits of images, and the gradient of the sum of their squares; None if they have none."""
    with torch.enable_grad():
        points = images.detach().requires_grad_()
        logits = model(points)
        try:
            gradient = image_gradient(logits.square().sum(), points)
        except NoGradient:
            return logits.detach(), None
    return logits.detach(), gradient


def laid_out(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, without parameter gradients, channels-last."""
    return channels_last(copy.deepcopy(model).eval().requires_grad_(False))


def folded(model: nn.Module) -> fx.GraphModule:
    """A traced copy as `laid_out` makes, with batch norms folded.

    Raises:
        Exception: whatever tracing a model can raise.
    """
    traced = fx.symbolic_trace(laid_out(model))
    modules = dict(traced.named_modules())
    used = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        norm = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            continue
        source = node.args[0]
        before = modules.get(source.target) if source.op == "call_module" else None
        if isinstance(before, nn.Conv2d) and len(source.users) == 1 and used[source.target] == 1:
            _replace(traced, source.target, fuse_conv_bn_eval(before, norm))
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
        else:
            _replace(traced, node.target, _Affine(norm))
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    channels_last(traced.requires_grad_(False))
    return traced


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(root.get_submodule(parent), last, module)
