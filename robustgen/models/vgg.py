"""VGG-16, and LPIPS with its activations: perceptual distances between images (arXiv:1801.03924)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from robustgen.models.wide_resnet import Normalize
from robustgen.storage.weights import assign_weights, read_weights

_CHANNELS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)

# LPIPS defines shift and scale for images in [-1, 1]; converted here to images in [0, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_MEAN = tuple((1 + shift) / 2 for shift in _SHIFT)
_STD = tuple(scale / 2 for scale in _SCALE)


class Vgg(nn.Module):
    """The convolutions of VGG-16. Images (N, 3, H, W) in [0, 1] to five concatenated activations, (N, D).

    The activations are those that LPIPS uses: the last ReLU before each pooling. At 32x32 they have
    64*32*32 + 128*16*16 + 256*8*8 + 512*4*4 + 512*2*2 = 124,928 values. Images must be at least 16x16.

    Source: arXiv:1409.1556, with the parameter names of the published PyTorch weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize(_MEAN, _STD)
        layers: list[nn.Module] = []
        inputs = 3
        self.stops = []
        for stage, (channels, depth) in enumerate(zip(_CHANNELS, DEPTHS, strict=True)):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = channels
            self.stops.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)

    def activations(self, images: Tensor) -> list[Tensor]:
        """Five tensors (N, C, H, W) with 64, 128, 256, 512 and 512 channels.

        Raises:
            ValueError: images are smaller than 16x16, or do not have three channels.
        """
        if images.shape[1] != 3 or min(images.shape[2:]) < 16:
            raise ValueError(f"VGG-16 needs color images of at least 16x16, got {tuple(images.shape[1:])}")
        x, found = self.normalize(images), []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.stops:
                found.append(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([activation.flatten(1) for activation in self.activations(images)], 1)


class Lpips(nn.Module):
    """LPIPS v0.1, a learned distance: two batches (N, 3, H, W) in [0, 1] to (N,), at least 0.

        sum over the five activations of  mean over pixels of  sum_c w_c * (x_c / |x| - y_c / |y|)^2

    Source: arXiv:1801.03924; weights of richzhang/PerceptualSimilarity.
    """

    def __init__(self, vgg: Vgg):
        super().__init__()
        self.vgg = vgg
        # The dropout only serves the published parameter names; it is never active.
        self.heads = nn.ModuleDict(
            {
                f"lin{i}": nn.ModuleDict({"model": nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))})
                for i, channels in enumerate(_CHANNELS)
            }
        )

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        result = images.new_zeros(len(images))
        pairs = zip(self.vgg.activations(images), self.vgg.activations(others), strict=True)
        for i, (first, second) in enumerate(pairs):
            weight = self.heads.get_parameter(f"lin{i}.model.1.weight")
            squares = (_unit(first) - _unit(second)).square()
            result = result + (squares * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return result


def _unit(activation: Tensor) -> Tensor:
    """Normalize the channels of each pixel to length 1."""
    return activation / (activation.norm(dim=1, keepdim=True) + 1e-10)


def load_vgg(path: Path) -> Vgg:
    """Load the convolutions from a file of the complete VGG-16. Raises ValueError if the file does not match."""
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator; restore its state
        model = Vgg()
    weights = {name: value for name, value in read_weights(path).items() if not name.startswith("classifier.")}
    assign_weights(model, weights, path)
    return model.eval()


def load_lpips(vgg: Path, heads: Path) -> Lpips:
    """Load LPIPS from the files of VGG-16 and of its heads. Raises ValueError if a file does not match."""
    network = load_vgg(vgg)
    with torch.random.fork_rng(devices=[]):
        model = Lpips(network)
    assign_weights(model.heads, read_weights(heads), heads)
    return model.eval()
