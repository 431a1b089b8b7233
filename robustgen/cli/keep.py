"""keep: select images of a labeled proxy set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import DryRun, app, one_stage
from robustgen.cli.settings import checked


@app.command("keep")
def keep_command(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a labeled proxy set", show_default=False)],
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            metavar="NAME",
            help="top-confidence | above-confidence | balanced | boundary | discriminator | by-column | all",
        ),
    ] = "top-confidence",
    per_class: Annotated[int, typer.Option("--per-class", metavar="K", min=1, help="images per class")] = 1000,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="P", help="for above-confidence: lowest probability of the label")
    ] = 0.9,
    uniform: Annotated[
        float, typer.Option("--uniform", metavar="SHARE", help="for boundary: share that is drawn uniformly")
    ] = 0.5,
    column: Annotated[
        str | None,
        typer.Option("--column", metavar="NAME", help="for by-column: highest values first", show_default=False),
    ] = None,
    without_copies: Annotated[
        bool, typer.Option("--without-copies", help="exclude duplicates and copies found by check")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Select images of a labeled proxy set for training.

    \b
      robustgen keep proxies/edm --per-class 500
      robustgen keep proxies/edm --rule boundary --per-class 100 --without-copies
    """
    from robustgen.config.recipe import SelectionConfig
    from robustgen.stages.keep import Keep

    config = checked(
        SelectionConfig, rule=rule, per_class=per_class, confidence=confidence, uniform=uniform, column=column,
        without_copies=without_copies,
    )  # fmt: skip
    one_stage("keep", proxy, Keep(proxy, config), "cpu", dry_run)
