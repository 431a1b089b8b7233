"""evaluate: robust accuracy under a suite of attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import (
    Architecture,
    Balanced,
    Device,
    DryRun,
    ImageKey,
    JudgedBy,
    JudgedData,
    JudgedThreat,
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
    precision_named,
    result_file,
)
from robustgen.cli.result_files import check_page, report_result
from robustgen.cli.settings import image_settings, judged


@app.command("evaluate")
def evaluate_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            callback=classifier_folder,
            help="a folder made by train, a run (all its arms), hub:NAME, a weights file, FILE.py:FUNCTION, "
            "MODULE:FUNCTION",
            show_default=False,
        ),
    ],
    suite: Annotated[str, typer.Option("--suite", metavar="NAME", help="see: robustgen list suites")] = "aa+mt",
    threat: JudgedThreat = None,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", min=1, help="only N of the test images  [all]", show_default=False),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="output file  [MODEL/SUITE.npz]", show_default=False),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option("--batch-size", metavar="N", min=1, help="images attacked at a time; does not change verdicts"),
    ] = 512,
    weights: Weights = None,
    architecture: Architecture = None,
    normalize: Normalization = "none",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="NAME",
            help="of the attacks' passes: float32 | bfloat16 | auto, the faster; the model verifies",
        ),
    ] = "float32",
    keep_images: Annotated[bool, typer.Option("--keep-images", help="also save the adversarial examples")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.html", help="also render the page of the verdicts  [none]", show_default=False
        ),
    ] = None,
    recipe: JudgedBy = None,
    data: JudgedData = None,
    test: TestFile = None,
    image_key: ImageKey = None,
    label_key: LabelKey = None,
    balanced: Balanced = False,
    skip_bad: SkipBad = False,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Measure robust accuracy under a cascade of attacks.

    An image that an attack breaks is not attacked again. Images and threat model are those that MODEL was trained
    for, unless --data, --threat or --recipe is given; the first line of the output names them. Verdicts are saved
    during the run; repeat the command to resume. Under torchrun each process takes a share of the images.

    \b
      robustgen evaluate models/edm --suite aa+mt
      robustgen evaluate net.py:make --weights net.pt --normalize data --data cifar10=data/cifar10 \\
        --threat linf:8/255 --suite autoattack --report audit.html
    """
    from robustgen.config.source import Source
    from robustgen.runtime.distributed import place as process
    from robustgen.stages.evaluate import Evaluate
    from robustgen.stages.targets import Target, arms_of, is_run, name_of_file
    from robustgen.storage.provenance import command_line
    from robustgen.storage.run_folder import RunDir

    assignments = [
        f"evaluation.suite={suite}",
        f"evaluation.batch_size={batch_size}",
        f"evaluation.keep_images={str(keep_images).lower()}",
        f"evaluation.precision={precision_named(precision)}",
        *image_settings(image_key, label_key, balanced, skip_bad),
        *(sets or []),
    ]
    folder = Path(model)
    run = RunDir(folder) if is_run(folder) else None
    place = str(run.recipe) if run else recipe
    settings = judged("evaluate", model, place, assignments, data, threat, seed, images, test)
    chosen = settings.evaluation.suite
    if run:
        arms = arms_of(folder, "evaluate", into)
        targets = [Target(arm, str(classifier), run.verdicts(arm, chosen)) for arm, classifier in arms.items()]
    elif folder.is_dir():
        targets = [Target("", model, result_file(into) or folder / f"{chosen}.npz")]
    else:
        targets = [Target("", model, result_file(into) or Path("evaluations") / f"{name_of_file(model)}.{chosen}.npz")]
    if report is not None:
        check_page(report, [target.path for target in targets])
    for target in targets:
        source = Source(target.place, weights, architecture, normalize)
        stage = Evaluate(
            source, settings.data, settings.threat, settings.evaluation, target.path, settings.seed, command_line()
        )
        one_stage(
            f"evaluate {target.title}".strip(), target.path.parent, stage, device, dry_run, threads=settings.threads,
            file_name=target.path.name,
        )  # fmt: skip
        if report is not None and not dry_run and process()[0] == 0:
            report_result(target.path, report)
