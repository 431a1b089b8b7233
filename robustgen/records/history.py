"""Scalars of a training run over its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robustgen.storage.arrays import check_array, load_arrays, save_arrays


@dataclass
class History:
    """Named columns of scalars with one row per step or validation of a training run."""

    columns: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Append a row; all rows have the same columns."""
        if self.columns and self.columns.keys() != values.keys():
            raise ValueError(f"expected columns {sorted(self.columns)}, got {sorted(values)}")
        for name, value in values.items():
            self.columns.setdefault(name, []).append(float(value))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __getitem__(self, column: str) -> np.ndarray:
        return np.asarray(self.columns.get(column, []), dtype=np.float64)

    def state_dict(self) -> dict[str, list[float]]:
        return {name: list(values) for name, values in self.columns.items()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        self.columns = {name: list(values) for name, values in state.items()}

    def save(self, path: Path) -> None:
        save_arrays(path, {name: np.asarray(values) for name, values in self.columns.items()})

    @classmethod
    def load(cls, path: Path) -> History:
        """Read a history.

        Raises:
            ValueError: the file is missing, damaged, or holds something else than equally long columns of numbers.
        """
        columns = load_arrays(path)
        try:
            for name, column in columns.items():
                check_array(name, column, "fiu", next(iter(columns.values())).shape[:1] or (1,))
        except ValueError as error:
            raise ValueError(f"{path} holds no history ({error})") from None
        return cls({name: array.tolist() for name, array in columns.items()})
