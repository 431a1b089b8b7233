"""Group norm, dropout and depthwise convolutions that are fast in bfloat16 on CPUs. Elsewhere they are PyTorch's.

PyTorch's own took 35 % of a small U-Net's training step in bfloat16. In channels-last bfloat16 group norm takes three
times as long as in float32, because it reads each group's few channels position by position, and the backward pass of
a depthwise convolution ten times as long. Dropout draws one random number in double precision per element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LARGE = 1024
"""Positions from which PyTorch's group norm sums over whole rows of channels; its forward pass is then the faster."""


def _fast(x: Tensor) -> bool:
    """Whether `x` is bfloat16 on a CPU, channels-last, and not being traced."""
    return (
        x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and x.ndim == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
    )


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, with passes of its own for channels-last bfloat16 on a CPU: statistics in float32."""

    def forward(self, x: Tensor) -> Tensor:
        if not _fast(x):
            return super().forward(x)
        output: Tensor = _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return output


class _GroupNorm(torch.autograd.Function):
    """y = (x - mean) rstd weight + bias, with mean and rstd of each image and group; x (N, C, H, W) channels-last.

    With x^ = (x - mean) rstd, g the gradient of y, and <.> the mean over an image's group:

        dx = rstd (g weight - <g weight> - x^ <g weight x^>)

    Sums over positions are taken for each channel, and combined to groups afterwards.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        count, channels, height, width = x.shape
        if height * width >= LARGE:
            y, mean, rstd = torch.native_group_norm(x, weight, bias, count, channels, height * width, groups, eps)
        else:
            rows = _rows(x)
            mean = _of_groups(rows.mean(1), groups)
            square = _of_groups(torch.linalg.vector_norm(rows, dim=1).square() / (height * width), groups)
            rstd = (square - mean.square()).clamp_min(0).add(eps).rsqrt()
            scale = _of_channels(rstd, channels) * weight
            shift = bias - _of_channels(mean, channels) * scale
            y = _images(torch.addcmul(shift[:, None], rows, scale[:, None]), x)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable  # mean and rstd are saved as numbers: a second derivative would take them for constants
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        groups, channels = mean.shape[1], x.shape[1]
        rows, gradient = _rows(x), _rows(gradients[0])
        mean, rstd = _of_channels(mean.float(), channels), _of_channels(rstd.float(), channels)
        sums = gradient.sum(1)
        products = ((gradient * rows).sum(1) - mean * sums) * rstd  # sums of g x^
        positions = x.shape[2] * x.shape[3]
        level = _of_channels(_of_groups(sums * weight, groups), channels) / positions
        slope = _of_channels(_of_groups(products * weight, groups), channels) / positions
        by_row = -rstd.square() * slope
        shift = -rstd * level - mean * by_row
        dx = torch.addcmul(shift[:, None], rows, by_row[:, None]).addcmul_(gradient, (rstd * weight)[:, None])
        return _images(dx, x), products.sum(0), sums.sum(0), None, None


def _rows(x: Tensor) -> Tensor:
    """(N, H W, C) in float32 of images (N, C, H, W)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).float()


def _images(rows: Tensor, like: Tensor) -> Tensor:
    """Images (N, C, H, W), channels-last, in the type of `like`, of rows (N, H W, C)."""
    return rows.to(like.dtype).unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def _of_groups(values: Tensor, groups: int) -> Tensor:
    """Means (N, groups) over the channels of each group, of values (N, C)."""
    return values.unflatten(1, (groups, -1)).mean(2)


def _of_channels(values: Tensor, channels: int) -> Tensor:
    """Values (N, groups) repeated for each of the channels, (N, C)."""
    return values.repeat_interleave(channels // values.shape[1], dim=1)


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """`torch.nn.functional.dropout`; in channels-last bfloat16 on a CPU one 64-bit random number decides four elements.

    `share` is then rounded to a multiple of 2^-16.
    """
    if not (training and 0 < share < 1 and _fast(x)):
        return F.dropout(x, share, training)
    count = x.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    kept = bits >= round(share * 2**16) - 2**15
    mask = kept.to(x.dtype).div_(1 - share)
    return x * mask.view(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)


def depthwise(convolve: Callable[..., Tensor], x: Tensor, weight: Tensor, **how: int) -> Tensor:
    """A convolution of each channel by itself: `convolve(x, weight, groups=C)`, in float32 where bfloat16 is slow."""
    low = x.dtype == torch.bfloat16 or torch.is_autocast_enabled(x.device.type)
    if not low or x.device.type != "cpu":
        return convolve(x, weight, groups=x.shape[1], **how)
    with torch.autocast("cpu", enabled=False):
        return convolve(x.float(), weight.float(), groups=x.shape[1], **how).bfloat16()
