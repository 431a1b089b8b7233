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
    checked,
    of_analysis,
    one_stage,
    settings_of,
)
from robustgen.cli.measure import analyse_images
from robustgen.verbs import listing

if TYPE_CHECKING:
    from robustgen.contracts import Progress

OF_IMAGES = ("arc", "transport", "conditions", "transfer")
"""Analyses of a proxy set."""


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
    from robustgen.verbs import analysing, judging

    whole_run = analysing.is_run(Path(model))
    settings = settings_of(str(Path(model) / "recipe.json") if whole_run else recipe, assignments, data, seed)
    for title, place, path in analysing.models(suite, model, into):
        source = judging.Source(place, weights, architecture, normalise)

        def work(
            progress: Progress, device: str, source: judging.Source = source, path: Path = path, title: str = title
        ) -> str:
            verdicts = judging.judge(
                source, settings.data, settings.threat, settings.evaluation, path, settings.seed, device, progress
            )  # fmt: skip
            said = [f"clean {verdicts.clean_accuracy}, robust {verdicts.robust_accuracy} -> {path}"]
            said += [f"Note: {note}" for note in verdicts.notes]
            return "\n".join(said + [f"Red flag: {flag}" for flag in verdicts.flags])

        name = f"evaluate {title}" if whole_run else "evaluate"
        one_stage(name, path.parent, work, device, dry_run, threads=settings.threads, file_name=path.name)


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
    from robustgen import crew
    from robustgen.verbs import analysing

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
    crew.settle(settings.threads)
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
        from robustgen.runs import RunDir

        print(write_report(RunDir(subject)))


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
    from robustgen.recipe import Certification

    settings = settings_of(recipe, [*(["data.test=none"] if data else []), *(sets or [])], data, seed)
    asked = checked(
        Certification, sigma=sigma, samples=samples, selection=selection, alpha=alpha, every=every, images=images
    )
    from robustgen.verbs import analysing, judging

    if analysing.is_run(Path(model)):
        raise ValueError(f"{model} is a run; certify one of the classifiers in {Path(model) / 'classifiers'}")
    ((_, place, path),) = analysing.models("certificates", model, into)
    source = judging.Source(place, weights, architecture, normalise)

    def work(progress: Progress, device: str) -> str:
        found = judging.certify(source, settings.data, asked, path, settings.seed, device, progress, denoise)
        return f"{found.summary} -> {path}"

    one_stage("certify", path.parent, work, device, dry_run, threads=settings.threads, file_name=path.name)
    if not dry_run:
        from robustgen.records.certificates import Certificates
        from robustgen.report.certificates import certificates_table

        table = certificates_table({model: Certificates.load(path)}, "certified %")
        listing.print_table(table, f"sigma {sigma:g}, {samples:,} samples, alpha {alpha:g}")
