"""WideResNets whose depths and widths were chosen for robustness, with the parameter names of released weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from robustgen.models.rice_preact_resnet import RiceBlock
from robustgen.models.trades_wide_resnet import Group
from robustgen.models.wide_resnet import Normalize, activation_of, batch_norm

_STEM = 16
R_BLOCKS, R_WIDTHS = (5, 5, 5), (320, 640, 512)
A_BLOCKS, A_WIDTHS = (27, 28, 13), (160, 448, 384)


class _Layers(nn.Module):
    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNetR(nn.Module):
    """WideResNet-34-R for images (N, C, H, W) in [0, 1]; normalization is inside. There is no other size.

    A 3x3 stem of 16 channels; three groups of 5 blocks as in `TradesWideResNet` with 320, 640 and 512 channels and
    strides 1, 2, 2; batch norm, activation, global average, linear layer.

    Source: Huang et al. 2021, arXiv:2110.03825; names of RobustBench/robustbench,
    model_zoo/architectures/robust_wide_resnet.py.
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
        if depth != 34:
            raise ValueError(f"WideResNet-R comes as wrn-r-34 alone, got wrn-r-{depth}")
        self.activation = activation_of(activation)
        self.normalize = Normalize(mean, std)
        self.stem_conv = nn.Conv2d(len(mean), _STEM, 3, padding=1, bias=False)
        channels = (_STEM, *R_WIDTHS)
        self.blocks = nn.Sequential(
            *(Group(R_BLOCKS[g], channels[g], channels[g + 1], (1, 2, 2)[g], self.activation) for g in range(3))
        )
        self.bn1 = batch_norm(channels[3])
        self.fc = nn.Linear(channels[3], classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.blocks(self.stem_conv(self.normalize(images)))
        logits: Tensor = self.fc(self.activation(self.bn1(out)).mean((2, 3)))
        return logits


class WideResNetA(nn.Module):
    """WideResNet-A4 for images (N, C, H, W) in [0, 1]; normalization is inside. There is no other size.

    A 3x3 stem of 16 channels; 27, 28 and 13 blocks as in `RicePreActResNet` with 160, 448 and 384 channels and strides
    1, 2, 2; batch norm, activation, global average, linear layer.

    Source: Huang et al. 2022, arXiv:2212.11005; names of RobustBench/robustbench,
    model_zoo/architectures/robust_resnet.py.
    """

    def __init__(
        self,
        size: int,
        *,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        activation: str = "silu",
    ):
        super().__init__()
        if size != 4:
            raise ValueError(f"WideResNet-A comes as wrn-a-4 alone, got wrn-a-{size}")
        self.activation = activation_of(activation)
        self.normalize = Normalize(mean, std)
        self.stem_conv = nn.Conv2d(len(mean), _STEM, 3, padding=1, bias=False)
        groups, inputs = [], _STEM
        for count, width, stride in zip(A_BLOCKS, A_WIDTHS, (1, 2, 2), strict=True):
            rest = [RiceBlock(width, width, 1, self.activation) for _ in range(count - 1)]
            groups.append(_Layers(RiceBlock(inputs, width, stride, self.activation), *rest))
            inputs = width
        self.blocks = nn.Sequential(*groups)
        self.norm1 = batch_norm(inputs)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.blocks(self.stem_conv(self.normalize(images)))
        logits: Tensor = self.fc(self.activation(self.norm1(out)).mean((2, 3)))
        return logits
