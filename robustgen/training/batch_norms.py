"""Batch norms for compiled networks, and for batches that are divided among processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.runtime.distributed import sum_over_all


class _SumOverAll(torch.autograd.Function):
    """Sum over all processes. Its gradient is also a sum over processes, since each loss depends on every summand."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return sum_over_all(part)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_all(gradient)


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose momentum is a tensor and whose batch may be that of all processes.

    torch.compile would recompile a network for every value of a momentum that is a float, and `debias_statistics`
    changes it with each step. If `world` is above 1, mean and variance are those of the images of all `world`
    processes, which must hold equally many images: two all-reduce operations forward, two backward.
    """

    rate: Tensor

    def __init__(self, like: nn.BatchNorm2d, world: int = 1):
        super().__init__(like.num_features, eps=like.eps, momentum=like.momentum)
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked
        self.register_buffer("rate", torch.tensor(like.momentum or 0.0, device=like.weight.device), persistent=False)
        self.world = world
        self.train(like.training)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        count = input.numel() // input.shape[1] * self.world
        if self.world > 1:
            output, mean, variance = self._over_all(input, count)
        else:
            output = F.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)
            variance, mean = torch.var_mean(input.detach().float(), (0, 2, 3), correction=0)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean.detach(), self.rate)
                self.running_var.lerp_(variance.detach() * (count / (count - 1)), self.rate)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        return output

    def _over_all(self, input: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The normalized images, mean and (biased) variance (C,) of the images of all processes."""
        values = input.float()
        mean = _SumOverAll.apply(values.sum((0, 2, 3))) / count
        centred = values - mean.view(1, -1, 1, 1)
        variance = _SumOverAll.apply(centred.square().sum((0, 2, 3))) / count
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype), mean, variance


def use_own_batch_norms(model: nn.Module, world: int = 1) -> None:
    """Replace every `nn.BatchNorm2d` by `BatchNorm`; parameters, statistics and names stay the same."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, BatchNorm(child, world))


def follow_momentum(model: nn.Module) -> None:
    """Copy the momentum that `debias_statistics` has set into the tensors of `BatchNorm`."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.rate.fill_(module.momentum or 0.0)


class Statistics:
    """Running statistics under gradient accumulation: every part of a step starts from those before the step.

    After the step they are the mean over its parts, as they are when each part belongs to a process.
    """

    def __init__(self, model: nn.Module):
        self._buffers = statistics_of(model)
        self._before = [buffer.clone() for buffer in self._buffers]
        self._sums = [torch.zeros_like(buffer) for buffer in self._buffers]
        self._parts = 0

    def end_part(self) -> None:
        self._parts += 1
        for total, buffer, before in zip(self._sums, self._buffers, self._before, strict=True):
            total.add_(buffer)
            buffer.copy_(before)

    def end_step(self) -> None:
        for total, buffer in zip(self._sums, self._buffers, strict=True):
            buffer.copy_(total / self._parts)


def statistics_of(model: nn.Module) -> list[Tensor]:
    """Running means and variances of all batch norms."""
    return [
        statistic
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for statistic in (module.running_mean, module.running_var)
        if statistic is not None
    ]
