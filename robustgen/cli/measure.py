"""measure, and analyse of a proxy set: how good and how close generated images are."""

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
    app,
    checked,
    one_stage,
    settings_of,
)

if TYPE_CHECKING:
    from robustgen.config.recipe import Recipe
    from robustgen.contracts import Progress


@app.command()
def measure(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a folder made by sample", show_default=False)],
    classifier: Annotated[
        Path, typer.Option("--with", metavar="CLASSIFIER", help="a folder made by train --plain", show_default=False)
    ],
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="where the measures go  [PROXY/quality.npz]", show_default=False),
    ] = None,
    which: Annotated[str, typer.Option("--which", metavar="WHICH", help="all | kept images")] = "all",
    judged: Annotated[
        int, typer.Option("--judged", metavar="N", min=2, help="images of each kind for neighbours and precision")
    ] = 10_000,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Measure generated images beside real ones.

    Frechet and kernel distances, Inception Score, precision and recall, nearest neighbours, memorised images. In the
    published Inception and VGG features where their weight files are at hand and the images are theirs (32x32 or
    larger, in colour); else in those of the classifier, and then named so: docs/quality.md.

    \b
      robustgen measure proxies/edm --with models/labeller
    """
    from robustgen.cli.inventory import print_table
    from robustgen.config.recipe import MeasureConfig
    from robustgen.records.quality import Quality
    from robustgen.stages import measure as stage

    settings = settings_of(recipe, sets, data, seed)
    measuring = checked(MeasureConfig, judged=judged, which=which)
    path = into or proxy / "quality.npz"

    def work(progress: Progress, device: str) -> str:
        return stage.measure(proxy, classifier, settings.data, measuring, path, settings.seed, device, progress)

    one_stage("measure", path.parent, work, device, dry_run, file_name=path.name)
    if not dry_run:
        print_table(Quality.load(path).table(), str(proxy))


def analyse_images(
    name: str,
    proxy: Path,
    settings: Recipe,
    labeller: Path | None,
    model: Path | None,
    images: int | None,
    changes: list[str],
    into: Path | None,
    batch_size: int,
    device: str,
    dry_run: bool,
) -> None:
    """What `analyse` does with the images of a proxy set."""
    from robustgen.cli.inventory import print_table
    from robustgen.stages import analyse_images as stage

    for needed, given, option in (("conditions", labeller, "--with"), ("transfer", model, "--model")):
        if name == needed and given is None:
            raise ValueError(f"{name} looks at a classifier, too: say which with {option} FOLDER, one made by train")
    path = into or proxy / f"{name}.npz"
    found = []

    def work(progress: Progress, device: str) -> str:
        found.append(
            stage.examine(
                name,
                proxy,
                settings.data,
                settings.threat,
                path,
                settings.seed,
                device,
                progress,
                labeller=labeller,
                model=model,
                images=images or 10_000,
                changes=changes,
                batch_size=batch_size,
            )
        )
        return found[0].summary

    one_stage(f"analyse {name}", path.parent, work, device, dry_run, threads=settings.threads, file_name=path.name)
    for record in found:
        print_table(record.table(), f"{proxy}: {settings.threat}")
        for flag in record.flags:
            print(f"Red flag: {flag}")
