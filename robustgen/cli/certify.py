"""certify: certified l2 radii of a smoothed classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import (
    Architecture,
    Device,
    DryRun,
    ImageKey,
    JudgedBy,
    JudgedData,
    LabelKey,
    Normalization,
    Seed,
    Sets,
    SkipBad,
    TestFile,
    Weights,
    app,
    classifier_folder,
    one_stage,
    result_file,
)
from robustgen.cli.settings import image_settings, judged


@app.command("certify")
def certify_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            callback=classifier_folder,
            help="a folder made by train, hub:NAME, a weights file, FILE.py:FUNCTION, MODULE:FUNCTION",
            show_default=False,
        ),
    ],
    sigma: Annotated[
        float | None,
        typer.Option(
            "--sigma",
            metavar="S",
            help="standard deviation of the noise, in pixels of [0, 1]  [0.25]",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            metavar="N",
            min=1,
            help="noisy copies that certify an image  [100000]",
            show_default=False,
        ),
    ] = None,
    selection: Annotated[
        int | None,
        typer.Option(
            "--selection",
            metavar="N",
            min=1,
            help="other copies that select its class  [100]",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", metavar="P", help="failure probability of a certificate  [0.001]", show_default=False),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option("--every", metavar="K", min=1, help="only every K-th test image  [1]", show_default=False),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", min=1, help="at most N of those  [all]", show_default=False),
    ] = None,
    denoise: Annotated[
        Path | None,
        typer.Option(
            "--denoise", metavar="GENERATOR", help="a diffusion model as denoiser in front  [none]", show_default=False
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="output file  [MODEL/certificates.npz]", show_default=False),
    ] = None,
    weights: Weights = None,
    architecture: Architecture = None,
    normalize: Normalization = "none",
    recipe: JudgedBy = None,
    data: JudgedData = None,
    test: TestFile = None,
    image_key: ImageKey = None,
    label_key: LabelKey = None,
    skip_bad: SkipBad = False,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Certify a smoothed classifier by randomized smoothing.

    A certificate is a radius in l2 within which the smoothed classifier's prediction is constant. Images are those that
    MODEL was trained for, unless --data or --recipe is given. Certificates are saved during the run; repeat the command
    to resume. Under torchrun each process takes a share of the images.

    \b
      robustgen certify models/edm --sigma 0.25 --samples 10000 --every 20
    """
    from robustgen.cli.inventory import print_table
    from robustgen.config.source import Source
    from robustgen.records.certificates import Certificates
    from robustgen.report.certificates import certificates_table
    from robustgen.runtime.distributed import place as process
    from robustgen.stages.certify import Certify
    from robustgen.stages.targets import is_run, name_of_file
    from robustgen.storage.provenance import command_line

    options = {
        "sigma": sigma,
        "samples": samples,
        "selection": selection,
        "alpha": alpha,
        "every": every,
        "images": images,
    }
    given = [f"certification.{name}={value}" for name, value in options.items() if value is not None]
    given += image_settings(image_key, label_key, skip_bad=skip_bad)
    folder = Path(model)
    if is_run(folder):
        raise ValueError(f"{model} is a run; certify one of the classifiers in {folder / 'classifiers'}")
    settings = judged("certify", model, recipe, [*given, *(sets or [])], data, None, seed, test=test)
    config = settings.certification
    assert config is not None
    name = "certificates.npz" if folder.is_dir() else f"{name_of_file(model)}.certificates.npz"
    path = result_file(into) or (folder if folder.is_dir() else Path("evaluations")) / name
    source = Source(model, weights, architecture, normalize)
    stage = Certify(source, settings.data, config, path, settings.seed, denoise, command_line())
    one_stage("certify", path.parent, stage, device, dry_run, threads=settings.threads, file_name=path.name)
    if not dry_run and process()[0] == 0:
        table = certificates_table({model: Certificates.load(path)}, "certified %")
        print_table(table, f"sigma {config.sigma:g}, {config.samples:,} samples, alpha {config.alpha:g}")
