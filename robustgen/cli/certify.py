"""The command certify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli import inventory as listing
from robustgen.cli.app import (
    Architecture,
    DataPath,
    Device,
    DryRun,
    FromRecipe,
    Normalisation,
    Seed,
    Sets,
    Weights,
    app,
    checked,
    one_stage,
    settings_of,
)

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@app.command()
def certify(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="a folder made by train, hub:NAME, a weights file, FILE.py:FUNCTION, MODULE:FUNCTION",
            show_default=False,
        ),
    ],
    sigma: Annotated[
        float, typer.Option("--sigma", metavar="S", help="standard deviation of the noise, in pixels of [0, 1]")
    ] = 0.25,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=1, help="noisy copies by which an image is judged")
    ] = 100_000,
    selection: Annotated[
        int, typer.Option("--selection", metavar="N", min=1, help="other copies by which its class is selected")
    ] = 100,
    alpha: Annotated[float, typer.Option("--alpha", metavar="P", help="how likely a certificate may be wrong")] = 0.001,
    every: Annotated[int, typer.Option("--every", metavar="K", min=1, help="only every K-th test image")] = 1,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", min=1, help="at most N of those  [all]", show_default=False),
    ] = None,
    denoise: Annotated[
        Path | None,
        typer.Option(
            "--denoise", metavar="GENERATOR", help="a diffusion model that denoises first  [none]", show_default=False
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", metavar="FILE", help="where certificates go  [MODEL/certificates.npz]", show_default=False
        ),
    ] = None,
    weights: Weights = None,
    architecture: Architecture = None,
    normalise: Normalisation = "none",
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Certify the smoothed classifier: a radius in l2 within which nothing changes its answer.

    Certificates are written as they come; repeat the command to resume.

    \b
      robustgen certify models/edm --sigma 0.25 --samples 10000 --every 20
    """
    from robustgen.config.recipe import CertificationConfig

    settings = settings_of(recipe, [*(["data.test=none"] if data else []), *(sets or [])], data, seed)
    asked = checked(
        CertificationConfig, sigma=sigma, samples=samples, selection=selection, alpha=alpha, every=every, images=images
    )
    from robustgen.models.sources import Source
    from robustgen.stages import analyse as analysing
    from robustgen.stages import certify as stage

    if analysing.is_run(Path(model)):
        raise ValueError(f"{model} is a run; certify one of the classifiers in {Path(model) / 'classifiers'}")
    ((_, place, path),) = analysing.models("certificates", model, into)
    source = Source(place, weights, architecture, normalise)

    def work(progress: Progress, device: str) -> str:
        found = stage.certify(source, settings.data, asked, path, settings.seed, device, progress, denoise)
        return f"{found.summary} -> {path}"

    one_stage("certify", path.parent, work, device, dry_run, threads=settings.threads, file_name=path.name)
    if not dry_run:
        from robustgen.records.certificates import Certificates
        from robustgen.report.certificates import certificates_table

        table = certificates_table({model: Certificates.load(path)}, "certified %")
        listing.print_table(table, f"sigma {sigma:g}, {samples:,} samples, alpha {alpha:g}")
