"""What analyses leave on disk: plain arrays, one row an image; tables and red flags are made from them. NumPy only."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from robustgen.records.tables import Table
from robustgen.stats.intervals import Proportion
from robustgen.storage.arrays import save_arrays
from robustgen.storage.files import differences
from robustgen.units import parse_number

BROKEN, ROBUST, PENDING = 0, 1, -1
"""`Sweep.stands` of an image: broken, still right after the attack, not attacked yet."""


@dataclass(frozen=True)
class About:
    """What findings are of; findings of something else in the same place are refused.

    analysis  with its settings: "StepSweep(steps=(5, 10))"
    threat    "linf:8/255"
    seed      of the attacks' starts
    made_for  which classifier: a digest of its weights, or nothing
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
    """What every analysis of images leaves, and how it is kept: a file is JSON about it, and arrays.

    ids     (N,) identity of each image, from its content
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
        """What makes the evaluation doubtful, a sentence each."""

    @abstractmethod
    def table(self) -> Table:
        """The findings in short."""

    def save(self, path: Path) -> None:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        about = asdict(columns.pop("about"))
        save_arrays(path, {"about": np.array(json.dumps({"kind": self.kind, **about})), **columns})

    def check_same(self, wanted: About, ids: np.ndarray, labels: np.ndarray, path: Path) -> Self:
        """Itself, if it is of this analysis of these images.

        Raises:
            ValueError: it is of something else; says of what.
        """
        found = differences(asdict(self.about), asdict(wanted))
        if not (np.array_equal(self.ids, ids) and np.array_equal(self.labels, labels)):
            found.append(f"{len(self)} {'other ' if len(self) == len(ids) else ''}images there, {len(ids)} here")
        if found:
            raise ValueError(
                f"{path} holds another analysis: {'; '.join(found)}; choose another place with --into, or remove it"
            )
        return self


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"


def _percent(share: Proportion) -> str:
    low, high = share.interval
    return f"{100 * low:.1f} to {100 * high:.1f}"
