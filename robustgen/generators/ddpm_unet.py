"""The U-Net of DDPM (Ho et al. 2020, arXiv:2006.11239), its layers under the names of diffusers' `UNet2DModel`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.config.generators import DDPMConfig
from robustgen.generators.low_precision import GroupNorm, dropout
from robustgen.generators.unet import NO_LABEL

ALMOST_NOTHING = 1e-5
"""Gain of the last layers of branches: variance scaling by 1e-10."""


def groups_for(channels: int) -> int:
    """Groups of a network with `channels` at its first level: 32 from 128 on, of 4 channels or more below."""
    return min(32, max(1, math.gcd(128, channels) // 4))


def _norm(groups: int, channels: int) -> GroupNorm:
    return GroupNorm(groups, channels, eps=1e-6)


class _Residual(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm(x))) + linear(silu(embedding))))))."""

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.norm1 = _norm(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, outputs)
        self.norm2 = _norm(groups, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(embedding)[:, :, None, None]
        h = self.conv2(dropout(F.silu(self.norm2(h)), self.dropout, self.training))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class _Attention(nn.Module):
    """Single-head attention over positions, added to its input."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.group_norm = _norm(groups, channels)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        places = self.group_norm(x).flatten(2).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(self.to_q(places), self.to_k(places), self.to_v(places))
        return x + self.to_out[0](mixed).transpose(1, 2).reshape(x.shape)


class _Resample(nn.Module):
    """Half the size by a convolution that looks right and down, or twice the size by repetition and a convolution."""

    def __init__(self, channels: int, down: bool):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class _Level(nn.Module):
    """Residual blocks of one size, each followed by attention where the level has it."""

    def __init__(self, blocks: Sequence[_Residual], attentions: Sequence[_Attention]):
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(blocks), nn.ModuleList(attentions)
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

    def block(self, number: int, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resnets[number](x, embedding)
        return self.attentions[number](x) if len(self.attentions) > number else x


class _Embedding(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class DDPMUNet(nn.Module):
    """The noise in x: images (N, C, H, W), times (N,), classes (N,) or NO_LABEL to images.

    classes      number of class embeddings, added to the time's; with 0 it is unconditional and ignores labels
    channels     of the first level; 128 for CIFAR-10
    multipliers  channels of each level over the first; each level halves the size: (1, 2, 2, 2)
    blocks       per level going down, one more going up; 2
    attention    sizes (in pixels) at which every block is followed by attention; (16,)
    groups       of the group norms; see `groups_for`

    With these values, and without classes, 35.75 million parameters.

    Raises:
        ValueError: the images cannot be halved that often.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 0,
        *,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        dropout: float = 0.1,
        groups: int | None = None,
    ):
        super().__init__()
        colors, height, width = shape
        halvings = len(multipliers) - 1
        if height % 2**halvings or width % 2**halvings:
            raise ValueError(
                f"images of {height}x{width} cannot be halved {halvings} times; use fewer multipliers "
                f"than {len(multipliers)}"
            )
        self.channels, self.multipliers, self.blocks, self.dropout = channels, tuple(multipliers), blocks, dropout
        self.attends = tuple(height >> level in attention for level in range(halvings + 1))
        self.groups = groups = groups or groups_for(channels)
        widths = [channels * multiplier for multiplier in multipliers]
        inner = 4 * channels

        def level(pairs: list[tuple[int, int]], attends: bool) -> _Level:
            return _Level(
                [_Residual(before, after, inner, groups, dropout) for before, after in pairs],
                [_Attention(after, groups) for _, after in pairs] if attends else [],
            )

        self.conv_in = nn.Conv2d(colors, channels, 3, padding=1)
        self.time_embedding = _Embedding(channels, inner)
        self.class_embedding = nn.Embedding(classes, inner) if classes else None
        self.down_blocks = nn.ModuleList()
        skips, here = [channels], channels
        for number, size in enumerate(widths):
            down = level([(here, size)] + [(size, size)] * (blocks - 1), self.attends[number])
            skips += [size] * blocks
            if number < halvings:
                down.downsamplers.append(_Resample(size, down=True))
                skips.append(size)
            self.down_blocks.append(down)
            here = size
        self.mid_block = level([(here, here), (here, here)], False)
        self.mid_block.attentions.append(_Attention(here, groups))
        self.up_blocks = nn.ModuleList()
        for number, size in reversed(list(enumerate(widths))):
            pairs = [((size if j else here) + skips.pop(), size) for j in range(blocks + 1)]
            up = level(pairs, self.attends[number])
            if number:
                up.upsamplers.append(_Resample(size, down=False))
            self.up_blocks.append(up)
            here = size
        self.conv_norm_out = _norm(groups, here)
        self.conv_out = nn.Conv2d(here, colors, 3, padding=1)
        self._initialize()

    @classmethod
    def from_config(
        cls, config: DDPMConfig, shape: tuple[int, int, int], classes: int, groups: int | None = None
    ) -> Self:
        """The network of settings, for `classes` where they are conditional."""
        return cls(
            shape,
            classes if config.conditional else 0,
            channels=config.channels,
            multipliers=config.multipliers,
            blocks=config.blocks,
            attention=config.attention,
            dropout=config.dropout,
            groups=groups,
        )

    def _initialize(self) -> None:
        """Variance scaling (mean of fans, uniform) and zero biases; branches end near zero."""
        endings = {id(self.conv_out)}
        for module in self.modules():
            if isinstance(module, _Residual):
                endings.add(id(module.conv2))
            elif isinstance(module, _Attention):
                endings.add(id(module.to_out[0]))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, ALMOST_NOTHING if id(module) in endings else 1.0)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        half = self.channels // 2
        angles = time[:, None] * torch.exp(torch.arange(half, device=x.device) * (-math.log(10_000) / max(1, half - 1)))
        embedding = self.time_embedding(torch.cat([angles.sin(), angles.cos()], dim=1))
        if self.class_embedding is not None:
            kind = self.class_embedding(labels.clamp_min(0))
            embedding = embedding + kind * (labels != NO_LABEL)[:, None]
        embedding = F.silu(embedding)
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            assert isinstance(level, _Level)
            for number in range(self.blocks):
                x = level.block(number, x, embedding)
                skips.append(x)
            for smaller in level.downsamplers:
                x = smaller(x)
                skips.append(x)
        for number in range(2):
            x = self.mid_block.block(number, x, embedding)
        for level in self.up_blocks:
            assert isinstance(level, _Level)
            for number in range(self.blocks + 1):
                x = level.block(number, torch.cat([x, skips.pop()], dim=1), embedding)
            for larger in level.upsamplers:
                x = larger(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))
