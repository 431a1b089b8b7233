"""score: how real robust discriminators find each generated image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import DataPath, Device, DryRun, FromRecipe, Seed, Sets, ThreatText, app, one_stage
from robustgen.cli.settings import command_settings, of_analysis


@app.command("score")
def score_command(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a labeled proxy set", show_default=False)],
    threat: ThreatText = None,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Score each generated image by how real discriminators find it.

    The discriminators are trained first, as for the analysis arc, whose settings are changed by
    --set analysis.NAME=VALUE. Then run: keep --rule discriminator.

    \b
      robustgen score proxies/edm
      robustgen keep proxies/edm --rule discriminator --per-class 300
    """
    from robustgen.recipes import find_recipe
    from robustgen.stages.score import Score

    own, assignments = of_analysis(sets, threat)
    settings = command_settings("score", find_recipe(recipe), assignments, data, seed)
    stage = Score(proxy, settings.data, settings.threat, proxy / "arc.npz", settings.seed, own)
    one_stage("score", proxy, stage, device, dry_run, threads=settings.threads)
