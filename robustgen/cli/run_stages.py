"""Execute the stages of a run or of a study, here or on a cluster, and print what came of it; for the command run."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from robustgen.cli import inventory

if TYPE_CHECKING:
    from robustgen.config.cluster import Cluster
    from robustgen.config.recipe import Recipe
    from robustgen.pipeline.devices import Devices
    from robustgen.pipeline.graph import Node
    from robustgen.storage.run_folder import RunDir


@dataclass(frozen=True)
class How:
    """Where the stages of a run are executed.

    device     "cpu", "cuda" for all GPUs, or "cuda:1"; with a cluster also "auto"
    jobs       stages at a time; None: as many as cores, or devices
    gpus       devices to use; None: all
    per_stage  devices of a stage that can share them; None: chosen
    dry_run    only print what would be done
    on         the cluster whose jobs execute them; None: this machine
    cluster    what its jobs ask for
    arms       make only the stages that these arms need; empty: all
    """

    device: str
    jobs: int | None
    gpus: int | None
    per_stage: int | None
    dry_run: bool
    on: str | None = None
    cluster: Cluster | None = None
    arms: tuple[str, ...] = ()

    def devices(self, plan: Sequence[Node]) -> Devices | None:
        """The devices of this machine that the stages share, if there are several."""
        from robustgen.pipeline.devices import find_devices

        return find_devices(self.device, plan, self.gpus, self.per_stage)


def run_one(settings: Recipe, folder: Path, how: How, keep_best: bool = False) -> None:
    """Run all stages of a recipe, and print its results."""
    from robustgen.pipeline import scheduler
    from robustgen.storage.run_folder import RunDir

    target = RunDir(folder)
    if how.dry_run:
        _print_plan(settings, target, how)
        return
    if not target.recipe.exists():
        scheduler.check_apart(settings)
    _execute([(settings, target)], how)
    _print_results(settings, target, keep_best)


def run_study(settings: Recipe, folder: Path, how: How) -> None:
    """Run each seed: here one after the other, on a cluster all at once."""
    from robustgen.config.loading import with_defaults
    from robustgen.pipeline import scheduler
    from robustgen.pipeline.study import single_runs
    from robustgen.report.study_page import write_reports
    from robustgen.report.study_summary import arms_table, read_study
    from robustgen.report.tables import read_results
    from robustgen.storage.files import locked
    from robustgen.storage.run_folder import RunDir

    runs = single_runs(settings, folder)
    if how.dry_run:
        for recipe, target in runs:
            _print_plan(recipe, target, how)
        return
    if not RunDir(folder).recipe.exists():
        scheduler.check_apart(settings)
    RunDir(folder).ensure_recipe(settings.to_json(), with_defaults)
    with locked(folder, "study"):
        _execute(runs, how)
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
    if how.arms:
        _print_rest(settings, set.intersection(*(set(read_results(target).verdicts) for _, target in runs)))


def _execute(runs: Sequence[tuple[Recipe, RunDir]], how: How) -> None:
    """Execute all stages of runs that are not finished."""
    from robustgen.config.loading import with_defaults
    from robustgen.pipeline import scheduler
    from robustgen.pipeline.graph import stages
    from robustgen.pipeline.launchers import OnCluster, attached, check_no_jobs, run_jobs
    from robustgen.storage.files import locked

    if how.on is not None and how.cluster is not None:
        with attached(how.on, [target for _, target in runs]):
            for recipe, target in runs:
                target.ensure_recipe(recipe.to_json(), with_defaults)
            try:
                planned = [OnCluster(recipe, target, stages(recipe, target, how.arms)) for recipe, target in runs]
                run_jobs(how.on, how.cluster, how.device, planned)
            except KeyboardInterrupt:
                again = f"repeat the command to follow them, robustgen stop {runs[0][1].root} cancels them"
                print(f"\nThe jobs go on; {again}.", file=sys.stderr)
                raise typer.Exit(130) from None
        return
    for recipe, target in runs:
        if len(runs) > 1:
            print(f"Seed {recipe.seed}", flush=True)
        plan = stages(recipe, target, how.arms)
        devices = how.devices(plan)
        check_no_jobs(target)
        with locked(target.root):
            target.ensure_recipe(recipe.to_json(), with_defaults)
            scheduler.run_all(recipe, target, plan, how.device, how.jobs, devices)


def _print_plan(settings: Recipe, target: RunDir, how: How) -> None:
    """The stages, and where they would be executed."""
    from robustgen.pipeline import scheduler
    from robustgen.pipeline.graph import check_recipe, stages
    from robustgen.pipeline.launchers import launcher

    check_recipe(settings)
    plan = stages(settings, target, how.arms)
    if how.on is not None and how.cluster is not None:
        there = launcher(how.on)
        where, lines = how.on, there.describe_jobs(there.jobs_for(how.cluster, settings, plan))
    else:
        devices = how.devices(plan)
        jobs = how.jobs or scheduler.plan_jobs(plan, how.device, settings.threads)
        where = f"{how.device}, {devices or f'{jobs} at a time'}"
        width = max(22, *(len(stage.name) + 2 for stage in plan))
        lines = [f"{stage.name:<{width}}{'done' if stage.finished else 'to do'}" for stage in plan]
    print(f"{settings.name} into {target.root}, on {where}")
    if how.arms:
        settings = settings.model_copy(update={"arms": {arm: settings.arms[arm] for arm in how.arms}})
    print("\n".join(f"  {line}" for line in [*inventory.head_of(settings)[1:], *lines]))


def _print_results(settings: Recipe, target: RunDir, keep_best: bool) -> None:
    """The tables of a finished run, and what is to be known of them."""
    from robustgen.report.tables import name_of, read_results, results_table

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
    if target.report.exists():
        print(f"Report: {target.report}")
    else:
        _print_rest(settings, results.verdicts, "report")


def _print_rest(settings: Recipe, evaluated: Collection[str], *more: str) -> None:
    """Say what a command with --arms has left out."""
    rest = [*(arm for arm in settings.arms if arm not in evaluated), *more]
    if rest:
        print(f"Not made yet: {', '.join(rest)}; repeat the command without --arms")
