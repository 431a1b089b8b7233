"""What kind of images lie at a place, by names alone. No torch here."""

from __future__ import annotations

from pathlib import Path

HF_FILES = ("dataset_dict.json", "dataset_info.json")
"""Files by which a folder is known as one that Hugging Face `datasets` saved."""


def kind_of_images(path: Path) -> str:
    """The data set that reads a file or folder: npz, webdataset, hf-data or folder.

    Raises:
        ValueError: nothing there, or a file of another kind.
    """
    if path.is_dir():
        if any((path / name).is_file() for name in HF_FILES):
            return "hf-data"
        entries = [entry for entry in path.iterdir() if entry.name[0] != "."]
        return "webdataset" if entries and all(entry.suffix == ".tar" for entry in entries) else "folder"
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    if path.suffix in (".npz", ".npy"):
        return "npz"
    if path.suffix == ".tar":
        return "webdataset"
    raise ValueError(
        f"cannot tell what images {path} holds; expected an .npz, an .npy with its labels next to it, a .tar of a "
        "WebDataset, a folder with a folder for each class, or one saved by Hugging Face datasets"
    )
