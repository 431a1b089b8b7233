"""import: a published set as a proxy set."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import DryRun, Into, app, one_stage


@app.command("import")
def import_command(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="a published set: its file, all its parts, or its folder"),
    ],
    into: Into,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="npz | binary | pickle | webdataset | folder  [inferred from the name]",
            show_default=False,
        ),
    ] = None,
    shard_images: Annotated[int, typer.Option("--shard-images", metavar="N", min=1, help="images per file")] = 100_000,
    dry_run: DryRun = False,
) -> None:
    """Import a published set of any size as a proxy set.

    No code in a published file is executed, and nothing is unpacked to disk. After a damaged or malicious file nothing
    is left on disk. Repeat the command to resume an interrupted import.

    \b
      robustgen import 1m.npz --into proxies/edm-1m
      robustgen import 50m_part1.npz 50m_part2.npz 50m_part3.npz 50m_part4.npz --into proxies/edm-50m
      robustgen import ti_500K_pseudo_labeled.pickle --into proxies/tinyimages
    """
    from robustgen.stages.import_ import Import

    there = into.exists()
    try:
        one_stage("import", into, Import(tuple(files), format, into, shard_images), "cpu", dry_run)
    except ValueError:
        if not there and {path.name for path in into.glob("*")} <= {".lock"}:
            shutil.rmtree(into, ignore_errors=True)
        raise
