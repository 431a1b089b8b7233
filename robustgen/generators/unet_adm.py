"""The U-Net ADM of EDM's ImageNet models (arXiv:2105.05233; NVlabs/edm, training/networks.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.config.generators import UNetConfig
from robustgen.generators.low_precision import GroupNorm, dropout
from robustgen.generators.unet import AUGMENTATION_LABELS, NO_LABEL, UNet, check_halvings, resampled
from robustgen.images import DatasetInfo
from robustgen.randomness import Rng

HEAD = 64
"""Channels of an attention head; blocks with fewer channels have no attention."""


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(min(32, max(1, channels // 4)), channels, eps=1e-5)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _Attention(nn.Module):
    """Attention over positions in heads of 64 channels, added to its input; softmax in float32."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = channels // HEAD
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        query, key, value = (part.reshape(len(x) * self.heads, x.shape[1] // self.heads, -1) for part in parts)
        weights = torch.einsum("ncq,nck->nqk", query.float(), key.float()) / query.shape[1] ** 0.5
        mixed = torch.einsum("nqk,nck->ncq", weights.softmax(2).to(value.dtype), value)
        return x + self.out(mixed.reshape(x.shape))


class _Block(nn.Module):
    """Residual block whose second norm is scaled and shifted by the embedding; may halve or double the size first."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        dropout: float,
        *,
        attention: bool = False,
        resample: str | None = None,
    ):
        super().__init__()
        self.resample, self.dropout = resample, dropout
        self.norm_0 = _norm(inputs)
        self.conv_0 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.embed = nn.Linear(embedding, 2 * outputs)
        self.norm_1 = _norm(outputs)
        self.conv_1 = _zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        self.attention = _Attention(outputs) if attention and outputs >= HEAD else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_0(resampled(F.silu(self.norm_0(x)), self.resample))
        scale, shift = self.embed(embedding)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm_1(h), scale + 1))
        h = self.conv_1(dropout(h, self.dropout, self.training))
        x = resampled(x, self.resample)
        x = h + (x if self.skip is None else self.skip(x))
        return x if self.attention is None else self.attention(x)


class ADMUNet(nn.Module):
    """F(x, c_noise, class), with the arguments of `UNet`; ImageNet-64 has channels 192, multipliers (1, 2, 3, 4),
    3 blocks, attention (32, 16, 8) and dropout 0.1: 295.9 million parameters.

    Raises:
        ValueError: the images cannot be halved that often.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        channels: int = 192,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: Sequence[int] = (32, 16, 8),
        dropout: float = 0.1,
        augmented: bool = False,
        conditional: bool = True,
    ):
        super().__init__()
        colors, height, _ = shape
        check_halvings(shape, multipliers)
        self.channels, self.classes = channels, classes
        width = 4 * channels
        self.augmentation_in = nn.Linear(AUGMENTATION_LABELS, channels, bias=False) if augmented else None
        if self.augmentation_in is not None:
            nn.init.zeros_(self.augmentation_in.weight)
        self.embed_0 = nn.Linear(channels, width)
        self.embed_1 = nn.Linear(width, width)
        self.class_in = nn.Linear(classes, width, bias=False) if conditional else None
        if self.class_in is not None:
            nn.init.normal_(self.class_in.weight)

        def block(inputs: int, outputs: int, attends: bool = False, resample: str | None = None) -> _Block:
            return _Block(inputs, outputs, width, dropout, attention=attends, resample=resample)

        here = channels * multipliers[0]
        self.stem = nn.Conv2d(colors, here, 3, padding=1)
        self.down = nn.ModuleList()
        skips = [here]
        for level, multiplier in enumerate(multipliers):
            if level:
                self.down.append(block(here, here, resample="down"))
                skips.append(here)
            for _ in range(blocks):
                self.down.append(block(here, channels * multiplier, height >> level in attention))
                here = channels * multiplier
                skips.append(here)
        self.middle = nn.ModuleList([block(here, here, True), block(here, here)])
        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            if level < len(multipliers) - 1:
                self.up.append(block(here, here, resample="up"))
            for _ in range(blocks + 1):
                self.up.append(block(here + skips.pop(), channels * multiplier, height >> level in attention))
                here = channels * multiplier
        self.norm = _norm(here)
        self.out = _zero(nn.Conv2d(here, colors, 3, padding=1))

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
            )

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor, augmentation: Tensor | None = None) -> Tensor:
        half = self.channels // 2
        angles = noise[:, None] * 10_000 ** -(torch.arange(half, device=x.device) / half)
        embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
        if self.augmentation_in is not None and augmentation is not None:
            embedding = embedding + self.augmentation_in(augmentation)
        embedding = self.embed_1(F.silu(self.embed_0(embedding)))
        if self.class_in is not None:
            kind = F.one_hot(labels.clamp_min(0), self.classes).to(x.dtype)
            embedding = embedding + self.class_in(kind * (labels != NO_LABEL)[:, None])
        embedding = F.silu(embedding)
        x = self.stem(x)
        skips = [x]
        for block in self.down:
            x = block(x, embedding)
            skips.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for block in self.up:
            assert isinstance(block, _Block)
            if block.resample is None:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, embedding)
        return self.out(F.silu(self.norm(x)))


def unet_of(config: UNetConfig, info: DatasetInfo, rng: Rng) -> UNet | ADMUNet:
    """The network that the settings name, initialized from `rng`."""
    return (ADMUNet if config.network == "adm" else UNet).from_config(config, info, rng)
