"""analyse: diagnostics of a classifier, or of generated images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import (
    Device,
    DryRun,
    JudgedBy,
    JudgedData,
    JudgedThreat,
    Seed,
    Sets,
    app,
    classifier_folder,
    one_stage,
    result_file,
)
from robustgen.cli.settings import command_settings, judged, of_analysis, threat_of

if TYPE_CHECKING:
    from robustgen.config.recipe import Recipe
    from robustgen.contracts import Progress
    from robustgen.records.record import ProxyRecord


OF_IMAGES = ("arc", "transport", "conditions", "transfer")
"""Analyses of a proxy set."""


@app.command("analyse")
def analyse_command(
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
            callback=classifier_folder,
            help="a folder made by train, or a run: all its arms; or a folder made by sample",
            show_default=False,
        ),
    ],
    threat: JudgedThreat = None,
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
        typer.Option(
            "--with",
            metavar="CLASSIFIER",
            callback=classifier_folder,
            help="made by train --plain, for conditions",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="CLASSIFIER",
            callback=classifier_folder,
            help="made by train, for transfer",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="output file  [CLASSIFIER/NAME.npz]", show_default=False),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="images attacked at a time; does not change results")
    ] = 512,
    recipe: JudgedBy = None,
    data: JudgedData = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Run diagnostics on a classifier, or on generated images.

    Of a classifier: sweeps over radius and steps, loss landscapes. Of a proxy set: whether robust discriminators
    distinguish its images from real ones (arc), the distance to real images (transport), whether robustness transfers
    (transfer), and the sufficient conditions for training on them (conditions): docs/diagnostics.md, docs/analyses.md.

    A run is analyzed with its own recipe; records go into RUN/analysis and its report. Change settings of the analysis
    by --set analysis.NAME=VALUE. Records are saved during the run; repeat the command to resume.

    \b
      robustgen analyse radius-sweep models/edm --images 200
      robustgen analyse step-sweep runs/digits --set analysis.steps=10,100
      robustgen analyse arc proxies/edm
    """
    from robustgen.recipes import find_recipe

    threat_of(threat)
    own, assignments = of_analysis(sets, threat)
    if name in OF_IMAGES:
        settings = command_settings("analyse of a proxy set", find_recipe(recipe or "digits"), assignments, data, seed)
        _analyse_images(name, subject, settings, labeller, model, images, own, into, batch_size, device, dry_run)
        return
    for given, option in ((labeller, "--with"), (model, "--model")):
        if given is not None:
            raise ValueError(f"{option} is for analyses of a proxy set; {name} only needs SUBJECT; leave it out")
    _analyse_classifiers(name, subject, recipe, assignments, data, images, own, into, seed, batch_size, device, dry_run)


def _analyse_classifiers(
    name: str, subject: Path, recipe: str | None, sets: list[str], data: str | None, images: int | None,
    own: tuple[str, ...], into: Path | None, seed: int | None, batch_size: int, device: str, dry_run: bool,
) -> None:  # fmt: skip
    """Analyze one classifier, or those of every arm of a run, and print the tables."""
    from robustgen.cli.inventory import print_table
    from robustgen.records.loading import OF_CLASSIFIERS
    from robustgen.report.page import write_report
    from robustgen.runtime.cpu import configure_cpu
    from robustgen.stages.analyse import Analyse
    from robustgen.stages.targets import Target, arms_of, is_run
    from robustgen.storage.run_folder import RunDir

    configure_cpu(1)
    from robustgen.analysis import find_analysis

    analysis, run = find_analysis(name, own), RunDir(subject)
    if is_run(subject):
        arms = arms_of(subject, "analyse", into)
        recipe, targets = str(run.recipe), [Target(a, str(c), run.findings(a, name)) for a, c in arms.items()]
    else:
        targets = [Target(str(subject), str(subject), result_file(into) or subject / f"{name}.npz")]
        if not (subject / "model.json").exists() and not dry_run:
            raise ValueError(f"{subject} is neither a run nor a finished classifier")
    settings = judged("analyse", str(subject), recipe, sets, data, None, seed, images)
    records = {}
    for target in targets:
        stage = Analyse(
            analysis, Path(target.place), settings.data, settings.threat, target.path, settings.seed, batch_size
        )
        one_stage(
            f"analyse {target.title}", target.path.parent, stage, device, dry_run, threads=settings.threads,
            file_name=target.path.name,
        )  # fmt: skip
        if not dry_run:
            records[target] = OF_CLASSIFIERS[name].load(target.path)
    for target, record in records.items():
        print_table(record.table(), f"{target.title}: {len(record)} images, {settings.threat}")
        for flag in record.flags:
            print(f"Red flag ({target.title}): {flag}")
    if is_run(subject) and not dry_run:
        print(write_report(run))


def _analyse_images(
    name: str, proxy: Path, settings: Recipe, labeller: Path | None, model: Path | None, images: int | None,
    own: tuple[str, ...], into: Path | None, batch_size: int, device: str, dry_run: bool,
) -> None:  # fmt: skip
    """Analyze the images of a proxy set, and print the table."""
    from robustgen.cli.inventory import print_table
    from robustgen.runtime.distributed import place
    from robustgen.stages.analyse import AnalyseImages

    classifiers = (
        ("conditions", labeller, "--with", "robustgen train --plain"),
        ("transfer", model, "--model", "robustgen train"),
    )
    for needed, given, option, made in classifiers:
        if name == needed and given is None:
            raise ValueError(f"analysis {name!r} needs a classifier: pass {option} FOLDER (from `{made}`)")
    path = result_file(into) or proxy / f"{name}.npz"
    stage = AnalyseImages(
        name, proxy, settings.data, settings.threat, path, settings.seed, labeller, model, images or 10_000, own,
        batch_size,
    )  # fmt: skip
    found: list[ProxyRecord] = []

    def work(device: str, progress: Progress) -> str:
        found.append(stage.record(device, progress))
        return found[0].summary

    one_stage(f"analyse {name}", path.parent, work, device, dry_run, threads=settings.threads, file_name=path.name)
    for record in found if place()[0] == 0 else ():
        print_table(record.table(), f"{proxy}: {settings.threat}")
        for flag in record.flags:
            print(f"Red flag: {flag}")
