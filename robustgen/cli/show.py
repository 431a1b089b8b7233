"""show: the settings of a recipe, or what a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli import inventory
from robustgen.cli.app import Scale, Sets, app
from robustgen.cli.settings import whole_recipe


@app.command()
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="a recipe, a .yaml file, or a run, proxy set, generator or classifier folder",
            show_default=False,
        ),
    ],
    sets: Sets = None,
    scale: Scale = None,
) -> None:
    """Show the settings of a recipe, or what a folder holds."""
    folder = Path(what)
    if folder.is_dir():
        print(inventory.describe(folder))
        return
    settings = whole_recipe(what, sets, scale=scale)
    from robustgen.report.tables import settings_table

    print("".join(f"{line}\n" for line in inventory.head_of(settings)))
    for name, value in settings_table(settings.to_json()).rows:
        print(f"{name:<40}{value}".rstrip())
