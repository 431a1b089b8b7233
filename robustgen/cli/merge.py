"""merge: draw one proxy set from several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import DryRun, Into, app, one_stage
from robustgen.units import parse_number


@app.command()
def merge(
    proxies: Annotated[
        list[str], typer.Argument(metavar="PROXY...", help="labelled proxy sets, two or more", show_default=False)
    ],
    into: Into,
    shares: Annotated[
        str, typer.Option("--shares", metavar="N N...", help="how much of each, as 1 2 or 1:2", show_default=False)
    ],
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="of the draw")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Draw one proxy set from several in given shares.

    Draws are balanced over the classes. The new set holds all images, as hard links that take no space, and marks those
    drawn as kept. The sets it is made of may be removed.

    \b
      robustgen merge proxies/edm proxies/gaussian --shares 2 1 --into proxies/both
    """
    from robustgen.stages.merge import Merge

    words = shares.replace(":", " ").replace(",", " ").split()
    folders = list(proxies)
    while len(folders) > len(words) and _is_number(folders[-1]):  # the shell gives the option its first word alone
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
