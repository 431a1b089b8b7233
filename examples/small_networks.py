"""Small CIFAR-10 networks of alpha-beta-CROWN (BSD-3), whose adversarially trained weights are public.

robustgen evaluate examples/small_networks.py:resnet4b --weights cifar10_adv_resnet4b.pth --normalise cifar10 ...
"""

from collections import OrderedDict

from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Sequential(*[nn.Conv2d(inputs, outputs, 1, stride)] * (stride > 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x).relu()) + self.shortcut(x)).relu()


def resnet(width: int, stages: int) -> nn.Module:
    """A stem of half the width and `stages` pairs of blocks, each of which halves the image."""
    layers: dict[str, nn.Module] = {"conv1": nn.Conv2d(3, width // 2, 3, 2, 1), "relu1": nn.ReLU()}
    for stage in range(1, stages + 1):
        inputs = width // 2 if stage == 1 else width
        layers[f"layer{stage}"] = nn.Sequential(Block(inputs, width, 2), Block(width, width, 1))
    pixels = (16 // 2**stages) ** 2
    layers |= {"flat": nn.Flatten(), "linear1": nn.Linear(width * pixels, 100), "relu2": nn.ReLU()}
    return nn.Sequential(OrderedDict(layers | {"linear2": nn.Linear(100, 10)}))


def resnet2b() -> nn.Module:
    return resnet(width=16, stages=1)


def resnet4b() -> nn.Module:
    return resnet(width=32, stages=2)


def cnn_a() -> nn.Module:
    convolutions = (nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU())
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10))
