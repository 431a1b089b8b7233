"""Formats in which generated sets are published, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustgen.proxy.formats import binary, carmon, folder, npz, webdataset
from robustgen.proxy.formats.source import ExportedImages, Format, PublishedSet

__all__ = ["FORMATS", "ExportedImages", "Format", "PublishedSet", "format_of"]

FORMATS: dict[str, Format] = {
    "npz": npz.FORMAT,
    "binary": binary.FORMAT,
    "pickle": carmon.FORMAT,
    "webdataset": webdataset.FORMAT,
    "folder": folder.FORMAT,
}


def format_of(paths: Sequence[Path]) -> str:
    """Infer the format from the files' names.

    Raises:
        ValueError: the names do not match a format; lists the known ones.
    """
    for name, member in FORMATS.items():
        if paths and member.fits(paths):
            return name
    shown = ", ".join(str(path) for path in paths[:3])
    raise ValueError(
        f"cannot infer the format of {shown} from its name; pass --format NAME; known: {', '.join(FORMATS)}"
    )
