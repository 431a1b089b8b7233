"""Load the record of any analysis of a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustgen.records.landscapes import Landscapes
from robustgen.records.record import About, Findings
from robustgen.records.sweeps import RadiusSweep, StepSweep
from robustgen.storage.arrays import load_arrays

KINDS: dict[str, type[Findings]] = {kind.kind: kind for kind in (RadiusSweep, StepSweep, Landscapes)}


def load_findings(path: Path) -> Findings:
    """Read a record of any kind of `KINDS`.

    Raises:
        ValueError: the file is missing, damaged, or not a record of an analysis.
    """
    arrays = load_arrays(path)
    try:
        about: dict[str, Any] = json.loads(str(arrays.pop("about")))
        return KINDS[about.pop("kind")](about=About(**about), **arrays)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"expected a record of an analysis in {path}, but cannot read one ({error})") from None
