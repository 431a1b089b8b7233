"""Proxy sets: generated images in immutable shards, what is known of each in columns beside them. NumPy only.

PROXY/
  manifest.json        count, shape, shards with digests, where the images come from, what each column is
  images-00000.npy     uint8 (n, H, W, C), memory-mapped
  condition.npy        the class asked for        label.npy, confidence.npy, kept.npy ...   one value an image
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.records import write_array
from robustgen.runs import read_json, write_json

FORMAT = 1


def shard_name(number: int) -> str:
    return f"images-{number:05d}.npy"


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """Raises ValueError when missing, damaged or pickled."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        return array
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is missing or damaged ({error})") from None


def digest_of(path: Path) -> str:
    """SHA-256 of a file, a megabyte at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ProxySet:
    """A finished proxy set. Opening reads the manifest; shards are mapped when first touched."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        path = self.folder / "manifest.json"
        if not path.exists():
            raise ValueError(f"{self.folder} holds no finished proxy set (no manifest.json); run: robustgen sample")
        self.manifest: dict[str, Any] = read_json(path)
        if self.manifest.get("format") != FORMAT:
            raise ValueError(f"{path}: expected format {FORMAT}, got {self.manifest.get('format')!r}")
        self._mapped: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self.manifest["count"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        channels, height, width = self.manifest["shape"]
        return channels, height, width

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest["classes"])

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.manifest["columns"])

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._mapped:
            entry = self.manifest["shards"][number]
            shard = read_array(self.folder / entry["file"], mapped=True)
            channels, height, width = self.shape
            if shard.shape != (entry["count"], height, width, channels) or shard.dtype != np.uint8:
                raise ValueError(
                    f"{self.folder / entry['file']}: expected uint8 of shape "
                    f"{(entry['count'], height, width, channels)}, got {shard.dtype} of shape {shard.shape}"
                )
            self._mapped[number] = shard
        return self._mapped[number]

    def images(self, index: np.ndarray) -> np.ndarray:
        """The images at these positions, (n, H, W, C) uint8, copied from their shards."""
        channels, height, width = self.shape
        result = np.empty((len(index), height, width, channels), dtype=np.uint8)
        per_shard = int(self.manifest["shard_images"])
        for number in np.unique(index // per_shard):
            here = index // per_shard == number
            result[here] = self._shard(int(number))[index[here] - number * per_shard]
        return result

    def column(self, name: str) -> np.ndarray:
        """One value an image.

        Raises:
            ValueError: no such column; says which command makes it.
        """
        if name not in self.manifest["columns"]:
            maker = {"label": "label", "confidence": "label", "kept": "keep"}.get(name)
            advice = f"; run: robustgen {maker} {self.folder}" if maker else f"; it has: {', '.join(self.columns)}"
            raise ValueError(f"proxy set {self.folder} has no column {name!r}{advice}")
        values = read_array(self.folder / f"{name}.npy")
        if len(values) != len(self):
            raise ValueError(f"column {name!r} of {self.folder} has {len(values)} rows for {len(self)} images")
        return values

    def add_columns(self, made_by: dict[str, Any], **columns: np.ndarray) -> None:
        """Write columns, then name them in the manifest with what made them; equal names are replaced."""
        for name, values in columns.items():
            if len(values) != len(self):
                raise ValueError(f"column {name!r} must have {len(self)} rows, got {len(values)}")
            write_array(self.folder / f"{name}.npy", values)
        self.manifest["columns"].update(dict.fromkeys(columns, made_by))
        write_json(self.folder / "manifest.json", self.manifest)

    def kept(self) -> np.ndarray:
        """Positions of the images that are used: those marked `kept`, or all where nothing was chosen."""
        if "kept" not in self.manifest["columns"]:
            return np.arange(len(self))
        return np.flatnonzero(self.column("kept"))

    def verify(self) -> None:
        """Compare every shard with the digest in the manifest.

        Raises:
            ValueError: the first that differs.
        """
        for entry in self.manifest["shards"]:
            path = self.folder / entry["file"]
            if not path.exists() or digest_of(path) != entry["sha256"]:
                raise ValueError(
                    f"{path} is missing or differs from the manifest of its proxy set; restore it, or remove the "
                    "folder and sample again"
                )
