"""Base class of the records of proxy analyses: how close generated images are to real ones. NumPy only."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from robustgen.records.record import About
from robustgen.records.tables import Table
from robustgen.storage.arrays import load_arrays, save_arrays
from robustgen.storage.files import differences


@dataclass(frozen=True)
class Closeness(ABC):
    """Record of a proxy analysis. Its file holds `about` as JSON and one array per field.

    about   what was analyzed; `made_for` has digests of the images and networks
    """

    kind: ClassVar[str]

    about: About

    @property
    @abstractmethod
    def flags(self) -> tuple[str, ...]:
        """Reasons to doubt the numbers, or limits of their interpretation, one sentence each."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """The result in one sentence."""

    @abstractmethod
    def table(self) -> Table:
        """The main numbers as a table."""

    def save(self, path: Path) -> None:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        about = asdict(columns.pop("about"))
        save_arrays(path, {"about": np.array(json.dumps({"kind": self.kind, **about})), **columns})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record of this kind.

        Raises:
            ValueError: the file is missing, damaged, or a record of another kind.
        """
        arrays = load_arrays(path)
        try:
            about: dict[str, Any] = json.loads(str(arrays.pop("about")))
            kind = about.pop("kind")
            if kind != cls.kind:
                raise ValueError(f"expected a record of {cls.kind} in {path}, got one of {kind}; choose another path")
            return cls(about=About(**about), **arrays)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"expected a record of {cls.kind} in {path}, but cannot read one ({error})") from None

    @classmethod
    def resume(cls, path: Path | None, wanted: About) -> Self | None:
        """The record at `path` to resume from; None where there is no file.

        Raises:
            ValueError: the record is of another analysis, and how it differs.
        """
        if path is None or not path.exists():
            return None
        found = cls.load(path)
        if changes := differences(asdict(found.about), asdict(wanted)):
            raise ValueError(
                f"{path} is a record of another analysis ({'; '.join(changes)}); choose another path with --into, or "
                "remove it"
            )
        return found

    def resampling(self) -> np.random.Generator:
        """The random generator of bootstrap intervals, seeded by the seed of the analysis."""
        return np.random.Generator(np.random.Philox(key=self.about.seed % 2**64))
