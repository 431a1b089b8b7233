"""Run the stages of a run as jobs of Slurm, one a stage, submitted by submitit with dependencies on each other.

submitit writes the batch script, starts the processes by srun and puts a job back in the queue; Slurm does the rest.
squeue says which jobs are waiting or running, because submitit asks sacct, which needs an accounting database.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

from robustgen.config.cluster import Cluster, Resources
from robustgen.config.recipe import Recipe
from robustgen.pipeline.graph import Node
from robustgen.pipeline.launchers.jobs import Job, keep_job, read_jobs
from robustgen.pipeline.launchers.slurm_job import StageJob
from robustgen.planning.costs import stage_hours
from robustgen.storage.files import printable
from robustgen.storage.run_folder import RunDir
from robustgen.units import show_duration

WITHOUT_GPU = ("data", "import", "keep", "report")
"""Kinds of stages that compute nothing on a GPU."""
ONE_DEVICE_HOURS = 0.5
"""A stage whose counted work takes a device less than this gets one process."""
REQUEUES = 1000
"""Starts after a time limit before a job gives up."""


@dataclass(frozen=True)
class Planned:
    """The job of a stage: what it asks for, and the counted hours of one device, if they are known."""

    stage: Node
    resources: Resources
    hours: float | None

    def __str__(self) -> str:
        asked = self.resources
        gpus = f", {asked.nodes * asked.gpus_per_node} GPU{'s'[: asked.nodes * asked.gpus_per_node != 1]}"
        size = f"{asked.nodes} x {asked.processes_per_node}{gpus if asked.gpus_per_node else ''}"
        hours = "" if self.hours is None else f"{self.hours:,.2f} h"
        return f"{size:<18}{show_duration(asked.time):<14}{hours:<12}"


def jobs_for(cluster: Cluster, recipe: Recipe, stage_list: Sequence[Node]) -> list[Planned]:
    """The job of each stage. Stages with much work that processes can share take all that was asked for, others one
    process, unless the settings of their kind say otherwise.

    Raises:
        ValueError: settings for a kind of stage that the run does not have, or invalid ones.
    """
    kinds = dict.fromkeys(stage.kind for stage in stage_list)
    for kind in cluster.by_kind:
        if kind not in kinds:
            raise ValueError(f"resources of {kind}: unknown kind of stage; known: {', '.join(kinds)}")
    hours, planned = stage_hours(recipe), []
    for stage in stage_list:
        counted = hours.get(stage.name)
        whole = stage.shared and (counted is None or counted >= ONE_DEVICE_HOURS)
        asked = cluster.of(stage.kind, whole)
        if not stage.shared:
            gpus = 0 if stage.kind in WITHOUT_GPU else min(1, asked.gpus_per_node)
            asked = asked.model_copy(update={"nodes": 1, "tasks_per_node": 1, "gpus_per_node": gpus})
        planned.append(Planned(stage, asked, counted))
    return planned


def describe_jobs(planned: Sequence[Planned]) -> list[str]:
    """The jobs as a table: nodes x processes, time limit, counted hours of one device, and what they wait for."""
    width = max(22, *(len(job.stage.name) + 2 for job in planned))
    head = f"{'':<{width}}{'nodes x processes':<18}{'limit':<14}{'one device':<12}after"
    lines = [
        f"{job.stage.name:<{width}}{job}{'done' if job.stage.finished else ', '.join(job.stage.needs)}".rstrip()
        for job in planned
    ]
    return [head, *lines]


def check_here() -> None:
    """Raise ValueError unless jobs can be submitted from this machine."""
    if shutil.which("sbatch") is None:
        raise ValueError(
            "--on slurm: no Slurm here (no sbatch on the PATH); run this on a login node of the cluster, or leave "
            "out --on slurm"
        )
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise ValueError("--on slurm needs submitit; install it with pip install 'robustgen[slurm]'") from None


def queue() -> dict[str, tuple[str, str]] | None:
    """State and reason of the jobs that Slurm has of this user, by number; None if Slurm cannot be asked."""
    if shutil.which("squeue") is None:
        return None
    asked = subprocess.run(["squeue", "--me", "-h", "-o", "%i|%T|%r"], capture_output=True, text=True, check=False)
    if asked.returncode:
        return None
    rows = [line.split("|") for line in asked.stdout.splitlines()]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def jobs_at_work(run: RunDir) -> dict[str, Job]:
    """The jobs of a run, by stage, that Slurm has; empty on machines without Slurm.

    Raises:
        ValueError: Slurm does not answer, so that nobody knows whether jobs write into the folder.
    """
    jobs = read_jobs(run)
    there = queue() if jobs else {}
    if there is None and shutil.which("squeue"):
        raise ValueError(
            f"Slurm does not answer (squeue failed), and {run.root} had jobs, which may still write there; try again "
            f"when it does, or remove {run.jobs_file} if they have ended"
        )
    return {stage: job for stage, job in jobs.items() if job.id in (there or {})}


def submit(run: RunDir, planned: Sequence[Planned], device: str) -> int:
    """Submit a job for each unfinished stage that has none, and return how many were submitted.

    A job that waits for one that is gone is replaced. If a job is refused, those submitted before it are cancelled.

    Raises:
        ValueError: Slurm cannot be asked, or refuses a job; says why.
    """
    if queue() is None:
        raise ValueError("--on slurm: Slurm does not answer (squeue failed); try again when it does")
    _check_accepted([job for job in planned if not job.stage.finished])
    known, at_work = read_jobs(run), jobs_at_work(run)
    new: dict[str, Job] = {}
    for job in planned:
        stage = job.stage
        if stage.finished:
            continue
        if stage.name in at_work and not new.keys() & set(stage.needs):
            continue
        if stage.name in at_work:
            cancel([at_work.pop(stage.name)])
        needed = [current.id for name in stage.needs if (current := new.get(name) or at_work.get(name))]
        try:
            number = _sbatch(run, job, needed, "cpu" if stage.kind in WITHOUT_GPU else device)
        except ValueError:
            cancel(new.values())
            raise
        tries = known[stage.name].tries + 1 if stage.name in known else 1
        new[stage.name] = Job(number, tries, job.resources.processes)
        keep_job(run, stage.name, new[stage.name])
    return len(new)


def _check_accepted(planned: Sequence[Planned]) -> None:
    """Ask Slurm whether it has what jobs ask for: it would queue one with dependencies that can never start."""
    different: dict[Resources, Planned] = {}
    for job in planned:
        different.setdefault(job.resources, job)
    for job in different.values():
        given = _parameters(job, ())
        names = ("time", "nodes", "ntasks_per_node", "gpus_per_node", "cpus_per_task", "partition", "account", "qos",
                 "constraint")  # fmt: skip
        flags = [f"--{name.replace('_', '-')}={given[name]}" for name in names if name in given]
        flags += [f"--mem={given['additional_parameters']['mem']}"] if "mem" in given["additional_parameters"] else []
        asked = subprocess.run(
            ["sbatch", "--test-only", *flags, "--wrap", "true"], capture_output=True, text=True, check=False
        )
        if asked.returncode:
            raise ValueError(f"Slurm refuses the job of {job.stage.name}: {_refusal(asked.stderr, job)}")


def _sbatch(run: RunDir, job: Planned, needed: Sequence[str], device: str) -> str:
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    folder = run.jobs.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)
    executor.update_parameters(**_parameters(job, needed))
    try:
        with redirect_stderr(io.StringIO()):  # submitit prints what sbatch says
            return str(executor.submit(StageJob(str(run.root.resolve()), job.stage.name, device)).job_id)
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        raise ValueError(f"Slurm refuses the job of {job.stage.name}: {_refusal(str(error), job)}") from None


def _refusal(text: str, job: Planned) -> str:
    """Why Slurm refuses a job, from the error output of sbatch, with what the cluster has instead."""
    lines = [printable(line) for line in text.splitlines() if "sbatch: error: " in line or "failure: " in line]
    why = re.sub(r".*?(sbatch: error: |failure: |submission failed: )", "", (lines or [printable(text)])[0])
    if "partition" in why.lower():
        found = subprocess.run(["sinfo", "-h", "-o", "%R"], capture_output=True, text=True, check=False)
        return f"{why}; partitions: {', '.join(dict.fromkeys(found.stdout.split())) or 'none'}"
    if "configuration" in why:
        asked, form = job.resources, "%R: %D nodes, %c cores, %G"
        found = subprocess.run(["sinfo", "-h", "-o", form], capture_output=True, text=True, check=False)
        there = "; ".join(line.strip() for line in found.stdout.splitlines())
        size = f"{asked.nodes} nodes with {asked.gpus_per_node} GPUs and {asked.processes_per_node} processes each"
        return f"{why} ({size} were asked for; there are {there})"
    return why


def _parameters(job: Planned, needed: Sequence[str]) -> dict[str, Any]:
    """submitit's parameters of a job."""
    asked = job.resources
    more: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes"}
    if needed:
        more["dependency"] = f"afterok:{':'.join(needed)}"
    if asked.memory_gb:
        more["mem"] = f"{max(1, round(1024 * asked.memory_gb))}M"
    given: dict[str, Any] = {
        "job_name": f"robustgen {job.stage.name}",
        "time": max(1, asked.time // 60),
        "nodes": asked.nodes,
        "ntasks_per_node": asked.processes_per_node,
        "gpus_per_node": asked.gpus_per_node or None,
        "cpus_per_task": asked.cpus_per_task,
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "setup": list(asked.setup) or None,
        "signal_delay_s": min(300, asked.time // 4),
        "additional_parameters": more,
        "srun_args": ["--kill-on-bad-exit=1"],
    }
    return {name: value for name, value in given.items() if value is not None}


def cancel(jobs: Iterable[Job]) -> None:
    """Cancel jobs; those that have ended are left."""
    numbers = [job.id for job in jobs]
    if numbers:
        subprocess.run(["scancel", *numbers], capture_output=True, check=False)


def cancel_all(run: RunDir) -> list[str]:
    """Cancel all jobs of a run, and return the stages they had. Raises ValueError if Slurm cannot be asked."""
    if not read_jobs(run):
        return []
    if queue() is None:
        raise ValueError(f"the jobs of {run.root} can only be stopped where Slurm answers: on a node of its cluster")
    found = jobs_at_work(run)
    cancel(found.values())
    deadline = time.monotonic() + 60
    while any(job.id in (queue() or {}) for job in found.values()) and time.monotonic() < deadline:
        time.sleep(1)
    return list(found)


def end_of_job(number: str) -> str:
    """What Slurm remembers of a job that is gone: "TIMEOUT", "CANCELLED"; empty once it has forgotten."""
    asked = subprocess.run(["scontrol", "show", "job", number, "-o"], capture_output=True, text=True, check=False)
    words = dict(word.partition("=")[::2] for word in asked.stdout.split() if "=" in word)
    return words.get("JobState", "")
