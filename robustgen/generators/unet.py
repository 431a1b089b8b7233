"""The U-Nets DDPM++ and NCSN++ of EDM (Karras et al. 2022, arXiv:2206.00364; NVlabs/edm, training/networks.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.config.generators import UNetConfig
from robustgen.generators.low_precision import GroupNorm, depthwise, dropout
from robustgen.images import DatasetInfo
from robustgen.randomness import Rng

NO_LABEL = -1
"""In place of a class label: the network is not conditioned on a class."""

AUGMENTATION_LABELS = 9
"""Numbers that describe how an image was augmented (see `augmentation`)."""


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(min(32, max(1, channels // 4)), channels, eps=1e-6)


def _scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Conv2d | nn.Linear:
    """Xavier-uniform weights times `gain`, biases of zero."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _conv(inputs: int, outputs: int, size: int, gain: float = 1.0) -> nn.Module:
    return _scaled(nn.Conv2d(inputs, outputs, size, padding=size // 2), gain)


def _binomial(x: Tensor) -> Tensor:
    """The separable filter (1, 3, 3, 1) / 8 for each channel of an image: (C, 1, 4, 4)."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 8
    return torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)


def resampled(x: Tensor, resample: str | None, smooth: bool = False) -> Tensor:
    """Half the size by 2x2 means, or twice the size by repetition; `smooth`: by the filter (1, 3, 3, 1) / 8."""
    if smooth and resample == "down":
        return depthwise(F.conv2d, x, _binomial(x), stride=2, padding=1)
    if smooth and resample == "up":
        return depthwise(F.conv_transpose2d, x, 4 * _binomial(x), stride=2, padding=1)
    if resample == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest") if resample == "up" else x


def check_halvings(shape: tuple[int, int, int], multipliers: Sequence[int]) -> None:
    """Raise ValueError where images cannot be halved once for each multiplier after the first."""
    _, height, width = shape
    halvings = len(multipliers) - 1
    if height % 2**halvings or width % 2**halvings:
        raise ValueError(
            f"images of {height}x{width} cannot be halved {halvings} times; use fewer multipliers "
            f"than {len(multipliers)}"
        )


class _Attention(nn.Module):
    """Single-head attention over positions, added to its input and scaled by sqrt(1/2); softmax in float32."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = _norm(channels)
        self.qkv = _conv(channels, 3 * channels, 1, math.sqrt(0.2))
        self.out = _conv(channels, channels, 1, 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        weights = torch.einsum("ncq,nck->nqk", query.float(), key.float()) / math.sqrt(x.shape[1])
        mixed = torch.einsum("nqk,nck->ncq", weights.softmax(2).to(value.dtype), value)
        return (x + self.out(mixed.reshape(x.shape))) * math.sqrt(0.5)


class _Block(nn.Module):
    """Residual block with the embedding added between its convolutions; may halve or double the size first."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        dropout: float,
        *,
        attention: bool = False,
        resample: str | None = None,
        smooth: bool = False,
    ):
        super().__init__()
        self.resample, self.smooth = resample, smooth
        self.dropout = dropout
        self.norm_0 = _norm(inputs)
        self.conv_0 = _conv(inputs, outputs, 3)
        self.embed = _scaled(nn.Linear(embedding, outputs))
        self.norm_1 = _norm(outputs)
        self.conv_1 = _conv(outputs, outputs, 3, 1e-5)
        self.skip = _conv(inputs, outputs, 1) if resample or inputs != outputs else None
        self.attention = _Attention(outputs) if attention else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_0(resampled(F.silu(self.norm_0(x)), self.resample, self.smooth))
        h = F.silu(self.norm_1(h + self.embed(embedding)[:, :, None, None]))
        h = self.conv_1(dropout(h, self.dropout, self.training))
        if self.skip is not None:
            x = self.skip(resampled(x, self.resample, self.smooth))
        x = (x + h) * math.sqrt(0.5)
        return x if self.attention is None else self.attention(x)


class _Residual(nn.Module):
    """The encoder's residual connection of NCSN++: its own path at half the size, added to the features."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = _scaled(nn.Conv2d(inputs, outputs, 3, padding=2))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        h = F.conv2d(x, weight, padding=2)
        return depthwise(F.conv2d, h, _binomial(h), stride=2) + bias.view(-1, 1, 1)


class UNet(nn.Module):
    """F(x, c_noise, class): images (N, C, H, W), noise labels (N,), classes (N,) or NO_LABEL to images.

    channels      of the first level; 128 for CIFAR-10
    multipliers   channels of each level over the first; each level halves the size: (2, 2, 2)
    blocks        per level going down, one more going up; 4
    attention     sizes (in pixels) at which blocks have attention; (16,)
    dropout       0.13 for CIFAR-10
    augmented     whether it is conditioned on how an image was augmented: (N, 9), zeros where it was not
    conditional   whether it is conditioned on the class; labels are ignored where it is not
    ncsn          NCSN++ in place of DDPM++: random Fourier features of the noise level, twice as many; resampling by
                  the filter (1, 3, 3, 1); a second, residual path down the encoder

    With these values 55.7 million parameters.

    Raises:
        ValueError: the images cannot be halved that often.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        channels: int = 128,
        multipliers: Sequence[int] = (2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        dropout: float = 0.13,
        augmented: bool = False,
        conditional: bool = True,
        ncsn: bool = False,
    ):
        super().__init__()
        colors, height, _ = shape
        check_halvings(shape, multipliers)
        self.channels, self.classes = channels, classes
        width_of_embedding, width_of_noise = 4 * channels, (2 if ncsn else 1) * channels
        self.class_in = _scaled(nn.Linear(classes, width_of_noise)) if conditional else None
        self.augmentation_in = (
            _scaled(nn.Linear(AUGMENTATION_LABELS, width_of_noise, bias=False)) if augmented else None
        )
        self.embed_0 = _scaled(nn.Linear(width_of_noise, width_of_embedding))
        self.embed_1 = _scaled(nn.Linear(width_of_embedding, width_of_embedding))

        def block(inputs: int, outputs: int, attends: bool = False, resample: str | None = None) -> _Block:
            return _Block(
                inputs, outputs, width_of_embedding, dropout, attention=attends, resample=resample, smooth=ncsn
            )

        self.stem = _conv(colors, channels, 3)
        self.down = nn.ModuleList()
        skips, here = [channels], channels
        residual, before = [], colors
        for level, multiplier in enumerate(multipliers):
            attends = height >> level in attention
            if level:
                self.down.append(block(here, here, resample="down"))
                skips.append(here)
                residual += [_Residual(before, here)] if ncsn else []
                before = here
            for _ in range(blocks):
                self.down.append(block(here, channels * multiplier, attends))
                here = channels * multiplier
                skips.append(here)
        self.middle = nn.ModuleList([block(here, here, True), block(here, here)])
        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            if level < len(multipliers) - 1:
                self.up.append(block(here, here, resample="up"))
            for i in range(blocks + 1):
                attends = i == blocks and height >> level in attention
                self.up.append(block(here + skips.pop(), channels * multiplier, attends))
                here = channels * multiplier
        self.norm = _norm(here)
        self.out = _conv(here, colors, 3, 1e-5)
        self.residual = nn.ModuleList(residual)
        self.frequencies: Tensor | None
        self.register_buffer("frequencies", 16 * torch.randn(channels) if ncsn else None)

    @classmethod
    def from_config(cls, config: UNetConfig, info: DatasetInfo, rng: Rng) -> Self:
        with rng.seeding_torch():
            return cls(
                info.shape,
                len(info.classes),
                channels=config.channels,
                multipliers=config.multipliers,
                blocks=config.blocks,
                attention=config.attention,
                dropout=config.dropout,
                augmented=config.augment > 0,
                conditional=config.conditional,
                ncsn=config.network == "ncsn++",
            )

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor, augmentation: Tensor | None = None) -> Tensor:
        if self.frequencies is None:
            half = self.channels // 2
            frequencies = 10_000 ** -(torch.arange(half, device=x.device) / max(1, half - 1))
        else:
            frequencies = 2 * math.pi * self.frequencies
        angles = noise[:, None] * frequencies
        embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
        if self.class_in is not None:
            kind = F.one_hot(labels.clamp_min(0), self.classes).to(x.dtype) * math.sqrt(self.classes)
            embedding = embedding + self.class_in(kind * (labels != NO_LABEL)[:, None])
        if self.augmentation_in is not None and augmentation is not None:
            embedding = embedding + self.augmentation_in(augmentation)
        embedding = F.silu(self.embed_1(F.silu(self.embed_0(embedding))))
        aside = x
        x = self.stem(x)
        skips = [x]
        residual = iter(self.residual)
        for block in self.down:
            x = block(x, embedding)
            if block.resample and (path := next(residual, None)) is not None:
                x = aside = (x + path(aside)) * math.sqrt(0.5)
            skips.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for block in self.up:
            assert isinstance(block, _Block)
            if block.resample is None:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, embedding)
        return self.out(F.silu(self.norm(x)))
