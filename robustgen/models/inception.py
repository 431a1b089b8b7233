"""Inception-v3 as in TensorFlow's graph of 2015-12-05: the features of FID, KID and IS."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.storage.weights import load_weights

Layer = tuple[str, int, tuple[int, int]]
"""Name, channels, kernel size (height, width)."""
Branch = tuple[tuple[Layer, ...], ...]
"""A sequence of steps; the layers of a step are parallel and their outputs are concatenated."""


def resize_like_tensorflow1(images: Tensor, size: int) -> Tensor:
    """Bilinear resizing of TensorFlow 1, without antialiasing: output pixel i samples position i * old / size.

    Unlike current resizing it has no half-pixel shift, and the last pixel is repeated beyond the border. FID depends on
    it.
    """
    for axis in (2, 3):
        old = images.shape[axis]
        place = torch.arange(size, dtype=torch.float32, device=images.device) * (old / size)
        # Rounding can move the position of the last pixel to `old`.
        low = place.floor().long().clamp_max(old - 1)
        high = (low + 1).clamp_max(old - 1)
        share = (place - low).to(images.dtype).view([-1, 1] if axis == 2 else [-1])
        below, above = images.index_select(axis, low), images.index_select(axis, high)
        images = below + (above - below) * share
    return images


class _Convolution(nn.Module):
    """Convolution without bias, batch norm with epsilon 0.001, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, padding: tuple[int, int] = (0, 0)
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Mixed(nn.Module):
    """Parallel branches, the last one with pooling, and concatenation.

    With `pooled` channels all layers have stride 1 and padding; the last branch is 3x3 pooling and a 1x1 convolution.
    Without, the last layer of each branch and the pooling have stride 2 and no padding, and no convolution follows.
    """

    def __init__(self, inputs: int, branches: tuple[Branch, ...], pooled: int = 0, maximum: bool = False):
        super().__init__()
        self.branches, self.pooled, self.maximum = branches, pooled, maximum
        for branch in branches:
            width = inputs
            for number, step in enumerate(branch):
                last = not pooled and number == len(branch) - 1
                for name, outputs, (height, across) in step:
                    padding = (0, 0) if last else (height // 2, across // 2)
                    self.add_module(name, _Convolution(width, outputs, (height, across), 2 if last else 1, padding))
                width = sum(outputs for _, outputs, _ in step)
        if pooled:
            self.branch_pool = _Convolution(inputs, pooled, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        results = []
        for branch in self.branches:
            out = x
            for step in branch:
                out = torch.cat([self.get_submodule(name)(out) for name, _, _ in step], 1)
            results.append(out)
        if not self.pooled:
            results.append(F.max_pool2d(x, 3, 2))
        elif self.maximum:
            results.append(self.branch_pool(F.max_pool2d(x, 3, 1, 1)))
        else:
            # Average pooling of TensorFlow excludes the padding.
            results.append(self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)))
        return torch.cat(results, 1)


def _line(name: str, *layers: tuple[int, tuple[int, int]]) -> Branch:
    """A branch of single layers, with the published names: numbered from 1, or without number for a single layer."""
    if len(layers) == 1:
        return (((name, *layers[0]),),)
    return tuple(((f"{name}_{number}", *layer),) for number, layer in enumerate(layers, 1))


def _split(name: str, first: tuple[tuple[int, tuple[int, int]], ...], number: int) -> Branch:
    """A branch of single layers that ends with parallel 1x3 and 3x1 convolutions."""
    ends: tuple[Layer, ...] = ((f"{name}_{number}a", 384, (1, 3)), (f"{name}_{number}b", 384, (3, 1)))
    return (*(((f"{name}_{n}", *layer),) for n, layer in enumerate(first, 1)), ends)


_ONE, _THREE, _WIDE, _TALL = (1, 1), (3, 3), (1, 7), (7, 1)


def _at_35(inputs: int, pooled: int) -> _Mixed:
    branches = (
        _line("branch1x1", (64, _ONE)),
        _line("branch5x5", (48, _ONE), (64, (5, 5))),
        _line("branch3x3dbl", (64, _ONE), (96, _THREE), (96, _THREE)),
    )
    return _Mixed(inputs, branches, pooled)


def _at_17(width: int) -> _Mixed:
    branches = (
        _line("branch1x1", (192, _ONE)),
        _line("branch7x7", (width, _ONE), (width, _WIDE), (192, _TALL)),
        _line("branch7x7dbl", (width, _ONE), (width, _TALL), (width, _WIDE), (width, _TALL), (192, _WIDE)),
    )
    return _Mixed(768, branches, 192)


def _at_8(inputs: int, maximum: bool) -> _Mixed:
    branches = (
        _line("branch1x1", (320, _ONE)),
        _split("branch3x3", ((384, _ONE),), 2),
        _split("branch3x3dbl", ((448, _ONE), (384, _THREE)), 3),
    )
    return _Mixed(inputs, branches, 192, maximum)


class Inception(nn.Module):
    """Images (N, 3, H, W) in [0, 1] to 2048 features and 1008 logits, concatenated to (N, 3056).

    Images u are resized to 299 with TensorFlow 1's method and scaled to (255 u - 128) / 128, as in the graph. The
    logits have no bias, as in the published Inception Score. As in the published graph, average pooling excludes the
    padding, and the last block uses maximum pooling where other Inception networks use the average.

    Source: arXiv:1512.00567; graph and weights: TensorFlow's inception-2015-12-05, with the parameter names of its
    PyTorch conversion (mseitzer/pytorch-fid).
    """

    features = 2048
    classes = 1008

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, _THREE, 2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, _THREE)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, _THREE, padding=_ONE)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, _ONE)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, _THREE)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _at_35(192, 32), _at_35(256, 64), _at_35(288, 64)
        self.Mixed_6a = _Mixed(
            288,
            (_line("branch3x3", (384, _THREE)), _line("branch3x3dbl", (64, _ONE), (96, _THREE), (96, _THREE))),
        )
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _at_17(128), _at_17(160), _at_17(160), _at_17(192)
        self.Mixed_7a = _Mixed(
            768,
            (
                _line("branch3x3", (192, _ONE), (320, _THREE)),
                _line("branch7x7x3", (192, _ONE), (192, _WIDE), (192, _TALL), (192, _THREE)),
            ),
        )
        self.Mixed_7b, self.Mixed_7c = _at_8(1280, maximum=False), _at_8(2048, maximum=True)
        self.fc = nn.Linear(self.features, self.classes)

    def forward(self, images: Tensor) -> Tensor:
        x = (resize_like_tensorflow1(images * 255, 299) - 128) / 128
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for block in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = self.get_submodule(f"Mixed_{block}")(x)
        features = x.mean((2, 3))
        return torch.cat([features, features @ self.fc.weight.T], 1)


def load_inception(path: Path) -> Inception:
    """Load the network with published weights. Raises ValueError if the file does not match."""
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator; restore its state
        model = Inception()
    load_weights(model, path)
    return model.eval()
