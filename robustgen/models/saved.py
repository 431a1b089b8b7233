"""Classifiers on disk: `model.json` describes the network, `weights.safetensors` has its state."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustgen.images import DatasetInfo, check_shape
from robustgen.models import build_model
from robustgen.modes import channels_last
from robustgen.storage.files import Note, read_settings, write_json
from robustgen.storage.references import Reference, keep_copy, note_of_change
from robustgen.storage.weights import assign_weights, check_fits, read_weights, save_weights
from robustgen.units import show_value

NETWORK_SOURCE = "network.py"
"""Copy of the file that a network of the user's own was built from."""


def save_classifier(folder: Path, model: nn.Module, architecture: str, info: DatasetInfo, **about: Any) -> None:
    """Save weights first and `model.json` last, so that a folder with `model.json` is complete."""
    save_weights(folder / "weights.safetensors", model)
    write_json(
        folder / "model.json",
        {
            "architecture": architecture,
            "dataset": info.name,
            "classes": info.classes,
            "shape": info.shape,
            "mean": info.mean,
            "std": info.std,
            **about,
        },
    )


def read_model_json(folder: Path) -> dict[str, Any]:
    """Read `model.json`.

    Raises:
        ValueError: the folder has no finished classifier, or the file does not describe one.
    """
    if str(folder).startswith("hub:"):
        raise ValueError(
            f"expected a folder, got {folder}; convert it with: robustgen publish {folder} --to safetensors --into "
            "models/NAME"
        )
    if not (folder / "model.json").exists():
        raise ValueError(f"{folder} has no finished classifier (no model.json)")
    about = read_settings(folder / "model.json")
    try:
        if not isinstance(about.get("architecture"), str):
            raise ValueError(f"architecture must be a name, got {show_value(about.get('architecture'))}")
        dataset_info(about)
    except ValueError as error:
        raise ValueError(f"{folder / 'model.json'}: {error}; restore the file, or train again") from None
    return about


def dataset_info(about: dict[str, Any]) -> DatasetInfo:
    """The dataset that a classifier was trained on. Raises ValueError where `about` does not describe one."""
    shape, classes = check_shape(about)
    mean, std = about.get("mean", ()), about.get("std", ())
    for name, values in (("mean", mean), ("std", std)):
        numbers = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != shape[0] or not all(abs(value) < 1e6 for value in values):
            raise ValueError(f"{name} must be a number for each of {shape[0]} channels, got {show_value(values)}")
    return DatasetInfo(about["dataset"], classes, shape, tuple(mean), tuple(std))


def keep_source(folder: Path, architecture: str) -> Path | None:
    """Copy the source file that an architecture names to the folder, before training begins; None where it names none.

    Raises:
        ValueError: no such file, or one that has changed since training began in this folder.
    """
    reference = Reference.parse(architecture)
    return None if reference is None else keep_copy(reference, folder / NETWORK_SOURCE)


def load_classifier(folder: Path) -> nn.Module:
    """Load a classifier in evaluation mode, on the CPU.

    The network of a user's own file is built from the copy that was kept when it was trained, which runs that code; a
    warning says where the file has changed since.

    Raises:
        ValueError: the classifier is unfinished or damaged, or the weights do not match.
    """
    about = read_model_json(folder)
    source = folder / NETWORK_SOURCE
    reference = Reference.parse(about["architecture"]) if source.exists() else None
    if reference is not None and (message := note_of_change(reference, source)):
        warnings.warn(message, Note, stacklevel=2)
    info, file = dataset_info(about), folder / "weights.safetensors"
    weights = read_weights(file)
    if Reference.parse(about["architecture"]) is None:
        with torch.device("meta"):  # a network of other sizes is refused before there is room for it
            check_fits(build_model(about["architecture"], info), weights, file)
    model = build_model(about["architecture"], info, source=source if source.exists() else None)
    assign_weights(model, weights, file)
    return channels_last(model).eval()
