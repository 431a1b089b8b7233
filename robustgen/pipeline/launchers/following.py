"""Follow the jobs of a run until all have ended: what a run on this machine displays, from files of the run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from robustgen.pipeline.graph import Node
from robustgen.pipeline.launchers.jobs import (
    FAILED,
    FINISHED,
    RUNNING,
    UNMADE,
    Job,
    State,
    collect,
    last_lines,
    read_jobs,
    read_state,
)
from robustgen.runtime.errors import StageFailed
from robustgen.runtime.progress import Display
from robustgen.storage.run_folder import RunDir

LOOK_SECONDS = 1.0
"""Files are looked at this often."""
ASK_SECONDS = (3.0, 30.0)
"""The cluster is asked at the first interval, which grows to the second: its controller serves many users."""

Queue = Callable[[], dict[str, tuple[str, str]] | None]


class Follower:
    """Follows the jobs of the stages of a run.

    queue  asks the cluster for the jobs that it has, with state and reason
    ended  asks it how a job that is gone has ended
    """

    def __init__(
        self, run: RunDir, stage_list: Sequence[Node], display: Display, queue: Queue, ended: Callable[[str], str]
    ):
        self.run, self.display, self.queue, self.ended = run, display, queue, ended
        self.open = {stage.name: stage for stage in stage_list if not stage.finished}
        self.failures: dict[str, str] = {}
        self.left: set[str] = set()
        self.started: set[str] = set()
        self.missing: dict[str, int] = {}
        self.waits: dict[str, str] = {}

    def follow(self) -> None:
        """Return when every stage has finished.

        Raises:
            StageFailed: jobs have failed, and those of other stages have ended; names the first, with its reason.
        """
        interval, asked = ASK_SECONDS[0], 0.0
        while self.open:
            jobs = read_jobs(self.run)
            for stage in list(self.open.values()):
                self._look(stage, jobs[stage.name])
            if self.open and time.monotonic() - asked >= interval:
                self._ask(jobs)
                asked, interval = time.monotonic(), min(ASK_SECONDS[1], 1.1 * interval)
            if self.open:
                time.sleep(LOOK_SECONDS)
        collect(self.run)
        if self.failures:
            name, why = next(iter(self.failures.items()))
            others = [other for other in self.failures if other != name]
            more = f"; also failed: {', '.join(others)}" if others else ""
            raise StageFailed(f"{name}: {why}{more}")

    def _look(self, stage: Node, job: Job) -> None:
        """What the files say of a stage."""
        state = read_state(self.run, stage.name)
        if state is None or state.job != job.id:
            return
        if state.state in (RUNNING, FINISHED) and stage.name not in self.started:
            self.started.add(stage.name)
            self.display.started(stage.name)
        if state.state == RUNNING and state.total:
            self.display.progress(stage.name, state.done, state.total, state.unit)
        elif state.state == FINISHED and stage.finished:
            self._finished(stage, state)
        elif state.state == UNMADE:
            self._not_made(stage, state.text)
        elif state.state == FAILED:
            self._failed(stage, job, state)

    def _ask(self, jobs: Mapping[str, Job]) -> None:
        """Which jobs the cluster still has; one that it does not have twice in a row is gone."""
        there = self.queue()
        if there is None:
            return
        for stage in list(self.open.values()):
            job = jobs[stage.name]
            if job.id in there:
                self.missing.pop(stage.name, None)
                self._say_why_it_waits(stage, *there[job.id])
                continue
            self.missing[stage.name] = self.missing.get(stage.name, 0) + 1
            if self.missing[stage.name] < 2:
                continue
            if stage.finished:
                self._finished(stage, read_state(self.run, stage.name))
            elif (self.failures.keys() | self.left) & set(stage.needs):
                self.left.add(stage.name)  # Slurm has cancelled it
                del self.open[stage.name]
            elif self.open.keys() & set(stage.needs):
                continue  # what it waits for has failed too, which is seen next
            else:
                self._failed(stage, job, None)

    def _say_why_it_waits(self, stage: Node, state: str, reason: str) -> None:
        """Say once why a job waits, if it is not for another stage or for its turn."""
        usual = ("None", "Dependency", "Resources", "Priority", "BeginTime", "")
        if state == "PENDING" and reason not in usual and self.waits.get(stage.name) != reason:
            self.waits[stage.name] = reason
            print(f"{stage.name}: waiting, because Slurm says {reason}", flush=True)

    def _finished(self, stage: Node, state: State | None) -> None:
        if stage.name not in self.started:
            self.display.started(stage.name)
        self.display.finished(stage.name, state.text if state else "", state.seconds if state else 0.0)
        del self.open[stage.name]

    def _not_made(self, stage: Node, why: str) -> None:
        self.display.failed(stage.name, why)
        del self.open[stage.name]

    def _failed(self, stage: Node, job: Job, state: State | None) -> None:
        """Note a failure and show the last lines of its log."""
        lines = last_lines(self.run, job.id)
        why = f"job {job.id} {self._reason(job, state, lines)}"
        self.failures[stage.name] = why
        self._not_made(stage, why)
        if lines:
            print("\n".join(f"    {line}" for line in lines), flush=True)

    def _reason(self, job: Job, state: State | None, lines: Sequence[str]) -> str:
        if state is not None:
            return f"failed: {state.text}"
        ended = self.ended(job.id)
        if ended.startswith("CANCELLED"):
            return "was cancelled; repeat the command to go on"
        if not list(self.run.jobs.glob(f"{job.id}_*_log.*")):
            return (
                f"left no log in {self.run.jobs}: its node must see this folder; put the run on a file system that all "
                "nodes share, with --into"
            )
        how = f" ({ended})" if ended else ""
        return f"ended without finishing{how}: {lines[-1] if lines else 'its log is empty'}"
