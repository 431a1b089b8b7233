"""Render the report of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgen.storage.run_folder import RunDir

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Report:
    """Render the one page of a run from its records."""

    run: RunDir

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.report.page import write_report

        write_report(self.run)
        return str(self.run.report)
