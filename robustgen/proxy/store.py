"""Proxy sets: generated images in immutable shards, per-image values in columns next to them. NumPy only.

PROXY/
  manifest.json        count, shape, shards with digests, provenance of the images, meaning of each column
  images-00000.npy     uint8 (n, H, W, C), memory-mapped
  condition.npy        the condition label         label.npy, confidence.npy, kept.npy ...   one value per image
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.contracts import Progress, silent
from robustgen.storage.arrays import read_header
from robustgen.storage.files import atomic_write, differences, first_line, read_json, write_json
from robustgen.units import show_names

MANIFEST_FORMAT = 1
CHUNK = 1 << 20
"""Number of rows of a column that are processed at a time: a few megabytes, for any size of the set."""
_LARGEST_SIDE = 1 << 16
"""Maximal number of pixels or channels; a manifest with more is damaged."""
MAKERS = {
    "label": "label",
    "confidence": "label",
    "second": "label",
    "margin": "label",
    "kept": "keep",
    "copy": "check",
    "discriminator": "score",
}
"""The command that writes a column."""


def shard_name(number: int) -> str:
    return f"images-{number:05d}.npy"


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """Read a `.npy`. Raises ValueError if it is missing, damaged or pickled."""
    try:
        with path.open("rb") as file:
            shape, _, dtype = read_header(file)
            if file.tell() + math.prod(shape) * dtype.itemsize > path.stat().st_size:
                raise ValueError(f"it is too short for {dtype} of shape {shape}")
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        return array
    except Exception as error:  # a damaged header may raise nearly anything
        detail = first_line(error)
        raise ValueError(f"{path} is missing or damaged ({detail})") from None


def _expect_random_access(array: np.ndarray) -> None:
    """Disable the system's read-ahead, which would read megabytes around each image."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)


