"""NVIDIA's pickles of EDM (NVlabs/edm): settings and weights, taken from the file without running any of its code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from robustgen.config.generators import EDMConfig
from robustgen.generators.layouts import Layout, settings_of
from robustgen.generators.unet import AUGMENTATION_LABELS
from robustgen.storage.torch_files import Inert

LAYER = {
    "map_label": "class_in", "map_augment": "augmentation_in", "map_layer0": "embed_0", "map_layer1": "embed_1",
    "map_noise.freqs": "frequencies", "out_norm": "norm", "out_conv": "out",
}  # fmt: skip
"""Layers outside the blocks: NVIDIA's names and ours."""

INNER = {
    "norm0": "norm_0", "conv0": "conv_0", "affine": "embed", "norm1": "norm_1", "conv1": "conv_1", "skip": "skip",
    "norm2": "attention.norm", "qkv": "attention.qkv", "proj": "attention.out",
}  # fmt: skip
"""Layers of a block."""

COMMON: dict[str, Any] = {"channel_mult_emb": 4, "label_dropout": 0, "dropout": 0.10, "augment_dim": 0}
SONG: dict[str, Any] = {
    **COMMON, "model_channels": 128, "channel_mult": [1, 2, 2, 2], "num_blocks": 4, "attn_resolutions": [16],
    "embedding_type": "positional", "channel_mult_noise": 1, "encoder_type": "standard", "decoder_type": "standard",
    "resample_filter": [1, 1],
}  # fmt: skip
DHARIWAL: dict[str, Any] = {
    **COMMON, "model_channels": 192, "channel_mult": [1, 2, 3, 4], "num_blocks": 3, "attn_resolutions": [32, 16, 8],
}  # fmt: skip
"""Arguments of NVIDIA's networks where a file does not say."""

_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm++": (
        "SongUNet",
        {
            "embedding_type": "positional",
            "channel_mult_noise": 1,
            "encoder_type": "standard",
            "resample_filter": [1, 1],
        },
    ),
    "ncsn++": (
        "SongUNet",
        {
            "embedding_type": "fourier",
            "channel_mult_noise": 2,
            "encoder_type": "residual",
            "resample_filter": [1, 3, 3, 1],
        },
    ),
    "adm": ("DhariwalUNet", {}),
}
"""NVIDIA's class and the arguments of it that make each of our networks."""


def holds_edm(content: object) -> bool:
    """Whether a pickle is that of a network in the form of EDM, or of the methods it is compared with."""
    network = _precondition(content)
    return network is not None and network.origin.endswith("Precond")


def _precondition(content: object) -> Inert | None:
    found = content.get("ema") if isinstance(content, Mapping) else content
    return found if isinstance(found, Inert) else None


def read_edm(content: object, path: Path) -> Layout:
    """Settings and weights from such a pickle.

    Raises:
        ValueError: another preconditioning or network; names it, and what can be opened.
    """
    outer = _precondition(content)
    assert outer is not None
    if outer.origin != "EDMPrecond":
        raise ValueError(
            f"{path} holds a network in {outer.origin}, expected EDMPrecond: EDM's own models, those outside of its "
            "folder baseline"
        )
    state = _state(outer, path)
    inner = state.get("_modules", {}).get("model")
    if not isinstance(inner, Inert):
        raise ValueError(f"{path} holds an EDMPrecond without a network")
    if state.get("sigma_data", 0.5) != 0.5:
        raise ValueError(f"{path}: sigma_data is {state['sigma_data']}, expected 0.5")
    kind, given = _network(inner, path)
    try:
        side, colors, classes = (int(state[name]) for name in ("img_resolution", "img_channels", "label_dim"))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: EDMPrecond has no img_resolution, img_channels and label_dim") from None
    config = settings_of(
        EDMConfig,
        path,
        network=kind,
        conditional=classes > 0,
        channels=given["model_channels"],
        multipliers=_plain(given["channel_mult"]),
        blocks=given["num_blocks"],
        attention=_plain(given["attn_resolutions"]),
        dropout=given["dropout"],
        label_dropout=given["label_dropout"],
        augment=EDMConfig.model_fields["augment"].default if given["augment_dim"] else 0.0,
    )
    assert isinstance(config, EDMConfig)
    try:
        tensors = inner.tensors() or {}
    except RecursionError:
        raise ValueError(f"{path}: its modules contain themselves") from None
    if max(config.blocks, len(config.multipliers)) > len(tensors):
        raise ValueError(f"{path}: {len(tensors)} tensors cannot be those of {config.blocks} blocks at each size")
    weights = {f"network.{name}": value for name, value in _renamed(tensors)}
    return Layout(f"NVIDIA's EDM, network {kind}", config, (colors, side, side), classes, weights)


