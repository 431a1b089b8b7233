"""Pre-activation ResNets with 1x1 shortcuts, with the parameter names of weights trained with the authors' code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from robustgen.models.wide_resnet import Normalize, activation_of, batch_norm

_BLOCKS = {18: (2, 2, 2, 2)}


class RiceBlock(nn.Module):
    """BN, activation, 3x3 convolution, twice; a 1x1 shortcut where the shape changes.

    The shortcut convolves the activated input, with `raw` the input itself.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor], raw: bool = False
    ):
        super().__init__()
        self.activation = activation
        self.raw = raw
        self.bn1 = batch_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = batch_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        needed = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False)) if needed else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(x if self.raw else active)
        return residual + self.conv2(self.activation(self.bn2(self.conv1(active))))


class RicePreActResNet(nn.Module):
    """PreActResNet-18 for images (N, C, H, W) in [0, 1]; normalization is inside.

    A 3x3 stem of 64 channels; 64, 128, 256 and 512 channels with strides 1, 2, 2, 2; 1x1 shortcuts from the activated
    input; batch norm, activation, global average, linear layer.

    Source: locuslab/robust_overfitting, preactresnet.py (Rice et al. 2020, arXiv:2002.11569);
    RobustBench/robustbench, model_zoo/architectures/resnet.py (behavior, names).
    """

    plain = False
    """Whether shortcuts start from the raw input, and no batch norm precedes the average."""

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
            raise ValueError(f"this PreActResNet comes in depths {', '.join(map(str, _BLOCKS))}, got {depth}")
        self.activation = activation_of(activation)
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(len(mean), 64, 3, padding=1, bias=False)
        inputs = 64
        for g, (count, width, stride) in enumerate(zip(_BLOCKS[depth], (64, 128, 256, 512), (1, 2, 2, 2), strict=True)):
            blocks = []
            for i in range(count):
                blocks.append(RiceBlock(inputs, width, stride if i == 0 else 1, self.activation, raw=self.plain))
                inputs = width
            self.add_module(f"layer{g + 1}", nn.Sequential(*blocks))
        self.bn = None if self.plain else batch_norm(inputs)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.conv1(self.normalize(images))
        for g in range(4):
            out = self.get_submodule(f"layer{g + 1}")(out)
        if self.bn is not None:
            out = self.activation(self.bn(out))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class WongPreActResNet(RicePreActResNet):
    """PreActResNet-18 with shortcuts from the raw input, and without the last batch norm and activation.

    Source: Wong et al. 2020, arXiv:2001.03994; names as in `RicePreActResNet`.
    """

    plain = True
