"""A faster copy of a model for attacks; the model itself verifies what they find."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustgen.modes import channels_last

TOLERANCE = 1e-3
"""Largest difference of the copy's logits, as a fraction of the largest logit."""


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
    become one multiply-add. If a model cannot be copied or traced, or the copy's logits for `images` differ, the last
    step that works is used, at worst the model itself.
    """
    best = model
    for attempt in (laid_out, folded):
        try:
            candidate = attempt(model)
            if _same(candidate, model, images):
                best = candidate
        except Exception:  # foreign code may raise anything when it is copied, traced or called
            continue
    return best


@torch.no_grad()
def _same(candidate: nn.Module, model: nn.Module, images: Tensor) -> bool:
    expected, got = model(images), candidate(images)
    return got.shape == expected.shape and bool((got - expected).abs().max() <= TOLERANCE * expected.abs().max())


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
