"""Checkpoints of openai/vdvae (`.th`): the very deep VAE's authors' own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from robustgen.config.generators import VDVAEConfig
from robustgen.generators.layouts import Layout, axis_size, settings_of

_PARTS = {"enc": "posterior", "prior": "prior", "resnet": "residual", "z_proj": "project"}
"""Parts of a layer of the decoder: their names and ours."""

CONVS = {f"c{i + 1}": f"convs.{i}" for i in range(4)}
"""Convolutions of a block."""

HYPERPARAMETERS: dict[str, dict[str, str]] = {
    "cifar10": {
        "encoder": "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
        "decoder": "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
    },
    "imagenet32": {
        "encoder": "32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        "decoder": "1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
    },
    "imagenet64": {
        "encoder": "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
        "decoder": "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
    },
}
"""Layouts of the published models (hps.py); a file says only how many blocks it has."""


def holds_vdvae(content: object) -> bool:
    """Whether a file is a state of openai/vdvae's VAE."""
    needed = {"encoder.in_conv.weight", "decoder.out_net.out_conv.weight"}
    return isinstance(content, Mapping) and needed <= content.keys()


def read_vdvae(content: Mapping[str, Tensor], path: Path) -> Layout:
    """Settings and weights. Labels of images are not known to it.

    Raises:
        ValueError: a layout that is none of HYPERPARAMETERS.
    """
    weights = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    counts = tuple(
        len({name.split(".")[2] for name in weights if name.startswith(part)})
        for part in ("encoder.enc_blocks.", "decoder.dec_blocks.")
    )
    known = {
        tuple(_blocks(layout[part]) for part in ("encoder", "decoder")): layout for layout in HYPERPARAMETERS.values()
    }
    if counts not in known:
        expected = "; ".join(f"{name} {a} and {b}" for (a, b), name in zip(known, HYPERPARAMETERS, strict=True))
        raise ValueError(f"{path} holds a VDVAE with {counts[0]} and {counts[1]} blocks, expected those of: {expected}")
    layout = known[counts]
    width = axis_size(weights, "encoder.in_conv.weight", 0, path)
    colors = axis_size(weights, "encoder.in_conv.weight", 1, path)
    numbers = 1 + 2 * colors + colors * (colors - 1) // 2
    components = axis_size(weights, "decoder.out_net.out_conv.weight", 0, path) // numbers
    config = settings_of(
        VDVAEConfig,
        path,
        **layout,
        width=width,
        bottleneck=axis_size(weights, "encoder.enc_blocks.0.c1.weight", 0, path) / width,
        latents=axis_size(weights, "decoder.dec_blocks.0.z_proj.weight", 1, path),
        components=components,
    )
    side = int(re.match(r"\d+", layout["encoder"])[0])  # type: ignore[index]
    return Layout("openai/vdvae", config, (colors, side, side), 0, dict(_renamed(weights, colors, layout["decoder"])))


def _blocks(layout: str) -> int:
    """How many blocks a layout string has."""
    return sum(int(found[1]) if (found := re.search(r"x(\d+)", part)) else 1 for part in layout.split(","))


def _renamed(weights: Mapping[str, Tensor], colors: int, decoder: str) -> Iterator[tuple[str, Tensor]]:
    sizes = sorted({int(found[0]) for part in decoder.split(",") if (found := re.match(r"\d+", part))})
    for name, tensor in weights.items():
        parts = [CONVS.get(part, part) for part in name.split(".")[1:]]
        if parts[0] == "in_conv":
            yield f"stem.{parts[-1]}", tensor
        elif parts[0] == "enc_blocks":
            yield ".".join(["encoder", *parts[1:]]), tensor
        elif parts[0] == "dec_blocks" and len(parts) > 2:
            yield ".".join(["decoder", parts[1], _PARTS.get(parts[2], parts[2]), *parts[3:]]), tensor
        elif parts[0] == "bias_xs" and parts[1].isdecimal() and int(parts[1]) < len(sizes):
            yield f"biases.{sizes[int(parts[1])]}", tensor.squeeze(0)
        elif parts[0] == "out_net":
            yield f"out.{parts[-1]}", _by_meaning(tensor, colors)
        else:
            yield ".".join(parts), tensor.squeeze(0) if parts[-1] in ("gain", "bias") else tensor


def _by_meaning(rows: Tensor, colors: int) -> Tensor:
    """Rows (weights; means, log scales, coefficients of color 0; of color 1 ...) as weights, means, log scales, ....

    Each is of as many rows as there are components. Of three colors the authors keep three coefficients, one for each
    pair of colors, in our order.
    """
    pairs = colors * (colors - 1) // 2
    numbers = 1 + 2 * colors + pairs
    if colors != 3 or len(rows) % numbers:
        return rows
    weights, *others = rows.unflatten(0, (numbers, -1))
    return torch.cat([weights, *(others[3 * color + i] for i in range(3) for color in range(colors))])
