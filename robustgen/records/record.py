"""Base classes of the records of analyses: arrays, tables and flags. NumPy only."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from robustgen.records.tables import Table
from robustgen.storage.arrays import load_arrays, save_arrays
from robustgen.storage.files import differences
from robustgen.units import parse_number

BROKEN, ROBUST, PENDING = 0, 1, -1
"""Outcome of an attack on an image: misclassified, still classified correctly, not attacked yet."""


@dataclass(frozen=True)
class About:
    """What a record is about; a record about something else at the same path is refused.

    analysis  the analysis with its settings: "StepSweep(steps=(5, 10))"
    threat    threat model: "linf:8/255"
    seed      seed of the random starts of attacks
    made_for  digest of the classifier's weights, or ""
    """

    analysis: str
    threat: str
    seed: int
    made_for: str = ""

    @property
    def eps(self) -> float:
        """The threat model's radius."""
        return parse_number(self.threat.partition(":")[2])


class Record(ABC):
    """What an analysis found. Its file holds `about` as JSON and one array per field of the dataclass.

    kind   name of the analysis; `Record.KINDS` has the classes by it
    about  what was analyzed, and how
    """

    KINDS: ClassVar[dict[str, type[Record]]] = {}

    kind: ClassVar[str]
    about: About

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in vars(cls):
            Record.KINDS[cls.kind] = cls

    @property
    def finished(self) -> bool:
        """Whether every value of the record is there."""
        return True

    @property
    @abstractmethod
    def flags(self) -> tuple[str, ...]:
        """Reasons to doubt the numbers, or limits of their interpretation, one sentence each."""

    @abstractmethod
    def table(self) -> Table:
        """The main numbers as a table."""

    def save(self, path: Path) -> None:
        itself: Any = self  # a dataclass, as all subclasses are
        columns = {field.name: getattr(self, field.name) for field in fields(itself)}
        about = asdict(columns.pop("about"))
        save_arrays(path, {"about": np.array(json.dumps({"kind": self.kind, **about})), **columns})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record of this class, or of any class below it.

        Raises:
            ValueError: the file is missing, damaged, or a record of another kind.
        """
        arrays = load_arrays(path)
        wanted = [kind for kind, member in Record.KINDS.items() if issubclass(member, cls)]
        what = f"a record of {wanted[0]}" if len(wanted) == 1 else "a record of an analysis"
        try:
            about: dict[str, Any] = json.loads(str(arrays.pop("about")))
            kind = about.pop("kind")
            if kind in Record.KINDS and kind not in wanted:
                raise ValueError(f"expected {what} in {path}, got one of {kind}; choose another path")
            make: Any = Record.KINDS[kind]
            found = make(about=About(**about), **arrays)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"expected {what} in {path}, but cannot read one ({error})") from None
        assert isinstance(found, cls)
        return found

    @classmethod
    def resume(cls, path: Path | None, wanted: About) -> Self | None:
        """The record at `path` to resume from; None where there is no file.

        Raises:
            ValueError: the record is of another analysis, and how it differs.
        """
        if path is None or not path.exists():
            return None
        found = cls.load(path)
        found.check_same(path, wanted)
        return found

    def check_same(self, path: Path, wanted: About, others: list[str] | None = None) -> None:
        """Raise ValueError where the record is of another analysis; `others` are further differences."""
        if found := [*differences(asdict(self.about), asdict(wanted)), *(others or [])]:
            raise ValueError(
                f"{path} is a record of another analysis ({'; '.join(found)}); choose another path with --into, or "
                "remove it"
            )


@dataclass
class ClassifierRecord(Record):
    """Record of an analysis of a classifier on some images.

    ids     (N,) identity of each image, a hash of its content
    labels  (N,)
    """

    about: About
    ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def resume_on(cls, path: Path | None, wanted: About, ids: np.ndarray, labels: np.ndarray) -> Self | None:
        """As `resume`; the record must also be of these images."""
        if path is None or not path.exists():
            return None
        found = cls.load(path)
        same = np.array_equal(found.ids, ids) and np.array_equal(found.labels, labels)
        others = f"images: stored {len(found)}, requested {len(ids)}{' others' * (len(found) == len(ids))}"
        found.check_same(path, wanted, [] if same else [others])
        return found


@dataclass(frozen=True)
class ProxyRecord(Record):
    """Record of an analysis of generated images: how close they are to real ones.

    about   what was analyzed; `made_for` has digests of the images and networks
    """

    about: About

    @property
    @abstractmethod
    def summary(self) -> str:
        """The result in one sentence."""

    def resampling(self) -> np.random.Generator:
        """The random generator of bootstrap intervals, seeded by the seed of the analysis."""
        return np.random.Generator(np.random.Philox(key=self.about.seed % 2**64))
