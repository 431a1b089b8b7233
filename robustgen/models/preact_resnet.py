"""Pre-activation ResNets of the official code: 3x3 shortcuts from the raw input, asymmetric padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from robustgen.models.wide_resnet import Normalize, activation_of, batch_norm, convolution, pad_for

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class _Block(nn.Module):
    """Two times batch norm, activation, 3x3 convolution. The shortcut convolves the input before batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.stride = stride
        self.activation = activation
        self.batchnorm_0 = batch_norm(inputs)
        self.conv_2d_1 = convolution(inputs, outputs, 3, stride)
        self.batchnorm_1 = batch_norm(outputs)
        self.conv_2d_2 = convolution(outputs, outputs, 3, 1)
        needed = stride != 1 or inputs != outputs
        self.shortcut = convolution(inputs, outputs, 3, stride) if needed else None

    def forward(self, x: Tensor) -> Tensor:
        residual = self.shortcut(pad_for(self.stride, x)) if self.shortcut is not None else x
        out = self.conv_2d_1(pad_for(self.stride, self.activation(self.batchnorm_0(x))))
        return residual + self.conv_2d_2(self.activation(self.batchnorm_1(out)))


class PreActResNet(nn.Module):
    """PreActResNet-18 or -34 for images (N, C, H, W) in [0, 1]; normalization is inside.

    64, 128, 256 and 512 channels with strides 1, 2, 2, 2; images of at least 16x16. It matches the released weights and
    differs from the common PreActResNet-18, whose shortcuts are 1x1 convolutions of the activated input.

    Source: google-deepmind/deepmind-research, adversarial_robustness/pytorch/model_zoo.py (behavior, names).
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
            raise ValueError(f"the depth of a PreActResNet must be one of {', '.join(map(str, _BLOCKS))}, got {depth}")
        self.activation = activation_of(activation)
        self.normalize = Normalize(mean, std)
        self.conv_2d = convolution(len(mean), 64, 3, 1)
        channels = (64, 64, 128, 256, 512)
        for g, (blocks, stride) in enumerate(zip(_BLOCKS[depth], (1, 2, 2, 2), strict=True)):
            group = [
                _Block(
                    channels[g] if i == 0 else channels[g + 1],
                    channels[g + 1],
                    stride if i == 0 else 1,
                    self.activation,
                )
                for i in range(blocks)
            ]
            self.add_module(f"layer_{g}", nn.Sequential(*group))
        self.batchnorm = batch_norm(512)
        self.logits = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.conv_2d(self.normalize(images))
        for g in range(4):
            out = self.get_submodule(f"layer_{g}")(out)
        out = self.activation(self.batchnorm(out)).mean((2, 3))
        logits: Tensor = self.logits(out)
        return logits
