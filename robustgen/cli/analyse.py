"""The command analyse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli import inventory as listing
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
from robustgen.cli.measure import analyse_images

if TYPE_CHECKING:
    from robustgen.contracts import Progress


OF_IMAGES = ("arc", "transport", "conditions", "transfer")
"""Analyses of a proxy set."""


@app.command()
def analyse(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="of a classifier: radius-sweep | step-sweep | landscapes; of a proxy set: arc | transport | "
            "conditions | transfer",
            show_default=False,
        ),
    ],
    subject: Annotated[
        Path,
        typer.Argument(
            metavar="SUBJECT",
            help="a folder made by train, or a run: all its arms; or a folder made by sample",
            show_default=False,
        ),
    ],
    threat: ThreatText = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            metavar="N",
            min=1,
            help="only the first N test images  [all]; generated ones  [10000]",
            show_default=False,
        ),
    ] = None,
    labeller: Annotated[
        Path | None,
        typer.Option("--with", metavar="CLASSIFIER", help="made by train --plain, for conditions", show_default=False),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="CLASSIFIER", help="made by train, for transfer", show_default=False),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="where findings go  [CLASSIFIER/NAME.npz]", show_default=False),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="images attacked together; changes no finding")
    ] = 512,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Look for what an evaluation hides, or at how close generated images are to real ones.

    Of a classifier: sweeps over radius and steps, loss landscapes. Of a proxy set: whether its images are told from
    real ones under attack (arc), how far they must be moved onto these (transport), whether robustness carries over
    (transfer), and the sufficient conditions for training on them: docs/diagnostics.md, docs/analyses.md.

    A run keeps to its own recipe, its findings go into RUN/analysis and its report. Settings of the analysis are
    changed by --set analysis.NAME=VALUE. Findings are written as they come; repeat the command to resume.

    \b
      robustgen analyse radius-sweep models/edm --images 200
      robustgen analyse step-sweep runs/digits --set analysis.steps=10,100
      robustgen analyse arc proxies/edm
    """
    from robustgen.runtime.cpu import configure_cpu
    from robustgen.stages import analyse as analysing

    own, assignments = of_analysis(sets, threat)
    if name in OF_IMAGES:
        chosen = settings_of(recipe, assignments, data, seed)
        analyse_images(name, subject, chosen, labeller, model, images, own, into, batch_size, device, dry_run)
        return
    for given, option in ((labeller, "--with"), (model, "--model")):
        if given is not None:
            raise ValueError(f"{option} is for analyses of a proxy set; {name} looks at SUBJECT alone")
    assignments += [f"data.test={images}"] if images else []
    whole_run = analysing.is_run(subject)
    settings = settings_of(str(subject / "recipe.json") if whole_run else recipe, assignments, data, seed)
    configure_cpu(settings.threads)
    from robustgen.analysis import find_analysis

    analysis = find_analysis(name, own)
    found = {}
    for target in analysing.targets(name, subject, into):

        def work(progress: Progress, device: str, target: analysing.Target = target) -> str:
            found[target] = analysing.analyse(analysis, target, settings, batch_size, device, progress)
            return f"{target.classifier.name} -> {target.path}"

        if not dry_run:
            analysing.check_there(target)
        one_stage(
            f"analyse {target.title}", target.path.parent, work, device, dry_run,
            threads=settings.threads, file_name=target.path.name,
        )  # fmt: skip
    for target, findings in found.items():
        listing.print_table(findings.table(), f"{target.title}: {len(findings)} images, {settings.threat}")
        for flag in findings.flags:
            print(f"Red flag ({target.title}): {flag}")
    if whole_run and not dry_run:
        from robustgen.report.page import write_report
        from robustgen.storage.run_folder import RunDir

        print(write_report(RunDir(subject)))
