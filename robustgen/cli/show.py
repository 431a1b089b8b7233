"""show: the settings of a recipe, what a folder holds, or the result of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli import inventory
from robustgen.cli.app import Scale, Sets, app
from robustgen.cli.result_files import CSV_HELP, is_result_file, show_result
from robustgen.cli.settings import whole_recipe


@app.command("show")
def show_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="a recipe, a .yaml file, a run, proxy set, generator or classifier folder, or an .npz of verdicts or "
            "certificates",
            show_default=False,
        ),
    ],
    sets: Sets = None,
    scale: Scale = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help=CSV_HELP, show_default=False)] = None,
) -> None:
    """Show the settings of a recipe, what a folder holds, or the result of an evaluation.

    \b
      robustgen show digits
      robustgen show models/edm/aa+mt.npz --csv rows.csv
    """
    if is_result_file(what):
        show_result(Path(what), csv)
        return
    if csv is not None:
        raise ValueError(f"--csv requires an .npz made by evaluate or certify, got {what}")
    folder = Path(what)
    if folder.is_dir():
        print(inventory.describe(folder))
        return
    settings = whole_recipe(what, sets, scale=scale)
    from robustgen.report.tables import settings_table

    print("".join(f"{line}\n" for line in inventory.head_of(settings)))
    for name, value in settings_table(settings.to_json()).rows:
        print(f"{name:<40}{value}".rstrip())