def write_rows(path: Path, dtype: Any, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> str:
    """Write a `.npy` atomically from an iterator of parts; returns its SHA-256.

    The bytes are those of `numpy.save`. A full disk raises an OSError with its number, unlike in `numpy.save`.
    """
    digest = hashlib.sha256()
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}

    class Noting:
        def write(self, content: Any) -> None:
            digest.update(content)
            file.write(content)

    with atomic_write(path) as file:
        np.lib.format.write_array_header_1_0(Noting(), header)
        for part in parts:
            Noting().write(np.ascontiguousarray(part, dtype=dtype).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file, a megabyte at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ensure_plan(folder: Path, plan: dict[str, Any], name: str = "plan.json") -> None:
    """Store the settings of a proxy set, or verify that a finished or unfinished set has the same.

    Raises:
        ValueError: the folder was created with different settings; says which.
    """
    for found in (folder / "manifest.json", folder / name) if name == "plan.json" else (folder / name,):
        if found.exists():
            there = read_json(found)
            if other := differences({key: there.get(key) for key in plan}, plan):
                raise ValueError(
                    f"{folder} was created with different settings: {'; '.join(other[:3])}; choose another folder, or "
                    "remove it"
                )
            return
    write_json(folder / name, plan)


def chunks(count: int) -> Iterator[slice]:
    """Slices of CHUNK rows that cover `count`."""
    for first in range(0, count, CHUNK):
        yield slice(first, min(first + CHUNK, count))


def class_counts(labels: np.ndarray, classes: int, among: np.ndarray | None = None) -> np.ndarray:
    """(K,) int64: number of images (of those `among`) with each label.

    Raises:
        ValueError: a label outside [0, K).
    """
    counts = np.zeros(classes, dtype=np.int64)
    for some in chunks(len(labels)):
        here = labels[some] if among is None else labels[some][among[some]]
        if len(here) and not (int(here.min()) >= 0 and int(here.max()) < classes):
            raise ValueError(f"labels must lie in 0..{classes - 1}, got {int(here.min())} to {int(here.max())}")
        counts += np.bincount(here, minlength=classes)
    return counts


class ProxySet:
    """A finished proxy set. Opening only reads the manifest; shards and columns are memory-mapped at their first use.

    Raises:
        ValueError: no finished set there, or an invalid manifest.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        path = self.folder / "manifest.json"
        if not path.exists():
            raise ValueError(f"{self.folder} holds no finished proxy set (no manifest.json); run: robustgen sample")
        self.manifest: dict[str, Any] = read_json(path)
        found = self.manifest.get("format") if isinstance(self.manifest, dict) else None
        if found != MANIFEST_FORMAT:
            raise ValueError(f"{path}: expected format {MANIFEST_FORMAT}, got {found!r}")
        try:
            counts = [int(entry["count"]) for entry in self.manifest["shards"]]
            names = [Path(entry["file"]) for entry in self.manifest["shards"]]
            sides = [side if type(side) is int else -1 for side in self.manifest["shape"]]
            whole = sum(counts) == self.manifest["count"] and min(counts, default=0) > 0 and len(sides) == 3
            whole = whole and all(0 < side <= _LARGEST_SIDE for side in sides) and sum(counts) < 2**53
            whole = whole and isinstance(self.manifest["columns"], dict) and isinstance(self.manifest["classes"], list)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path} is not the manifest of a proxy set ({error!r})") from None
        if not whole or any(name.name != str(name) or name.name in ("", "..") for name in names):
            raise ValueError(f"{path} is not the manifest of a proxy set (its shards do not add up)")
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._mapped: dict[int, np.ndarray] = {}
        self._offsets: dict[int, int] = {}

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

    def has(self, column: str) -> bool:
        return column in self.manifest["columns"] and (self.folder / f"{column}.npy").exists()

    def _shard(self, number: int) -> np.ndarray:
        """(n, H * W * C)"""
        if number not in self._mapped:
            entry = self.manifest["shards"][number]
            shard = read_array(self.folder / entry["file"], mapped=True)
            channels, height, width = self.shape
            if shard.shape != (entry["count"], height, width, channels) or shard.dtype != np.uint8:
                raise ValueError(
                    f"{self.folder / entry['file']}: expected uint8 of shape "
                    f"{(entry['count'], height, width, channels)}, got {shard.dtype} of shape {shard.shape}"
                )
            _expect_random_access(shard)
            self._offsets[number] = int(getattr(shard, "offset", 0))
            self._mapped[number] = shard.view(np.ndarray).reshape(len(shard), -1)
        return self._mapped[number]

    def _shaped(self, rows: np.ndarray) -> np.ndarray:
        channels, height, width = self.shape
        return rows.reshape(len(rows), height, width, channels)

    def images(self, index: np.ndarray) -> np.ndarray:
        """The images at these positions, (n, H, W, C) uint8, copied from their shards."""
        if len(index) and not (index.min() >= 0 and index.max() < len(self)):
            raise ValueError(f"{self.folder} holds images 0..{len(self) - 1}, not {index.min()}..{index.max()}")
        order = np.argsort(index, kind="stable")
        ranked = index[order]
        cuts = np.searchsorted(ranked, self._starts)
        result = np.empty((len(index), int(np.prod(self.shape))), dtype=np.uint8)
        for number in np.flatnonzero(np.diff(cuts)):
            some = slice(cuts[number], cuts[number + 1])
            result[order[some]] = self._shard(int(number)).take(ranked[some] - self._starts[number], axis=0)
        return self._shaped(result)

    def block(self, first: int, stop: int) -> np.ndarray:
        """Images first .. stop - 1, (n, H, W, C) uint8: read in order, with the system's read-ahead."""
        numbers = range(
            int(np.searchsorted(self._starts, first, "right")) - 1, int(np.searchsorted(self._starts, stop))
        )
        parts = []
        for number in numbers:
            start, stored = int(self._starts[number]), self._shard(number)
            path = self.folder / self.manifest["shards"][number]["file"]
            rows, size = range(len(stored))[max(0, first - start) : stop - start], stored.shape[1]
            part = np.fromfile(path, np.uint8, len(rows) * size, offset=self._offsets[number] + rows.start * size)
            if len(part) < len(rows) * size:
                raise ValueError(f"{path} is damaged: it ends before image {rows.stop} of {len(stored)}")
            parts.append(part.reshape(-1, size))
        return self._shaped(np.concatenate(parts))

    def column(self, name: str) -> np.ndarray:
        """One value per image, memory-mapped and read-only.

        Raises:
            ValueError: no such column; says which command writes it.
        """
        if not self.has(name):
            maker = MAKERS.get(name)
            advice = f"; run: robustgen {maker} {self.folder}" if maker else f"; it has: {show_names(self.columns)}"
            raise ValueError(f"proxy set {self.folder} has no column {name!r}{advice}")
        values = read_array(self.folder / f"{name}.npy", mapped=True).view(np.ndarray)
        if values.shape != (len(self),):
            raise ValueError(f"column {name!r} of {self.folder} has {len(values)} rows for {len(self)} images")
        return values

    def add_columns(self, made_by: dict[str, Any], **columns: np.ndarray | Callable[[], np.ndarray]) -> None:
        """Name columns in the manifest with their provenance, then write them; equal names are replaced.

        A column exists if it is named in the manifest and its file exists. Files are written atomically in the given
        order, so if the last one exists, all are complete, even if the process was killed. A column that is too large
        to be in memory together with others is given as a function that returns it.
        """
        for name in columns:
            (self.folder / f"{name}.npy").unlink(missing_ok=True)
        self._count(columns)
        self.manifest["columns"].update(dict.fromkeys(columns, made_by))
        write_json(self.folder / "manifest.json", self.manifest)
        for name, given in columns.items():
            values = given() if callable(given) else given
            if len(values) != len(self):
                raise ValueError(f"column {name!r} must have {len(self)} rows, got {len(values)}")
            write_rows(
                self.folder / f"{name}.npy", values.dtype, values.shape, (values[some] for some in chunks(len(values)))
            )

    def _count(self, columns: Mapping[str, np.ndarray | Callable[[], np.ndarray]]) -> None:
        """Write the number of images per class to the manifest, of new labels or of a new selection."""
        found = self.manifest.setdefault("counts", {})
        if "label" in columns:
            given = columns["label"]
            found["label"] = class_counts(given() if callable(given) else given, len(self.classes)).tolist()
        if "kept" in columns and self.has("label"):
            among = columns["kept"]
            kept = class_counts(self.column("label"), len(self.classes), among() if callable(among) else among)
            found["kept"] = kept.tolist()

    def counts(self) -> np.ndarray:
        """(K,) int64: number of used images per class, by label, or by condition label before labeling."""
        labels = self.column("label" if self.has("label") else "condition")
        among = self.column("kept") if "kept" in self.manifest["columns"] else None
        return class_counts(labels, len(self.classes), among)

    def kept(self) -> np.ndarray:
        """Positions of the images that are used: those marked `kept`, or all before selection."""
        if "kept" not in self.manifest["columns"]:
            return np.arange(len(self))
        return np.flatnonzero(self.column("kept"))

    def verify(self, progress: Progress = silent) -> None:
        """Compare every shard with the digest in the manifest.

        Raises:
            ValueError: a shard differs; names the first.
        """
        for number, entry in enumerate(self.manifest["shards"]):
            path = self.folder / entry["file"]
            if not path.exists() or digest_of(path) != entry.get("sha256"):
                raise ValueError(
                    f"{path} is missing or differs from the manifest of its proxy set; restore it, or remove the "
                    "folder and sample again"
                )
            progress(int(self._starts[number + 1]), len(self), "images")
