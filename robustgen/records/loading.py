"""Load the record of any analysis: this module knows all kinds."""

from __future__ import annotations

from pathlib import Path

from robustgen.records.arc import ARCRecord
from robustgen.records.conditions import ConditionsRecord
from robustgen.records.landscapes import LandscapesRecord
from robustgen.records.record import ClassifierRecord, ProxyRecord, Record
from robustgen.records.sweeps import RadiusSweepRecord, StepSweepRecord
from robustgen.records.transfer import TransferRecord
from robustgen.records.transport import TransportRecord

OF_CLASSIFIERS: dict[str, type[ClassifierRecord]] = {
    record.kind: record for record in (RadiusSweepRecord, StepSweepRecord, LandscapesRecord)
}
OF_PROXY_SETS: dict[str, type[ProxyRecord]] = {
    record.kind: record for record in (ARCRecord, TransportRecord, ConditionsRecord, TransferRecord)
}


def load_record(path: Path) -> Record:
    """Read a record of any kind.

    Raises:
        ValueError: the file is missing, damaged, or not a record of an analysis.
    """
    return Record.load(path)
