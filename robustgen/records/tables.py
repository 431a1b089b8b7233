"""Tables of text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns, for the terminal, the report and Markdown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"expected {len(self.columns)} cells in every row, got {len(row)}: {row}")

    def markdown(self) -> str:
        """The table in Markdown."""
        rows = ([cell.replace("|", r"\|") for cell in cells] for cells in (self.columns, *self.rows))
        lines = ["| " + " | ".join(cells) + " |" for cells in rows]
        return "\n".join([lines[0], "|" + " --- |" * len(self.columns), *lines[1:]])
