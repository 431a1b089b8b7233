"""The command show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli import inventory as listing
from robustgen.cli.app import Scale, Sets, app, settings_of

if TYPE_CHECKING:
    pass


@app.command("list")
def list_known(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]",
            help=f"recipes | runs | {' | '.join(listing.FAMILIES)}",
        ),
    ] = "recipes",
) -> None:
    """List what there is."""
    found = listing.known(what)
    width = max([22, *(len(name) for name, text in found if text)]) + 2
    for name, text in found:
        print(f"{name:<{width}}{text}".rstrip())


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
    """Show a recipe's settings, or what a folder holds."""
    folder = Path(what)
    if folder.is_dir():
        print(listing.describe(folder))
        return
    settings = settings_of(what, sets, None, None, scale)
    from robustgen.report.tables import settings_table

    print("".join(f"{line}\n" for line in listing.head_of(settings)))
    for name, value in settings_table(settings.to_json()).rows:
        print(f"{name:<40}{value}".rstrip())
