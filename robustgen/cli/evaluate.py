"""evaluate, analyse, certify: what is said of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import (
    Architecture,
    DataPath,
    Device,
    DryRun,
    FromRecipe,
    Normalisation,
    Seed,
    Sets,
    ThreatText,
    Weights,
    app,
    one_stage,
    settings_of,
)

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="a folder made by train, a run (all its arms), hub:NAME, a weights file, FILE.py:FUNCTION, "
            "MODULE:FUNCTION",
            show_default=False,
        ),
    ],
    suite: Annotated[str, typer.Option("--suite", metavar="NAME", help="see: robustgen list suites")] = "aa+mt",
    threat: ThreatText = None,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", min=1, help="only N of the test images  [all]", show_default=False),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="where verdicts go  [MODEL/SUITE.npz]", show_default=False),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="images attacked together; changes no verdict")
    ] = 512,
    weights: Weights = None,
    architecture: Architecture = None,
    normalise: Normalisation = "none",
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="also write the images as they were broken")
    ] = False,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Count the test images that survive a cascade of attacks.

    An image that falls is not attacked again. Verdicts are written as they come; repeat the command to resume. Under
    torchrun each process takes a share of the images.

    \b
      robustgen evaluate models/edm --suite aa+mt
      robustgen evaluate net.py:make --weights net.pt --normalise data --data cifar10=data/cifar10 \\
        --threat linf:8/255 --suite autoattack
    """
    assignments = [
        f"evaluation.suite={suite}",
        f"evaluation.batch_size={batch_size}",
        f"evaluation.keep_images={str(keep_images).lower()}",
        *(["data.test=none"] if data else []),
        *(sets or []),
        *([f"threat={threat}"] if threat else []),
        *([f"data.test={images}"] if images else []),
    ]
    from robustgen.models.sources import Source
    from robustgen.stages import analyse as analysing
    from robustgen.stages import evaluate as stage

    whole_run = analysing.is_run(Path(model))
    settings = settings_of(str(Path(model) / "recipe.json") if whole_run else recipe, assignments, data, seed)
    for title, place, path in analysing.models(suite, model, into):
        source = Source(place, weights, architecture, normalise)

        def work(
            progress: Progress, device: str, source: Source = source, path: Path = path, title: str = title
        ) -> str:
            verdicts = stage.judge(
                source, settings.data, settings.threat, settings.evaluation, path, settings.seed, device, progress
            )  # fmt: skip
            said = [f"clean {verdicts.clean_accuracy}, robust {verdicts.robust_accuracy} -> {path}"]
            said += [f"Note: {note}" for note in verdicts.notes]
            return "\n".join(said + [f"Red flag: {flag}" for flag in verdicts.flags])

        name = f"evaluate {title}" if whole_run else "evaluate"
        one_stage(name, path.parent, work, device, dry_run, threads=settings.threads, file_name=path.name)
