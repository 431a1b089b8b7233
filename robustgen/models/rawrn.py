"""RaWRN: a WideResNet with a depth and width per group, and squeeze-and-excitation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from robustgen.models.wide_resnet import Block, Normalize, activation_of, batch_norm, convolution, pad_for

_STEM = 96
_BLOCKS = (30, 31, 10)
WIDTHS = (216, 432, 864)
SQUEEZED = 0.25
"""Channels after the squeeze, as a fraction."""


class _SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation: scale each channel by a function of the means of all channels."""

    def __init__(self, channels: int):
        super().__init__()
        squeezed = round(SQUEEZED * channels)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu())
        return x * scale.sigmoid()


class _Block(Block):
    """A WideResNet block with squeeze-and-excitation after its second convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__(inputs, outputs, stride, activation)
        self.se = _SqueezeExcitation(outputs)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.batchnorm_0(x))
        residual = self.shortcut(active) if self.shortcut is not None else x
        out = self.conv_0(pad_for(self.stride, active))
        return residual + self.se(self.conv_1(self.activation(self.batchnorm_1(out))))


class _Group(nn.Module):
    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        rest = [_Block(outputs, outputs, 1, activation) for _ in range(blocks - 1)]
        self.block = nn.Sequential(_Block(inputs, outputs, stride, activation), *rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out


class RaWRN(nn.Module):
    """RaWRN-70-16, the only size, for images (N, C, H, W) in [0, 1]; normalization is inside.

    A 3x3 stem of 96 channels; 30, 31 and 10 blocks of 216, 432 and 864 channels with strides 1, 2, 2, each with
    squeeze-and-excitation by a factor of 4; batch norm, activation, global average pooling, linear layer.

    Source: Peng et al. 2023, arXiv:2308.16258; names of RobustBench/robustbench,
    model_zoo/architectures/robustarch_wide_resnet.py.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        activation: str = "silu",
    ):
        super().__init__()
        if (depth, width) != (70, 16):
            raise ValueError(f"the only RaWRN is rawrn-70-16, got rawrn-{depth}-{width}")
        self.activation = activation_of(activation)
        self.normalize = Normalize(mean, std)
        self.init_conv = convolution(len(mean), _STEM, 3, 1)
        channels = (_STEM, *WIDTHS)
        self.layer = nn.Sequential(
            *(_Group(_BLOCKS[g], channels[g], channels[g + 1], (1, 2, 2)[g], self.activation) for g in range(3))
        )
        self.batchnorm = batch_norm(channels[3])
        self.logits = nn.Linear(channels[3], classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.layer(self.init_conv(self.normalize(images)))
        logits: Tensor = self.logits(self.activation(self.batchnorm(out)).mean((2, 3)))
        return logits
