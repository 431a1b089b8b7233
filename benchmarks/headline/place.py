"""Where a step works, and how long it has."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pieces import Piece, find_piece, write_piece

from robustgen.contracts import Progress
from robustgen.storage.files import read_json, write_json


@dataclass(frozen=True)
class Place:
    """Where a step works.

    sources  folders that hold pieces
    into     where new ones go, to be brought back
    keep     on this machine, for steps to come: pieces and, in `work`, what is half done, to the last bit
    """

    sources: tuple[Path, ...]
    into: Path
    keep: Path
    device: str
    progress: Progress

    @property
    def work(self) -> Path:
        return self.keep / "work"

    def find(self, name: str, of: dict[str, str] | None = None) -> Piece | None:
        return find_piece((self.keep, *self.sources), name, of)

    def needed(self, name: str, step: str) -> Piece:
        found = self.find(name)
        if found is None:
            where = ", ".join(map(str, (self.keep, *self.sources)))
            raise ValueError(f"there is no {name} in {where}; name its folder with --from, or run first: {step}")
        return found

    def write(self, name: str, **content: Any) -> int:
        return write_piece(list(dict.fromkeys((self.into, self.keep))), name, **content)


class Clock:
    """Seconds that a step has taken, over all commands; begun again from what a piece tells."""

    def __init__(self, folder: Path, before: float = 0.0):
        self._file, self._began = folder / "seconds.json", time.monotonic()
        self._before = read_json(self._file) if self._file.exists() else before

    def read(self) -> float:
        spent: float = round(self._before + time.monotonic() - self._began, 1)
        write_json(self._file, spent)
        return spent
