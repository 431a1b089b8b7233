"""Modes of a network, as context managers that restore it on exit; batch-invariant forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

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
    batch is padded to a multiple of 16 rows with copies of the first, which are removed from the result. Kernels are
    chosen by memory format too, and padding would change it: inputs are made contiguous.
    Bit-exact on CPUs for networks of convolutions, linear layers and per-image normalization
    (tested); on GPUs kernels may still vary.
    """
    inputs = tuple(x.contiguous() for x in inputs)
    count = len(inputs[0])
    filler = -count % 16
    if not filler or not count:
        return function(*inputs)
    return function(*(_filled(x, count + filler) for x in inputs))[:count]


def channels_last(model: nn.Module) -> nn.Module:
    """The same network with its weights laid out channels-last: convolutions run 1.2 to 1.5 times as fast."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


class BatchInvariant(nn.Module):
    """A network called as by `batch_invariant`, with the same results, but with padding only where it is needed.

    On a CPU most sizes give the same bits without padding, and an attack makes thousands of passes on the few images
    that remain. So once padding of a size has cost about as much as a comparison, both are computed once on the images
    at hand: logits and, where a gradient is wanted, a gradient. If all bits agree, that size is not padded any more;
    if not, the next larger size is used where that is known to agree. Kernels are chosen by shape and not by value, so
    one comparison tells for all images. On other devices every batch is padded.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self._agrees: dict[tuple[object, ...], bool] = {}
        self._padded: dict[tuple[object, ...], int] = {}

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "cpu" or not len(images) % 16:
            return batch_invariant(self.model, images)
        images = images.contiguous()
        size = self._size_for(images)
        return cast(Tensor, self.model(_filled(images, size)))[: len(images)]

    def _size_for(self, images: Tensor) -> int:
        """The number of rows to compute: that of `images` if its results agree with a padded batch's, else more."""
        gradient = torch.is_grad_enabled() and images.requires_grad
        size, whole = len(images), len(images) + -len(images) % 16
        while size < whole:
            place = (size, images.shape[1:], images.dtype, gradient)
            if place not in self._agrees:
                self._padded[place] = self._padded.get(place, 0) + whole - size
                if self._padded[place] < size:
                    return whole
                self._agrees[place] = self._compare(_filled(images.detach(), size), whole, gradient)
            if self._agrees[place]:
                return size
            size += 1
        return whole

    def _compare(self, images: Tensor, whole: int, gradient: bool) -> bool:
        """Whether all bits of logits and gradient are those of a batch padded to `whole` rows."""
        results = []
        with torch.random.fork_rng(devices=()), torch.set_grad_enabled(gradient):
            for size in (len(images), whole):
                points = _filled(images, size).requires_grad_(gradient)
                logits = self.model(points)
                results.append([logits[: len(images)]])
                if gradient and logits.requires_grad:
                    (slope,) = torch.autograd.grad(logits.square().sum(), points, allow_unused=True)
                    results[-1] += [] if slope is None else [slope[: len(images)]]
        return all(torch.equal(bare, padded) for bare, padded in zip(*results, strict=True))


def _filled(images: Tensor, size: int) -> Tensor:
    """`images`, with copies of the first after them, `size` rows in all."""
    filler = size - len(images)
    return torch.cat([images, images[:1].detach().expand(filler, *images.shape[1:])]) if filler else images