def _state(thing: Inert, path: Path) -> Mapping[str, Any]:
    if not isinstance(thing.state, Mapping):
        raise ValueError(f"{path}: {thing.origin} holds no parameters")
    return thing.state


def _network(network: Inert, path: Path) -> tuple[str, dict[str, Any]]:
    """The name of our network for one of NVIDIA's, and the arguments that NVIDIA's was built with."""
    defaults = {"SongUNet": SONG, "DhariwalUNet": DHARIWAL}.get(network.origin)
    if defaults is None:
        raise ValueError(f"{path} holds a {network.origin}, expected SongUNet or DhariwalUNet")
    stored = _state(network, path).get("_init_kwargs")
    if not isinstance(stored, Mapping):
        raise ValueError(f"{path}: {network.origin} was saved without its arguments (_init_kwargs)")
    given = {**defaults, **{name: stored[name] for name in defaults if name in stored}}
    if given["channel_mult_emb"] != 4 or given.get("decoder_type", "standard") != "standard":
        wrong = "channel_mult_emb" if given["channel_mult_emb"] != 4 else "decoder_type"
        raise ValueError(f"{path}: {wrong} is {given[wrong]!r}; only {defaults[wrong]!r} can be opened")
    if given["augment_dim"] not in (0, AUGMENTATION_LABELS):
        raise ValueError(
            f"{path}: augment_dim is {given['augment_dim']}; only 0 and {AUGMENTATION_LABELS} can be opened"
        )
    for kind, (name, arguments) in _NETWORKS.items():
        if name == network.origin and all(_plain(given[key]) == value for key, value in arguments.items()):
            return kind, given
    found = ", ".join(f"{key}={given[key]!r}" for key in _NETWORKS["ddpm++"][1])
    raise ValueError(f"{path} holds a SongUNet with {found}; only those of DDPM++ and NCSN++ can be opened")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple | list) else value


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Weights by our names: blocks are numbered in their order, queries, keys and values one after the other."""
    names = [name for name in tensors if name.startswith(("enc.", "dec."))]
    places = _places([".".join(name.split(".")[:2]) for name in names])
    for name, tensor in tensors.items():
        *layers, last = name.split(".")
        if last == "resample_filter":  # follows from the settings
            continue
        if name in LAYER:
            parts = [LAYER[name]]
        elif name in names:
            layer = ".".join(layers[2:])
            parts = [places[".".join(name.split(".")[:2])], INNER.get(layer, layer), last]
            tensor = _stacked(tensor) if layer == "qkv" else tensor
        else:
            layer = ".".join(layers)
            parts = [LAYER.get(layer, layer), last]
        yield ".".join(part for part in parts if part), tensor.float()


def _places(blocks: list[str]) -> dict[str, str]:
    """Our place for each of NVIDIA's blocks, such as enc.32x32_block0."""
    fixed = {"conv": "stem", "in0": "middle.0", "in1": "middle.1", "aux_norm": "norm", "aux_conv": "out"}
    found: dict[str, str] = {}
    counts = {"down": 0, "up": 0, "residual": 0}
    for block in dict.fromkeys(blocks):
        kind = block.partition("_")[2]
        if kind in fixed:
            found[block] = fixed[kind]
            continue
        row = "residual" if kind == "aux_residual" else "down" if block.startswith("enc.") else "up"
        found[block] = f"{row}.{counts[row]}" + (".conv" if row == "residual" else "")
        counts[row] += 1
    return found


def _stacked(tensor: Tensor) -> Tensor:
    """Rows (q_0, k_0, v_0, q_1, ...) of a layer in the order (q_0, q_1, ..., k_0, ..., v_0, ...)."""
    if not tensor.ndim or len(tensor) % 3:
        return tensor  # its shape is refused when weights are assigned
    return tensor.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
