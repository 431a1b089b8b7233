"""Rows of long work over a proxy set, saved while it runs, so that a killed process resumes where it stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.proxy.store import ensure_plan, read_array, write_rows

SECONDS = 20.0
"""Time between two saves: the most work that a killed process loses."""


class PartialRows:
    """Rows 0 .. done - 1 of a result, in files of a folder that is removed when the work is finished.

    Raises:
        ValueError: the folder holds unfinished work with other settings.
    """

    def __init__(self, folder: Path, dtype: np.dtype, plan: dict[str, Any]):
        self.folder, self.dtype = folder, dtype
        ensure_plan(folder, plan, "asked.json")
        self.files = sorted(folder.glob("rows-*.npy"))
        self.done = 0
        for path in self.files:
            first = int(path.stem.removeprefix("rows-"))
            found = read_array(path, mapped=True)
            if first != self.done or found.dtype != dtype:
                raise ValueError(f"{folder} is damaged at {path.name}; remove it to restart that work")
            self.done += len(found)
        self._waiting: list[np.ndarray] = []
        self._saved = time.monotonic()

    def add(self, rows: np.ndarray) -> None:
        """Append rows; they are on disk within `SECONDS`."""
        self._waiting.append(rows)
        self.done += len(rows)
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def save(self) -> None:
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting)
        path = self.folder / f"rows-{self.done - len(rows):012d}.npy"
        write_rows(path, self.dtype, rows.shape, [rows])
        self.files.append(path)
        self._waiting, self._saved = [], time.monotonic()

    def column(self, name: str) -> Callable[[], np.ndarray]:
        """A function that returns one field of all rows."""
        self.save()
        return lambda: np.concatenate([read_array(path, mapped=True)[name] for path in self.files])

    def remove(self) -> None:
        shutil.rmtree(self.folder)
