"""Classifiers on disk: `model.json` describes the network, `weights.safetensors` has its state."""

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


def load_classifier(folder: Path) -> nn.Module:
    """Load a classifier in evaluation mode, on the CPU.

    Raises:
        ValueError: the classifier is unfinished or damaged, or the weights do not match.
    """
    about = read_about(folder)
    model = build_model(about["architecture"], info_of(about))
    load_weights(model, folder / "weights.safetensors")
    return channels_last(model).eval()
