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
    ThreatText,
    app,
    checked,
    of_analysis,
    one_stage,
    settings_of,
)

if TYPE_CHECKING:
    from robustgen.contracts import Progress
    from robustgen.recipe import Recipe


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
    from robustgen.recipe import Measuring
    from robustgen.records.quality import Quality
    from robustgen.verbs import examining
    from robustgen.verbs.listing import print_table

    settings = settings_of(recipe, sets, data, seed)
    measuring = checked(Measuring, judged=judged, which=which)
    path = into or proxy / "quality.npz"

    def work(progress: Progress, device: str) -> str:
        return examining.measure(proxy, classifier, settings.data, measuring, path, settings.seed, device, progress)

    one_stage("measure", path.parent, work, device, dry_run, file_name=path.name)
    if not dry_run:
        print_table(Quality.load(path).table(), str(proxy))


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
    from robustgen.verbs import examining

    own, assignments = of_analysis(sets, threat)
    settings = settings_of(recipe, assignments, data, seed)

    def work(progress: Progress, device: str) -> str:
        return examining.score(
            proxy, settings.data, settings.threat, proxy / "arc.npz", settings.seed, device, progress, own
        )

    one_stage("score", proxy, work, device, dry_run, threads=settings.threads)


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
    from robustgen.verbs import examining
    from robustgen.verbs.listing import print_table

    for needed, given, option in (("conditions", labeller, "--with"), ("transfer", model, "--model")):
        if name == needed and given is None:
            raise ValueError(f"{name} looks at a classifier, too: say which with {option} FOLDER, one made by train")
    path = into or proxy / f"{name}.npz"
    found = []

    def work(progress: Progress, device: str) -> str:
        found.append(
            examining.examine(
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
