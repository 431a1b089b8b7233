"""What stages leave on disk: plain arrays, one row per image or step; summaries are methods. NumPy only."""

from robustgen.records.arrays import load_arrays, save_arrays, write_array
from robustgen.records.history import History
from robustgen.records.shares import PairedDifference, Share
from robustgen.records.tables import Table
from robustgen.records.verdicts import STANDING, Verdicts, adversarial_file, clean_file

__all__ = [
    "STANDING",
    "History",
    "PairedDifference",
    "Share",
    "Table",
    "Verdicts",
    "adversarial_file",
    "clean_file",
    "load_arrays",
    "save_arrays",
    "write_array",
]
