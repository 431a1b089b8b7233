"""merge: one proxy set from several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import DryRun, Into, app, one_stage
from robustgen.units import parse_number


@app.command("merge")
def merge_command(
    proxies: Annotated[
        list[str], typer.Argument(metavar="PROXY...", help="labeled proxy sets, two or more", show_default=False)
    ],
    into: Into,
    shares: Annotated[
        str, typer.Option("--shares", metavar="N N...", help="weight of each, as 1 2 or 1:2", show_default=False)
    ],
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="seed of the selection")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Merge several proxy sets into one, in given shares.

    The selection is class-balanced. The new set holds all images, as hard links that take no space, and marks the
    selected ones as kept. The merged sets can be removed.

    \b
      robustgen merge proxies/edm proxies/gaussian --shares 2 1 --into proxies/both
    """
    from robustgen.stages.merge import Merge

    words = shares.replace(":", " ").replace(",", " ").split()
    folders = list(proxies)
    while len(folders) > len(words) and _is_number(
        folders[-1]
    ):  # the option receives only its first word from the shell
        words.insert(1, folders.pop())
    numbers = tuple(parse_number(word) for word in words)
    if len(numbers) != len(folders):
        raise ValueError(f"expected a share for each of {len(folders)} proxy sets, got {len(numbers)}")
    one_stage("merge", into, Merge(tuple(map(Path, folders)), numbers, into, seed), "cpu", dry_run)


def _is_number(word: str) -> bool:
    try:
        parse_number(word)
    except ValueError:
        return False
    return not Path(word).is_dir()
