"""measure: quality of generated images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import (
    DataPath,
    Device,
    DryRun,
    FromRecipe,
    Labeler,
    Seed,
    Sets,
    app,
    one_stage,
    result_file,
)
from robustgen.cli.settings import command_settings


@app.command("measure")
def measure_command(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a folder made by sample", show_default=False)],
    classifier: Labeler,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="output file  [PROXY/quality.npz]", show_default=False),
    ] = None,
    which: Annotated[
        str | None, typer.Option("--which", metavar="WHICH", help="all | kept images  [all]", show_default=False)
    ] = None,
    judged: Annotated[
        int | None,
        typer.Option(
            "--judged",
            metavar="N",
            min=2,
            help="real and generated images for nearest neighbors and precision  [10000]",
            show_default=False,
        ),
    ] = None,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Measure the quality of generated images: FID, memorization ...

    Frechet and kernel distances, Inception Score, precision and recall, nearest neighbors, memorized images. They are
    computed in the published Inception and VGG features if their weights are found and the images are RGB of 32x32 or
    larger. Otherwise features of the classifier are used, and the names say so: docs/quality.md.

    \b
      robustgen measure proxies/edm --with models/labeller
    """
    from robustgen.cli.inventory import print_table
    from robustgen.config.recipe import MeasureConfig
    from robustgen.recipes import find_recipe
    from robustgen.records.quality import Quality
    from robustgen.runtime.distributed import place
    from robustgen.stages.measure import Measure

    base = find_recipe(recipe)
    base = base.model_copy(update={"measure": base.measure or MeasureConfig()})
    options = [text for text in (which and f"measure.which={which}", judged and f"measure.judged={judged}") if text]
    settings = command_settings("measure", base, [*options, *(sets or [])], data, seed)
    assert settings.measure is not None
    path = result_file(into) or proxy / "quality.npz"
    stage = Measure(proxy, classifier, settings.data, settings.measure, path, settings.seed)
    one_stage("measure", path.parent, stage, device, dry_run, threads=settings.threads, file_name=path.name)
    if not dry_run and place()[0] == 0:
        print_table(Quality.load(path).table(), str(proxy))
