"""Classifiers on disk: `model.json` says how to build one, `weights.safetensors` is its state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.modes import channels_last
from robustgen.storage.files import read_json, write_json
from robustgen.storage.weights import load_weights, save_weights


def save_classifier(folder: Path, model: nn.Module, architecture: str, info: DatasetInfo, **about: Any) -> None:
    """Weights first, `model.json` last: where it exists the classifier is complete."""
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
    """What `model.json` says.

    Raises:
        ValueError: no finished classifier in this folder.
    """
    if str(folder).startswith("hub:"):
        raise ValueError(
            f"{folder} is not a folder; convert it: robustgen publish {folder} --to safetensors --into models/NAME"
        )
    if not (folder / "model.json").exists():
        raise ValueError(f"{folder} holds no finished classifier (no model.json)")
    about: dict[str, Any] = read_json(folder / "model.json")
    return about


def info_of(about: dict[str, Any]) -> DatasetInfo:
    """The data set a classifier was made for."""
    channels, height, width = about["shape"]
    return DatasetInfo(
        about["dataset"], tuple(about["classes"]), (channels, height, width), tuple(about["mean"]), tuple(about["std"])
    )


def load_classifier(folder: Path) -> nn.Module:
    """The classifier in evaluation mode, on the CPU.

    Raises:
        ValueError: unfinished, damaged, or weights that do not fit.
    """
    about = read_about(folder)
    model = build_model(about["architecture"], info_of(about))
    load_weights(model, folder / "weights.safetensors")
    return channels_last(model).eval()
