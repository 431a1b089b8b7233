"""Where a classifier comes from, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """Where a classifier comes from.

    place         a folder made by train, a weights file, FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION or
                  hub:NAME
    weights       a file to load into the model that the function returned, or into the published network
    architecture  of a weights file
    normalize     "none", "data" for mean and standard deviation of the dataset, or MEAN/STD, one number per channel
    """

    place: str
    weights: Path | None = None
    architecture: str | None = None
    normalize: str = "none"


def not_there(place: str) -> str:
    """The error for a model that does not exist: the forms that are expected."""
    return (
        "expected a folder written by train, a file of weights or a program, hub:NAME, FILE.py:NAME, "
        f"PACKAGE.MODULE:NAME, timm:NAME or hf:FOLDER, got {place}, which does not exist"
    )


def place_of(place: str) -> str:
    """The folder in "hf:FOLDER" where publish has written the folder; every other place as it is.

    Other folders of Hugging Face are opened by transformers.
    """
    folder = place.removeprefix("hf:")
    return folder if (Path(folder) / "model.json").is_file() else place
