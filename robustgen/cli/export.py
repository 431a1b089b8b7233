"""export: write a proxy set for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import DryRun, ProxySetFolder, app, one_stage


@app.command("export")
def export_command(
    proxy: ProxySetFolder,
    into: Annotated[
        Path, typer.Option("--into", metavar="PLACE", help="FILE.npz, or a folder for pictures", show_default=False)
    ],
    kept: Annotated[bool, typer.Option("--kept", help="only the images that keep selected")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write a proxy set for other programs.

    Writes an `.npz` of image and label, or a folder of PNG files for each class.

    \b
      robustgen export proxies/edm --kept --into edm.npz
      robustgen export proxies/edm --kept --into pictures/
    """
    from robustgen.stages.export import Export

    one_stage("export", into.parent, Export(proxy, into, kept), "cpu", dry_run, file_name=into.name)
