"""Classifiers on disk: `model.json` describes the network, `weights.safetensors` has its state."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import nn

from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.modes import channels_last
from robustgen.storage.files import Note, read_json, write_json
from robustgen.storage.references import Reference, keep_copy, note_of_change
from robustgen.storage.weights import load_weights, save_weights

SOURCE = "network.py"
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


def read_about(folder: Path) -> dict[str, Any]:
    """Read `model.json`.

    Raises:
        ValueError: the folder has no finished classifier.
    """
    if str(folder).startswith("hub:"):
        raise ValueError(
            f"expected a folder, got {folder}; convert it with: robustgen publish {folder} --to safetensors --into "
            "models/NAME"
        )
    if not (folder / "model.json").exists():
        raise ValueError(f"{folder} has no finished classifier (no model.json)")
    about: dict[str, Any] = read_json(folder / "model.json")
    return about


def info_of(about: dict[str, Any]) -> DatasetInfo:
    """The dataset that a classifier was trained on."""
    channels, height, width = about["shape"]
    return DatasetInfo(
        about["dataset"], tuple(about["classes"]), (channels, height, width), tuple(about["mean"]), tuple(about["std"])
    )


def keep_source(folder: Path, architecture: str) -> Path | None:
    """Copy the source file that an architecture names to the folder, before training begins; None where it names none.

    Raises:
        ValueError: no such file, or one that has changed since training began in this folder.
    """
    reference = Reference.parse(architecture)
    return None if reference is None else keep_copy(reference, folder / SOURCE)


def load_classifier(folder: Path) -> nn.Module:
    """Load a classifier in evaluation mode, on the CPU.

    The network of a user's own file is built from the copy that was kept when it was trained, which runs that code; a
    warning says where the file has changed since.

    Raises:
        ValueError: the classifier is unfinished or damaged, or the weights do not match.
    """
    about = read_about(folder)
    source = folder / SOURCE
    reference = Reference.parse(about["architecture"]) if source.exists() else None
    if reference is not None and (message := note_of_change(reference, source)):
        warnings.warn(message, Note, stacklevel=2)
    model = build_model(about["architecture"], info_of(about), source=source if source.exists() else None)
    load_weights(model, folder / "weights.safetensors")
    return channels_last(model).eval()
