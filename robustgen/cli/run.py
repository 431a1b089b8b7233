"""run: all stages of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli import inventory
from robustgen.cli.app import DataPath, Device, DryRun, RecipeName, Scale, Seed, Sets, ThreatText, app, device_named
from robustgen.cli.auto import auto_recipe
from robustgen.cli.settings import whole_recipe

if TYPE_CHECKING:
    from robustgen.config.recipe import Recipe
    from robustgen.pipeline.devices import Devices
    from robustgen.pipeline.graph import Node


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
            "--jobs", metavar="N", min=1, help="stages at a time  [number of cores, or of GPUs]", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", metavar="N", min=1, help="GPUs of this machine to use  [all]", show_default=False),
    ] = None,
    gpus_per_stage: Annotated[
        int | None,
        typer.Option(
            "--gpus-per-stage",
            metavar="N",
            min=1,
            help="for stages that can share them  [GPUs divided by models at a time]",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    threat: ThreatText = None,
    time: Annotated[
        str | None, typer.Option("--time", metavar="TIME", help="of auto: 30m, 2h ...  [30m]", show_default=False)
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network", metavar="NAME", help="of auto: wrn-16-2, net.py:make ...  [chosen]", show_default=False
        ),
    ] = None,
) -> None:
    """Run all stages of a recipe, from images to a report.

    The recipe `auto` is chosen for your images, device and time, with a reason for each setting; it trains with and
    without generated images, and keeps the better classifier in FOLDER/best.

    Repeat the command to resume. A recipe with several seeds is run once per seed, into FOLDER/seed-N, with one report
    about all; with --seed it is run only for that seed.

    \b
      robustgen run digits
      robustgen run digits --set train.loss.beta=5 --into runs/beta5
      robustgen run cifar10-mini --data cifar10=data/cifar10 --gpus 4 --gpus-per-stage 2
      robustgen run rebuffi2021/cifar10-linf-wrn-28-10-cutmix-ddpm --scale tiny
      robustgen run auto --data folder=photos --threat linf:4/255 --time 2h
    """
    how = How(device_named(device), jobs, gpus, gpus_per_stage, dry_run)
    if recipe == "auto":
        from robustgen.config.loading import override

        folder = into or Path("runs") / "auto"
        if scale:
            raise ValueError("run auto chooses its own scale: leave out --scale, or give a shorter --time")
        settings = auto_recipe(folder, data, threat, time, network, how.device, jobs, keep=not dry_run)
        changes = [*(sets or []), *([] if seed is None else [f"seed={seed}"])]
        run_all_stages(override(settings, changes), folder, how, keep_best=True)
        return
    for given, option in ((time, "--time"), (network, "--network")):
        if given:
            raise ValueError(f"{option} is for the recipe auto; change {recipe} with --set NAME=VALUE")
    settings = whole_recipe(recipe, [*([f"threat={threat}"] if threat else []), *(sets or [])], data, seed, scale)
    folder = into or Path("runs") / settings.name.replace("/", "-")
    if settings.seeds and seed is None:
        run_study(settings, folder, how)
        return
    run_all_stages(settings.model_copy(update={"seeds": ()}), folder, how)


@dataclass(frozen=True)
class How:
    """Where the stages of a run are executed.

    device     "cpu", "cuda" for all GPUs, or "cuda:1"
    jobs       stages at a time; None: as many as cores, or devices
    gpus       devices to use; None: all
    per_stage  devices of a stage that can share them; None: chosen
    dry_run    only print what would be done
    """

    device: str
    jobs: int | None
    gpus: int | None
    per_stage: int | None
    dry_run: bool

    def devices(self, plan: Sequence[Node]) -> Devices | None:
        """The devices that the stages share, if there are several."""
        from robustgen.pipeline.devices import find_devices

        return find_devices(self.device, plan, self.gpus, self.per_stage)


def run_all_stages(settings: Recipe, folder: Path, how: How, keep_best: bool = False) -> None:
    from robustgen.config.loading import with_defaults
    from robustgen.pipeline import scheduler
    from robustgen.pipeline.graph import check, stages
    from robustgen.report.tables import name_of, read_results, results_table
    from robustgen.storage.files import locked
    from robustgen.storage.run_folder import RunDir

    target = RunDir(folder)
    plan = stages(settings, target)
    devices = how.devices(plan)
    if how.dry_run:
        check(settings)
        jobs = how.jobs or scheduler.plan_jobs(plan, how.device, settings.threads)
        print(f"{settings.name} into {folder}, on {how.device}, {devices or f'{jobs} at a time'}")
        print("".join(f"  {line}\n" for line in inventory.head_of(settings)[1:]), end="")
        width = max(22, *(len(stage.name) + 2 for stage in plan))
        for stage in plan:
            print(f"  {stage.name:<{width}}{'done' if stage.finished else 'to do'}")
        return
    if not target.recipe.exists():
        scheduler.check_apart(settings)
    with locked(folder):
        target.ensure_recipe(settings.to_json(), with_defaults)
        scheduler.run_all(settings, target, plan, how.device, how.jobs, devices)
    results = read_results(target)
    inventory.print_table(results_table(results), f"{settings.name}: {results.threat}, {settings.evaluation.suite}")
    if results.certificates:
        from robustgen.report.certificates import by_name, certificates_table, certified_gains

        named = by_name(results)
        inventory.print_table(certificates_table(named), "certified % within l2 r, smoothed")
        baseline = name_of(results.recipe, results.baseline)
        print("\n".join(certified_gains(named, baseline) if baseline in named else []))
    for arm, verdicts in results.verdicts.items():
        for flag in verdicts.flags:
            print(f"Red flag ({arm}): {flag}")
    for name, why in target.failed_stages().items():
        print(f"Not made ({name}): {why}")
    if keep_best:
        from robustgen.stages.auto import keep_better

        print(keep_better(target, results.chosen))
    print(f"Report: {target.report}")


def run_study(settings: Recipe, folder: Path, how: How) -> None:
    """Run each seed, one after the other; the stages of a run are parallel."""
    from robustgen.config.loading import with_defaults
    from robustgen.pipeline import scheduler
    from robustgen.pipeline.graph import stages
    from robustgen.pipeline.study import single_runs
    from robustgen.report.study_page import write_reports
    from robustgen.report.study_summary import arms_table, read_study
    from robustgen.report.tables import read_results
    from robustgen.storage.files import locked
    from robustgen.storage.run_folder import RunDir

    runs = single_runs(settings, folder)
    if how.dry_run:
        for recipe, target in runs:
            run_all_stages(recipe, target.root, how)
        return
    if not RunDir(folder).recipe.exists():
        scheduler.check_apart(settings)
    RunDir(folder).ensure_recipe(settings.to_json(), with_defaults)
    with locked(folder, "study"):
        for recipe, target in runs:
            print(f"Seed {recipe.seed}", flush=True)
            plan = stages(recipe, target)
            with locked(target.root):
                target.ensure_recipe(recipe.to_json(), with_defaults)
                scheduler.run_all(recipe, target, plan, how.device, how.jobs, how.devices(plan))
        page = write_reports(
            [target.root for _, target in runs], folder / "report.html", f"robustgen run {settings.name}"
        )
    study = read_study([read_results(target) for _, target in runs])
    assert study is not None
    title = f"{settings.name}: {', '.join(f'seed {recipe.seed}' for recipe, _ in runs)}"
    inventory.print_table(arms_table(study), title)
    for recipe, target in runs:
        for stage, why in target.failed_stages().items():
            print(f"Not made (seed {recipe.seed}, {stage}): {why}")
    print(f"Report: {page}")
