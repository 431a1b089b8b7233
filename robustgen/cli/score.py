"""The command score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import (
    DataPath,
    Device,
    DryRun,
    FromRecipe,
    Seed,
    Sets,
    ThreatText,
    app,
    of_analysis,
    one_stage,
    settings_of,
)

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@app.command()
def score(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a folder that has been labelled", show_default=False)],
    threat: ThreatText = None,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Say of every generated image how real it looks to robust discriminators.

    They are trained for it, as for the analysis arc, whose settings are changed by --set analysis.NAME=VALUE. Then:
    keep --rule discriminator.

    \b
      robustgen score proxies/edm
      robustgen keep proxies/edm --rule discriminator --per-class 300
    """
    from robustgen.stages import score as stage

    own, assignments = of_analysis(sets, threat)
    settings = settings_of(recipe, assignments, data, seed)

    def work(progress: Progress, device: str) -> str:
        return stage.score(
            proxy, settings.data, settings.threat, proxy / "arc.npz", settings.seed, device, progress, own
        )

    one_stage("score", proxy, work, device, dry_run, threads=settings.threads)
