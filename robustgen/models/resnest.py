"""ResNeSt: residual networks with split attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from robustgen.models.wide_resnet import Normalize, activation_of, batch_norm

_BLOCKS = {152: (3, 8, 36, 3)}
_SPLITS = 4
_STEM = 64


def _activation(name: str) -> nn.Module:
    """An activation as a module, because it is a numbered element of the stem's sequence in the published names."""
    return nn.SiLU() if name == "silu" else nn.ReLU()


class _SplitAttention(nn.Module):
    """Split attention: a grouped 3x3 convolution to `_SPLITS` sets of channels x_r, and their weighted sum.

    sum_r a_r x_r,    a = softmax over splits of fc2(activation(bn1(fc1(spatial mean of sum_r x_r)))), per channel
    """

    def __init__(self, channels: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        squeezed = max(channels * _SPLITS // 4, 32)
        self.activation = activation
        self.conv = nn.Conv2d(channels, channels * _SPLITS, 3, padding=1, groups=_SPLITS, bias=False)
        self.bn0 = batch_norm(channels * _SPLITS)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.bn1 = batch_norm(squeezed)
        self.fc2 = nn.Conv2d(squeezed, channels * _SPLITS, 1)

    def forward(self, x: Tensor) -> Tensor:
        splits = self.activation(self.bn0(self.conv(x))).unflatten(1, (_SPLITS, -1))
        pooled = splits.sum(1).mean((2, 3), keepdim=True)
        weights = self.fc2(self.activation(self.bn1(self.fc1(pooled)))).unflatten(1, (_SPLITS, -1))
        return (weights.softmax(1) * splits).sum(1)


class _Bottleneck(nn.Module):
    """1x1 convolution, split attention, 1x1 convolution; average pooling for strides, in the shortcut too."""

    def __init__(self, inputs: int, width: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.activation = activation
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = batch_norm(width)
        self.conv2 = _SplitAttention(width, activation)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else None
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = batch_norm(4 * width)
        self.downsample = None
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(inputs, 4 * width, 1, bias=False),
                batch_norm(4 * width),
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.activation(self.bn1(self.conv1(x))))
        out = self.bn3(self.conv3(self.pool(out) if self.pool is not None else out))
        return self.activation(out + (self.downsample(x) if self.downsample is not None else x))


class ResNeSt(nn.Module):
    """ResNeSt-152 for small images (N, C, H, W) in [0, 1]; normalization is inside.

    Four splits; a stem of three 3x3 convolutions (64, 64, 128 channels) without stride or pooling; 3, 8, 36 and 3
    blocks with strides 1, 2, 2, 2; global average pooling, linear layer. The weights of Sehwag et al. 2021
    (arXiv:2104.09425) were trained without normalization: append -unnormalised to the name for them.

    Source: Zhang et al. 2020, arXiv:2004.08955; form and parameter names for those weights as in
    RobustBench/robustbench, model_zoo/architectures/resnest.py.
    """

    def __init__(
        self,
        depth: int,
        *,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        activation: str = "silu",
    ):
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"the depth of a ResNeSt must be {', '.join(map(str, _BLOCKS))}, got {depth}")
        self.activation = activation_of(activation)
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Sequential(
            nn.Conv2d(len(mean), _STEM, 3, padding=1, bias=False),
            batch_norm(_STEM),
            _activation(activation),
            nn.Conv2d(_STEM, _STEM, 3, padding=1, bias=False),
            batch_norm(_STEM),
            _activation(activation),
            nn.Conv2d(_STEM, 2 * _STEM, 3, padding=1, bias=False),
        )
        self.bn1 = batch_norm(2 * _STEM)
        inputs = 2 * _STEM
        for g, (count, width, stride) in enumerate(zip(_BLOCKS[depth], (64, 128, 256, 512), (1, 2, 2, 2), strict=True)):
            blocks = []
            for i in range(count):
                blocks.append(_Bottleneck(inputs, width, stride if i == 0 else 1, self.activation))
                inputs = 4 * width
            self.add_module(f"layer{g + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(self.normalize(images))))
        for g in range(4):
            out = self.get_submodule(f"layer{g + 1}")(out)
        logits: Tensor = self.fc(out.mean((2, 3)))
        return logits
