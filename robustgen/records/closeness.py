"""How close generated images are to real ones: rows, numbers, tables and red flags, as they lie on disk. NumPy only.

Here what all such records share, whether the two are told apart under attack (`ARCResult`), and the sufficient
conditions of arXiv:2103.01946 (`Conditions`); in `distances` how far they must be moved onto each other.
"""

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
    """What every analysis of generated images leaves, and how it is kept: JSON about it, and arrays.

    about   `made_for` holds digests of the images and networks that were looked at
    """

    kind: ClassVar[str]

    about: About

    @property
    @abstractmethod
    def flags(self) -> tuple[str, ...]:
        """What makes the numbers doubtful, or how they are meant, a sentence each."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """One sentence."""

    @abstractmethod
    def table(self) -> Table:
        """The numbers in short."""

    def save(self, path: Path) -> None:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        about = asdict(columns.pop("about"))
        save_arrays(path, {"about": np.array(json.dumps({"kind": self.kind, **about})), **columns})

    @classmethod
    def load(cls, path: Path) -> Self:
        """A record of this kind.

        Raises:
            ValueError: missing, damaged, or of another kind.
        """
        arrays = load_arrays(path)
        try:
            about: dict[str, Any] = json.loads(str(arrays.pop("about")))
            kind = about.pop("kind")
            if kind != cls.kind:
                raise ValueError(f"{path} holds findings of {kind}, not of {cls.kind}; choose another place")
            return cls(about=About(**about), **arrays)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} does not hold findings of {cls.kind} ({error})") from None

    @classmethod
    def taken_up(cls, path: Path | None, wanted: About) -> Self | None:
        """What lies there already, if anything does.

        Raises:
            ValueError: it is of something else; says of what.
        """
        if path is None or not path.exists():
            return None
        found = cls.load(path)
        if changes := differences(asdict(found.about), asdict(wanted)):
            raise ValueError(
                f"{path} holds another analysis: {'; '.join(changes)}; choose another place with --into, or remove it"
            )
        return found

    def resampling(self) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self.about.seed % 2**64))


def _percent(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
