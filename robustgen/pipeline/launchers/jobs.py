"""Jobs of a cluster that work on a run, as the run folder knows them: which job has which stage, and how far it is.

`jobs.json` names the job of each stage. Each job keeps a file of its own with the state of its stage, so that jobs on
several machines never write to the same file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robustgen.storage.files import printable, read_json, write_json
from robustgen.storage.run_folder import RunDir

RUNNING, FINISHED, UNMADE, FAILED, REQUEUED, STOPPED = "running", "finished", "unmade", "failed", "requeued", "stopped"
"""States of a stage: REQUEUED by its job before a time limit or for another job; STOPPED by a signal, as of scancel."""


@dataclass(frozen=True)
class Job:
    """A job that was submitted for a stage.

    id         the cluster's number
    tries      jobs of this stage so far
    processes  that share its work
    """

    id: str
    tries: int = 1
    processes: int = 1


@dataclass(frozen=True)
class State:
    """What the job of a stage has left.

    seconds  of work, over all starts
    text     the sentence of a finished stage, or why it failed
    done, total, unit  its progress
    starts   of its jobs: more than one after a requeue
    """

    job: str
    state: str
    seconds: float = 0.0
    text: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    starts: int = 1
    machine: str = ""


def read_jobs(run: RunDir) -> dict[str, Job]:
    """The jobs of a run by stage; empty if it never was on a cluster."""
    if not run.jobs_file.exists():
        return {}
    return {stage: Job(**content) for stage, content in read_json(run.jobs_file).items()}


def keep_job(run: RunDir, stage: str, job: Job) -> None:
    """Note the job of a stage."""
    found = {**read_jobs(run), stage: job}
    write_json(run.jobs_file, {name: asdict(value) for name, value in found.items()})


def _state_file(run: RunDir, stage: str) -> Path:
    return run.jobs / f"{stage.replace(' ', '-')}.state.json"


def read_state(run: RunDir, stage: str) -> State | None:
    """The state of a stage; None if no job of it has started."""
    path = _state_file(run, stage)
    return State(**read_json(path)) if path.exists() else None


def keep_state(run: RunDir, stage: str, state: State) -> None:
    write_json(_state_file(run, stage), asdict(state))


def collect(run: RunDir) -> None:
    """Bring times and failures of jobs into the files of the run, where a report looks for them."""
    for stage in read_jobs(run):
        state = read_state(run, stage)
        if state is None:
            continue
        if state.state == FINISHED:
            run.set_timing(stage, state.seconds)
            run.record_failure(stage, None)
        elif state.state == UNMADE:
            run.record_failure(stage, state.text)


def last_lines(run: RunDir, job: str, count: int = 5) -> list[str]:
    """The last lines of the logs of a job: of its error output, of whichever process wrote last, or of its output."""
    for kind in ("err", "out"):
        logs = sorted(run.jobs.glob(f"{job}_*_log.{kind}"), key=lambda path: path.stat().st_mtime)
        for path in reversed(logs):
            lines = [printable(line, 300) for line in path.read_text(errors="replace").splitlines()]
            if kept := [line for line in lines if line and not line.startswith("submitit INFO")]:
                return kept[-count:]
    return []


def line_of(run: RunDir, stage: str, queue: dict[str, tuple[str, str]] | None = None) -> str:
    """The job of a stage as one line; empty without one.

    Args:
        queue: state and reason of the jobs that the cluster still has, where it can be asked.
    """
    job, state = read_jobs(run).get(stage), read_state(run, stage)
    if job is None:
        return ""
    said = f"job {job.id}" + (f", try {job.tries}" if job.tries > 1 else "")
    begun = state is not None and state.job == job.id
    if queue is not None and job.id not in queue:
        return f"{said}: {_ended(run, job, state if begun else None)}; repeat robustgen run to go on"
    if state is None or not begun:
        waits = queue[job.id][1] if queue is not None else ""
        return f"{said}: waiting" + (f" ({waits})" if waits not in ("", "None") else "")
    if state.state == RUNNING:
        share = f", {100 * state.done / state.total:.0f} % of {state.total:,} {state.unit}" if state.total else ""
        again = f", start {state.starts}" if state.starts > 1 else ""
        return f"{said}: running on {state.machine}{again}{share}"
    return f"{said}: {state.state}" + (f": {state.text}" if state.text else "")


def _ended(run: RunDir, job: Job, state: State | None) -> str:
    if state is not None and state.state in (FAILED, STOPPED):
        return f"{state.state}: {state.text}" if state.text else state.state
    lines = last_lines(run, job.id, 1)
    return f"ended: {lines[0]}" if lines else "gone, without a log"


def as_state(run: RunDir, stage: str, **changes: Any) -> State:
    """The state of a stage with changes."""
    found = read_state(run, stage)
    return State(**{**(asdict(found) if found else {}), **changes})
