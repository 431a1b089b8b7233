"""list: names for the other commands."""

from __future__ import annotations

from typing import Annotated

import typer

from robustgen.cli import inventory
from robustgen.cli.app import app


@app.command("list")
def list_command(
    what: Annotated[
        str, typer.Argument(metavar="[WHAT]", help=f"recipes | runs | {' | '.join(inventory.FAMILIES)}")
    ] = "recipes",
) -> None:
    """List recipes, runs, datasets, networks, attacks and other names."""
    found = inventory.known(what)
    width = max([22, *(len(name) for name, text in found if text)]) + 2
    for name, text in found:
        print(f"{name:<{width}}{text}".rstrip())
