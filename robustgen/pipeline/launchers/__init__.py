"""Places where the stages of a run are executed: this machine, or a cluster that is a file here and a line below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType

from robustgen.config.cluster import Cluster
from robustgen.config.recipe import Recipe
from robustgen.pipeline.graph import Node
from robustgen.pipeline.launchers import slurm
from robustgen.pipeline.launchers.following import Follower
from robustgen.runtime.progress import make_display
from robustgen.storage.files import locked
from robustgen.storage.run_folder import RunDir

LAUNCHERS: dict[str, ModuleType] = {"slurm": slurm}
"""Clusters by the name that --on takes. Such a module has check_here, jobs_for, describe_jobs, submit, queue,
jobs_at_work, end_of_job and cancel_all, with the signatures of `slurm`."""


def launcher(name: str) -> ModuleType:
    """The cluster of a name. Raises ValueError for an unknown one."""
    if name not in LAUNCHERS:
        raise ValueError(f"--on {name}: unknown; known: {', '.join(LAUNCHERS)}, or without --on this machine")
    return LAUNCHERS[name]


@dataclass(frozen=True)
class OnCluster:
    """A run whose stages are jobs of a cluster."""

    recipe: Recipe
    run: RunDir
    stages: Sequence[Node]


def run_jobs(name: str, cluster: Cluster, device: str, runs: Sequence[OnCluster]) -> None:
    """Submit the jobs of runs, except those that are there, and follow them until all have ended.

    The locks of the runs must be held: `attached`.

    Raises:
        ValueError: the cluster refuses a job.
        StageFailed: a job failed.
    """
    there = launcher(name)
    for each in runs:
        if all(stage.finished for stage in each.stages):
            continue
        if not there.jobs_at_work(each.run):
            each.stages[-1].output.unlink(missing_ok=True)
        count = there.submit(each.run, there.jobs_for(cluster, each.recipe, each.stages), device)
        known = len(there.jobs_at_work(each.run)) - count
        print(
            f"{each.run.root}: {count} jobs submitted" + (f", {known} were there before" if known > 0 else "")
            + "; Ctrl-C leaves them to work, robustgen stop cancels them",
            flush=True,
        )  # fmt: skip
    for each in runs:
        with make_display() as display:
            for stage in each.stages:
                if stage.finished:
                    display.skipped(stage.name)
            Follower(each.run, each.stages, display, there.queue, there.end_of_job).follow()


@contextmanager
def attached(name: str, runs: Sequence[RunDir]) -> Iterator[None]:
    """Lock runs against another process that follows them, or that works on them on this machine.

    While jobs work, the lock of a whole folder is not taken: it would remove the files that they are writing.
    """
    there = launcher(name)
    with ExitStack() as locks:
        for run in runs:
            if not there.jobs_at_work(run):
                with locked(run.root):
                    pass
            locks.enter_context(locked(run.root, "jobs"))
        yield


def check_no_jobs(run: RunDir) -> None:
    """Raise ValueError if jobs of a cluster work on a run, which is then not for this machine."""
    for name, there in LAUNCHERS.items():
        if found := there.jobs_at_work(run):
            raise ValueError(
                f"{run.root}: {len(found)} jobs work on it; follow them with --on {name}, or cancel them with "
                f"robustgen stop {run.root}"
            )
