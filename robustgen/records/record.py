"""Base class of the records of analyses: arrays with one row per image; tables and flags are methods. NumPy only."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from robustgen.records.tables import Table
from robustgen.storage.arrays import save_arrays
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


@dataclass
class Findings(ABC):
    """Record of an analysis of a classifier. Its file holds `about` as JSON and one array per field.

    ids     (N,) identity of each image, a hash of its content
    labels  (N,)
    """

    kind: ClassVar[str]

    about: About
    ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def finished(self) -> bool:
        return True

    @property
    @abstractmethod
    def flags(self) -> tuple[str, ...]:
        """Red flags: reasons to doubt the evaluation, one sentence each."""

    @abstractmethod
    def table(self) -> Table:
        """The main numbers as a table."""

    def save(self, path: Path) -> None:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        about = asdict(columns.pop("about"))
        save_arrays(path, {"about": np.array(json.dumps({"kind": self.kind, **about})), **columns})

    def check_same(self, wanted: About, ids: np.ndarray, labels: np.ndarray, path: Path) -> Self:
        """Return this record if it is about the same analysis, images and labels.

        Raises:
            ValueError: it is about something else, and how it differs.
        """
        found = differences(asdict(self.about), asdict(wanted))
        if not (np.array_equal(self.ids, ids) and np.array_equal(self.labels, labels)):
            found.append(f"images: stored {len(self)}, requested {len(ids)}{' others' * (len(self) == len(ids))}")
        if found:
            raise ValueError(
                f"{path} is a record of another analysis ({'; '.join(found)}); choose another path with --into, or "
                "remove it"
            )
        return self
