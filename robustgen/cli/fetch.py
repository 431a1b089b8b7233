"""fetch: published datasets, proxy sets and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import DryRun, app, one_stage


@app.command("fetch")
def fetch_command(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="see: robustgen list downloads | hub | generators", show_default=False),
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            metavar="FOLDER",
            help="output folder  [data/NAME; weights: $ROBUSTGEN_WEIGHTS or ~/.cache/robustgen]",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="compare existing files with the published digests, download nothing")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Download a published dataset, proxy set or weights file.

    Repeat the command to resume an interrupted download. Without a connection it says where to put each file.

    \b
      robustgen fetch cifar10
      robustgen fetch Rebuffi2021Fixing_70_16_cutmix_ddpm
    """
    from robustgen.stages import fetch as fetching

    wanted = fetching.find_downloads(name, into)
    if check:
        print("\n".join(fetching.verify_files(wanted)) if not dry_run else f"would check {wanted.folder}")
        return
    if dry_run:
        print("\n".join(fetching.planned_downloads(wanted)))
        return

    one_stage(
        f"fetch {name}",
        wanted.folder,
        lambda device, progress: fetching.fetch_files(wanted, progress),
        "cpu",
        False,
        file_name=f"fetch-{wanted.name.replace('/', '-')}",
    )
