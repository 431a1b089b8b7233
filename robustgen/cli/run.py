"""run, report, list, show: whole recipes, and what there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import (
    DataPath,
    Device,
    DryRun,
    RecipeName,
    Scale,
    Seed,
    Sets,
    app,
    device_named,
    settings_of,
)
from robustgen.verbs import listing

if TYPE_CHECKING:
    from robustgen.recipe import Recipe


@app.command()
def report(
    run_folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="folders made by run, of one seed or of several", show_default=False),
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            metavar="FILE",
            help="the page  [report.html of the run or study; of several runs, here]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Render the report of a run again, or of several in one, from their records.

    Runs of one recipe by other seeds are averaged, with what differs from seed to seed; other runs stand side by side
    and are compared on the same images.

    \b
      robustgen report runs/digits
      robustgen report runs/digits-study
      robustgen report runs/digits runs/beta5 --into both.html
    """
    from robustgen.report.page import render, write_page
    from robustgen.report.study_page import write_reports
    from robustgen.report.tables import read_results
    from robustgen.runs import RunDir, command_line
    from robustgen.study import folders_of, is_study

    if into is not None and into.is_dir():
        raise ValueError(f"{into} is a folder; --into names the page, such as {into / 'report.html'}")
    folders = folders_of(run_folders)
    if len(run_folders) == 1 and not is_study(run_folders[0]):
        run = RunDir(folders[0])
        print(write_page(render(read_results(run)), into or run.report))
        return
    usual = run_folders[0] / "report.html" if len(run_folders) == 1 else Path("report.html")
    print(write_reports(folders, into or usual, command_line()))


@app.command()
def run(
    recipe: RecipeName,
    into: Annotated[
        Path | None, typer.Option("--into", metavar="FOLDER", help="the run folder  [runs/RECIPE]", show_default=False)
    ] = None,
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    scale: Scale = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", metavar="N", min=1, help="stages at a time  [as many as cores; on a GPU 1]", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Do everything a recipe says: fit, sample, label, keep, train, evaluate, report.

    Repeat the command to go on where it stopped. A recipe with several seeds is run once for each, into FOLDER/seed-N,
    and all are reported together; with --seed it is run for that one alone.

    \b
      robustgen run digits
      robustgen run digits --set train.beta=5 --into runs/beta5
      robustgen run cifar10-mini --data cifar10=data/cifar10
      robustgen run rebuffi2021/cifar10-linf-wrn-28-10-cutmix-ddpm --scale tiny
    """
    settings = settings_of(recipe, sets, data, seed, scale)
    folder = into or Path("runs") / settings.name.replace("/", "-")
    if settings.seeds and seed is None:
        run_study(settings, folder, jobs, device, dry_run)
        return
    run_all_stages(settings.model_copy(update={"seeds": ()}), folder, jobs, device, dry_run)


@app.command("list")
def list_known(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]",
            help=f"recipes | runs | {' | '.join(listing.FAMILIES)}",
        ),
    ] = "recipes",
) -> None:
    """List what there is."""
    found = listing.known(what)
    width = max([22, *(len(name) for name, text in found if text)]) + 2
    for name, text in found:
        print(f"{name:<{width}}{text}".rstrip())


@app.command()
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="a recipe, a .yaml file, or a run, proxy set, generator or classifier folder",
            show_default=False,
        ),
    ],
    sets: Sets = None,
    scale: Scale = None,
) -> None:
    """Show a recipe's settings, or what a folder holds."""
    folder = Path(what)
    if folder.is_dir():
        print(listing.describe(folder))
        return
    settings = settings_of(what, sets, None, None, scale)
    from robustgen.report.tables import settings_table

    print("".join(f"{line}\n" for line in listing.head_of(settings)))
    for name, value in settings_table(settings.to_json()).rows:
        print(f"{name:<40}{value}".rstrip())


def run_all_stages(settings: Recipe, folder: Path, jobs: int | None, device: str, dry_run: bool) -> None:
    from robustgen import crew
    from robustgen.overrides import with_defaults
    from robustgen.pipeline import check, stages
    from robustgen.report.tables import name_of, read_results, results_table
    from robustgen.runs import RunDir, locked

    where = device_named(device)
    target = RunDir(folder)
    plan = stages(settings, target, where)
    jobs = jobs or crew.plan_jobs(plan, where, settings.threads)
    if dry_run:
        check(settings)
        print(f"{settings.name} into {folder}, on {where}, {jobs} at a time")
        print("".join(f"  {line}\n" for line in listing.head_of(settings)[1:]), end="")
        width = max(22, *(len(stage.name) + 2 for stage in plan))
        for stage in plan:
            print(f"  {stage.name:<{width}}{'done' if stage.finished else 'to do'}")
        return
    if not target.recipe.exists():
        crew.check_apart(settings)
    with locked(folder):
        target.claim(settings.to_json(), with_defaults)
        crew.run_all(settings, target, plan, where, jobs)
    results = read_results(target)
    listing.print_table(results_table(results), f"{settings.name}: {results.threat}, {settings.evaluation.suite}")
    if results.certificates:
        from robustgen.report.certificates import by_name, certificates_table, certified_gains

        named = by_name(results)
        listing.print_table(certificates_table(named), "certified % within l2 r, smoothed")
        baseline = name_of(results.recipe, results.baseline)
        print("\n".join(certified_gains(named, baseline) if baseline in named else []))
    for arm, verdicts in results.verdicts.items():
        for flag in verdicts.flags:
            print(f"Red flag ({arm}): {flag}")
    for name, why in target.unmade_stages().items():
        print(f"Not made ({name}): {why}")
    print(f"Report: {target.report}")


def run_study(settings: Recipe, folder: Path, jobs: int | None, device: str, dry_run: bool) -> None:
    """A run for each seed, one after the other; stages of one run go side by side."""
    from robustgen import crew
    from robustgen.overrides import with_defaults
    from robustgen.pipeline import stages
    from robustgen.report.study import arms_table, read_study
    from robustgen.report.study_page import write_reports
    from robustgen.report.tables import read_results
    from robustgen.runs import RunDir, locked
    from robustgen.study import single_runs

    where = device_named(device)
    runs = single_runs(settings, folder)
    if dry_run:
        for recipe, target in runs:
            run_all_stages(recipe, target.root, jobs, device, dry_run)
        return
    if not RunDir(folder).recipe.exists():
        crew.check_apart(settings)
    RunDir(folder).claim(settings.to_json(), with_defaults)
    with locked(folder, "study"):
        for recipe, target in runs:
            print(f"Seed {recipe.seed}", flush=True)
            plan = stages(recipe, target, where)
            with locked(target.root):
                target.claim(recipe.to_json(), with_defaults)
                crew.run_all(recipe, target, plan, where, jobs or crew.plan_jobs(plan, where, recipe.threads))
        page = write_reports(
            [target.root for _, target in runs], folder / "report.html", f"robustgen run {settings.name}"
        )
    study = read_study([read_results(target) for _, target in runs])
    assert study is not None
    title = f"{settings.name}: {', '.join(f'seed {recipe.seed}' for recipe, _ in runs)}"
    listing.print_table(arms_table(study), title)
    for recipe, target in runs:
        for stage, why in target.unmade_stages().items():
            print(f"Not made (seed {recipe.seed}, {stage}): {why}")
    print(f"Report: {page}")
