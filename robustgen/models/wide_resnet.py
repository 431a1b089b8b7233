"""Wide residual networks of Gowal et al. 2020, with the parameter names of the released weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PSSiLU(nn.Module):
    """Parametric shifted SiLU: x (sigmoid(|alpha| x) - |beta|) / (1 - |beta|), with alpha and beta trained.

    Source: Dai et al. 2021, arXiv:2110.05626. One is shared by all layers of a network.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([1.0]))
        self.beta = nn.Parameter(torch.tensor([1e-8]))

    def forward(self, x: Tensor) -> Tensor:
        shift = self.beta.abs()
        return x * ((self.alpha.abs() * x).sigmoid() - shift) / (1 - shift)


ACTIVATIONS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "silu": lambda: F.silu,
    "relu": lambda: F.relu,
    "pssilu": PSSiLU,
}


def activation_of(name: str) -> Callable[[Tensor], Tensor]:
    """An activation by name; a new one where it has parameters."""
    return ACTIVATIONS[name]()


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with Haiku's decay of 0.99, which is PyTorch's momentum 0.01."""
    return nn.BatchNorm2d(channels, momentum=0.01)


def convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    """A convolution without bias. For stride 2 it has no padding: `pad_for` pads right and bottom like "SAME"."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2 if stride == 1 else 0, bias=False)


def pad_for(stride: int, images: Tensor) -> Tensor:
    """Pad for a 3x3 convolution of stride 2: one pixel right and bottom, none left and top."""
    return F.pad(images, (0, 1, 0, 1)) if stride == 2 else images


def blocks_a_group(depth: int, width: int) -> int:
    """Blocks per group, (depth - 4) / 6. Raises ValueError for sizes that a WideResNet cannot have."""
    if (depth - 4) % 6 or depth < 10:
        raise ValueError(f"the depth of a WideResNet must be 10, 16, 22, 28, ... (6n + 4), got {depth}")
    if width < 1:
        raise ValueError(f"the width of a WideResNet must be at least 1, got {width}")
    return (depth - 4) // 6


class Normalize(nn.Module):
    """(images - mean) / std per channel. It has no entry in the state dict, because released weights have none."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Standardize(nn.Module):
    """Each image minus its mean, divided by its standard deviation, which counts as 1 / sqrt(C H W) at least."""

    def forward(self, images: Tensor) -> Tensor:
        floor = images.shape[1:].numel() ** -0.5
        deviation = images.std((1, 2, 3), keepdim=True).clamp(min=floor)
        return (images - images.mean((1, 2, 3), keepdim=True)) / deviation


class CosineLinear(nn.Linear):
    """Logits are the cosines between features and the weights of each class (Pang et al. 2020, arXiv:2002.08619)."""

    def __init__(self, features: int, classes: int):
        super().__init__(features, classes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(features), F.normalize(self.weight))


class Block(nn.Module):
    """Two times batch norm, activation, 3x3 convolution; 1x1 shortcut of the activated input where channels change."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.stride = stride
        self.activation = activation
        self.batchnorm_0 = batch_norm(inputs)
        self.conv_0 = convolution(inputs, outputs, 3, stride)
        self.batchnorm_1 = batch_norm(outputs)
        self.conv_1 = convolution(outputs, outputs, 3, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.batchnorm_0(x))
        residual = self.shortcut(active) if self.shortcut is not None else x
        out = self.conv_0(pad_for(self.stride, active))
        return residual + self.conv_1(self.activation(self.batchnorm_1(out)))


class _Group(nn.Module):
    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.block = nn.Sequential(
            *(Block(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1, activation) for i in range(blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out


class WideResNet(nn.Module):
    """WRN-depth-width, pre-activation, for images (N, C, H, W) in [0, 1]; normalization is inside.

    A 3x3 stem of 16 channels; three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times `width` channels
    and strides 1, 2, 2; batch norm, activation, global average pooling, linear layer. Images must be at least 8x8. With
    `stem` 2 the stem has stride 2, as reported of Gowal et al. 2021 for TinyImageNet (64x64); the ports do not use it.

    Raises:
        ValueError: depth is not 6n + 4.

    Source: arXiv:2010.03593; google-deepmind/deepmind-research, adversarial_robustness/pytorch/model_zoo.py
    (behavior and names; parameter counts are those of the paper).
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
        stem: int = 1,
    ):
        super().__init__()
        blocks, self.stem = blocks_a_group(depth, width), stem
        self.activation = activation_of(activation)
        self.normalize = Normalize(mean, std)
        self.init_conv = convolution(len(mean), 16, 3, stem)
        channels = [16, 16 * width, 32 * width, 64 * width]
        self.layer = nn.Sequential(
            *(
                _Group(blocks, channels[g], channels[g + 1], stride, self.activation)
                for g, stride in enumerate((1, 2, 2))
            )
        )
        self.batchnorm = batch_norm(channels[3])
        self.logits = nn.Linear(channels[3], classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.layer(self.init_conv(pad_for(self.stem, self.normalize(images))))
        out = self.activation(self.batchnorm(out)).mean((2, 3))
        logits: Tensor = self.logits(out)
        return logits
