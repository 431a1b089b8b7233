"""Modes of a network, as context managers that restore it on exit; batch-invariant forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode; restore the mode of each submodule on exit."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def frozen_bn_stats(model: nn.Module) -> Iterator[None]:
    """Batch norms in training mode normalize by their batch and do not update the running statistics.

    As in the inner attack and the clean pass of the official code (arXiv:2103.01946, App. A).
    """
    tracking = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


@contextmanager
def updating_bn_stats(model: nn.Module) -> Iterator[None]:
    """Within `frozen_bn_stats`: update the running statistics in every pass; freeze them again on exit."""
    frozen = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    frozen = [m for m in frozen if not m.track_running_stats]
    for module in frozen:
        module.track_running_stats = True
    try:
        yield
    finally:
        for module in frozen:
            module.track_running_stats = False


@contextmanager
def frozen_parameters(model: nn.Module) -> Iterator[None]:
    """Disable parameter gradients of a compiled network, and restore them on exit.

    Its backward pass computes the gradients of all parameters that required one in the forward pass, needed or not:
    inside an attack a third of the work would be wasted. Other networks compute only the gradients that are needed and
    are not changed: autocast caches cast weights between passes only while they require gradients.
    """
    compiled = hasattr(model, "_orig_mod") or model._compiled_call_impl is not None
    enabled = [parameter for parameter in model.parameters() if parameter.requires_grad] if compiled else []
    for parameter in enabled:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in enabled:
            parameter.requires_grad = True


def debias_statistics(model: nn.Module, step: int, decay: float) -> None:
    """Set the momentum of batch norms so that running statistics are the zero-debiased average.

        running_t = (1 - decay) / (1 - decay^t) * sum_{s <= t} decay^(t - s) * batch_s,      t = step + 1

    as in Haiku's batch norm; after the first step they are the statistics of its batch. Call before each training step,
    starting with step 0.
    """
    momentum = (1 - decay) / (1 - decay ** (step + 1))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = momentum


def batch_invariant(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, computed so that a row of the result does not depend on the number of rows in the batch.

    Matrix and convolution kernels are chosen by size: below 8 rows other kernels sum in another order. So the
    batch is padded to a multiple of 16 rows with copies of the first, which are removed from the result.
    Bit-exact on CPUs for networks of convolutions, linear layers and per-image normalization
    (tested); on GPUs kernels may still vary.
    """
    count = len(inputs[0])
    filler = -count % 16
    if not filler or not count:
        return function(*inputs)
    filled = [torch.cat([x, x[:1].detach().expand(filler, *x.shape[1:])]) for x in inputs]
    return function(*filled)[:count]


def channels_last(model: nn.Module) -> nn.Module:
    """The same network with its weights laid out channels-last: convolutions run 1.2 to 1.5 times as fast."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


class BatchInvariant(nn.Module):
    """A network called through `batch_invariant`, for attacks whose rows must not depend on their batch."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return batch_invariant(self.model, images)
