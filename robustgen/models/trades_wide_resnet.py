"""Wide residual networks in the form of TRADES's code, with the parameter names of weights trained with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from robustgen.models.wide_resnet import CosineLinear, Normalize, activation_of, batch_norm, blocks_a_group


class _Block(nn.Module):
    """Two times batch norm, activation, 3x3 convolution; 1x1 shortcut of the activated input where channels change."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.activation = activation
        self.bn1 = batch_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = batch_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.bn1(x))
        residual = self.convShortcut(active) if self.convShortcut is not None else x
        return residual + self.conv2(self.activation(self.bn2(self.conv1(active))))


class Group(nn.Module):
    """`blocks` blocks, of which the first changes channels and size."""

    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        rest = [_Block(outputs, outputs, 1, activation) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(_Block(inputs, outputs, stride, activation), *rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class TradesWideResNet(nn.Module):
    """WRN-depth-width like `WideResNet`, but with symmetric padding at stride 2, ReLU, and other parameter names.

    The weights of TRADES, RST, MART, AWP and of Sehwag et al. (arXiv:2104.09425) have this form. They were trained
    without normalization: append -unnormalised to the name for them. With `cosine`, logits are cosines.

    Raises:
        ValueError: depth is not 6n + 4.

    Source: yaodongyu/TRADES, models/wideresnet.py; RobustBench/robustbench, model_zoo/architectures/wide_resnet.py.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        activation: str = "relu",
        cosine: bool = False,
    ):
        super().__init__()
        blocks = blocks_a_group(depth, width)
        self.activation = activation_of(activation)
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(len(mean), 16, 3, padding=1, bias=False)
        self.block1 = Group(blocks, 16, 16 * width, 1, self.activation)
        self.block2 = Group(blocks, 16 * width, 32 * width, 2, self.activation)
        self.block3 = Group(blocks, 32 * width, 64 * width, 2, self.activation)
        self.bn1 = batch_norm(64 * width)
        self.fc: nn.Linear = (CosineLinear if cosine else nn.Linear)(64 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(self.normalize(images)))))
        logits: Tensor = self.fc(self.activation(self.bn1(out)).mean((2, 3)))
        return logits
