"""Published GANs: NVIDIA's pickles of StyleGAN2-ADA, and BigGAN-PyTorch's checkpoints of CIFAR."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from robustgen.config.generators import BigGANConfig, StyleGAN2Config
from robustgen.generators.layouts import Layout, axis_size, settings_of
from robustgen.storage.torch_files import Inert

STYLED = {"affine.": "style.", "noise_strength": "strength"}
"""Names inside a layer of StyleGAN2's synthesis: NVIDIA's and ours."""

BIGGAN = {
    "conv1": "conv_0", "conv2": "conv_1", "conv_sc": "skip", "bn1": "norm_0", "bn2": "norm_1",
    "stored_mean": "running_mean", "stored_var": "running_var", "u0": "u",
}  # fmt: skip
"""Names in BigGAN-PyTorch and ours."""


def holds_stylegan2(content: object) -> bool:
    """Whether a pickle is StyleGAN2-ADA's: a dictionary with the network G_ema."""
    return isinstance(content, Mapping) and isinstance(content.get("G_ema"), Inert)


def read_stylegan2(content: Mapping[str, Any], path: Path) -> Layout:
    """Settings and weights of G_ema.

    Raises:
        ValueError: another network, or sizes that ours does not have.
    """
    network = content["G_ema"]
    try:
        weights = network.tensors() or {}
    except RecursionError:
        raise ValueError(f"{path}: its modules contain themselves") from None
    state = network.state if isinstance(network.state, Mapping) else {}
    needed = ("img_resolution", "img_channels", "z_dim", "w_dim", "c_dim")
    if not all(isinstance(state.get(name), int) for name in needed) or "synthesis.b4.const" not in weights:
        raise ValueError(f"{path} holds a {network.origin}, expected a Generator of StyleGAN2-ADA")
    side, colors, latents, styles, classes = (state[name] for name in needed)
    if latents != styles:
        raise ValueError(f"{path}: z_dim is {latents}, w_dim {styles}; only equal ones can be opened")
    channels = axis_size(weights, "synthesis.b4.const", 0, path)
    convs = [name for name in weights if re.fullmatch(r"synthesis\.b\d+\.conv\d\.weight", name)]
    widths = {weights[name].shape[0] for name in convs}
    if side > 64 or widths != {channels}:
        raise ValueError(
            f"{path} holds a StyleGAN2-ADA for {side}x{side} of {', '.join(map(str, sorted(widths)))} channels; only "
            "its setting `cifar`, up to 64x64 with the same channels at each size, can be opened"
        )
    config = settings_of(
        StyleGAN2Config,
        path,
        channels=channels,
        latents=latents,
        mapping=len([name for name in weights if re.fullmatch(r"mapping\.fc\d+\.weight", name)]),
        conditional=classes > 0,
    )
    return Layout("NVIDIA's StyleGAN2-ADA", config, (colors, side, side), classes, dict(_styled(weights)))


def _styled(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    sizes = sorted({int(found[1]) for name in weights if (found := re.match(r"synthesis\.b(\d+)\.", name))})
    convs = [f"b{size}.conv{i}" for size in sizes for i in (0, 1) if (size, i) != (4, 0)]
    for name, tensor in weights.items():
        part, _, rest = name.partition(".")
        layer, _, inner = rest.rpartition(".") if part == "mapping" else ("", "", "")
        if rest.endswith(("resample_filter", "noise_const", "w_avg")):
            continue
        if part == "mapping":
            place = "class_in" if layer == "embed" else f"mapping.{layer.removeprefix('fc')}"
            yield f"{place}.{inner}", tensor
        elif rest == "b4.const":
            yield "first", tensor[None]
        else:
            block, layer, inner = (*rest.split(".", 2), "", "")[:3]
            for theirs, ours in STYLED.items():
                inner = inner.replace(theirs, ours)
            conv = f"{block}.{layer}"
            if layer == "torgb":
                yield f"pictures.{sizes.index(int(block.removeprefix('b')))}.{inner}", tensor
            else:
                yield (f"convs.{convs.index(conv)}.{inner}" if conv in convs else name), tensor


def _plain(content: object) -> dict[str, Tensor]:
    """Tensors by name without what DataParallel puts before every name; empty for anything else."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return {}
    found = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    prefixed = found and all(name.startswith("module.") for name in found)
    return {name.removeprefix("module."): value for name, value in found.items()} if prefixed else found


def holds_biggan(content: object) -> bool:
    """Whether a file is the generator of BigGAN-PyTorch: G_ema.pth or G.pth."""
    return {"linear.weight", "blocks.0.0.conv1.weight", "output_layer.2.weight"} <= _plain(content).keys()


def read_biggan(content: object, path: Path) -> Layout:
    """Settings and weights of a generator for small images, conditioned through its batch norms.

    Raises:
        ValueError: the networks for ImageNet: shared embeddings, attention, deep blocks or hierarchical latents.
    """
    weights = _plain(content)
    blocks = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    channels, classes = axis_size(weights, "blocks.0.0.conv1.weight", 0, path), 0
    other = [name for name in weights if name.startswith("shared.") or re.match(r"blocks\.\d+\.[1-9]", name)]
    widths = {value.shape[0] for name, value in weights.items() if name.endswith(("conv1.weight", "conv2.weight"))}
    if other or widths != {channels}:
        raise ValueError(
            f"{path} holds a BigGAN with {other[0] if other else f'{sorted(widths)} channels'}, as for ImageNet; only "
            "that of launch_cifar_ema.sh, with the same channels at each size and no shared embedding, can be opened"
        )
    classes = axis_size(weights, "blocks.0.0.bn1.gain.weight", 0, path)
    config = settings_of(
        BigGANConfig, path, channels=channels, latents=axis_size(weights, "linear.weight", 1, path)
    )  # fmt: skip
    side, colors = 4 << min(blocks, 8), axis_size(weights, "output_layer.2.weight", 0, path)
    return Layout("BigGAN-PyTorch", config, (colors, side, side), classes, dict(_biggan(weights)))


def _biggan(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in weights.items():
        parts = name.split(".")
        if parts[-1].startswith("sv"):  # logged singular values
            continue
        if parts[0] == "linear":
            parts[0] = "first"
        elif parts[0] == "output_layer":
            norm = parts[1] == "0"
            parts = ["norm" if norm else "last", {"gain": "weight"}.get(parts[2], parts[2]) if norm else parts[2]]
        elif len(parts) > 3:  # blocks.I.0.LAYER.NAME
            inner = ["norm", *parts[4:]] if parts[4:5] and parts[4].startswith("stored") else parts[4:]
            parts = ["blocks", parts[1], parts[3], *inner]
        yield ".".join(BIGGAN.get(part, part) for part in parts), tensor.flatten() if parts[-1] == "u0" else tensor
