"""ResNets (post-activation) for small images, with the parameter names of released weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from robustgen.models.wide_resnet import Normalize, activation_of, batch_norm

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """1x1 convolution and batch norm where the shape changes, else the identity."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), batch_norm(outputs))


class _Basic(nn.Module):
    """Basic block: two 3x3 convolutions."""

    growth = 1

    def __init__(self, inputs: int, width: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.activation = activation
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = batch_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = batch_norm(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(out)) + self.shortcut(x))


class _Bottleneck(nn.Module):
    """Bottleneck block: 1x1, 3x3 and 1x1 convolutions, the last one four times as wide."""

    growth = 4

    def __init__(self, inputs: int, width: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.activation = activation
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = batch_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = batch_norm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = batch_norm(4 * width)
        self.shortcut = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        out = self.activation(self.bn2(self.conv2(out)))
        return self.activation(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18, -34, -50, -101 or -152 for small images (N, C, H, W) in [0, 1]; normalization is inside.

    A 3x3 stem of 64 channels without pooling; four groups with strides 1, 2, 2, 2; global average pooling; linear layer
    for the logits.

    Source: He et al. 2016, arXiv:1512.03385, in the form for CIFAR of kuangliu/pytorch-cifar; parameter names as in
    RobustBench/robustbench, model_zoo/architectures/resnet.py (arXiv:2104.09425 trains ResNet-18 and -50 of this form).
    """

    def __init__(
        self,
        depth: int,
        *,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        activation: str = "relu",
    ):
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"the depth of a ResNet must be one of {', '.join(map(str, _BLOCKS))}, got {depth}")
        self.activation = activation_of(activation)
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(len(mean), 64, 3, padding=1, bias=False)
        self.bn1 = batch_norm(64)
        block = _Basic if depth < 50 else _Bottleneck
        inputs = 64
        for g, (count, width, stride) in enumerate(zip(_BLOCKS[depth], (64, 128, 256, 512), (1, 2, 2, 2), strict=True)):
            blocks = []
            for i in range(count):
                blocks.append(block(inputs, width, stride if i == 0 else 1, self.activation))
                inputs = width * block.growth
            self.add_module(f"layer{g + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(self.normalize(images))))
        for g in range(4):
            out = self.get_submodule(f"layer{g + 1}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits
