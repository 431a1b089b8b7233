"""Progress display of stages: bars with rate and remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, Self

from robustgen.runtime.distributed import place
from robustgen.units import show_duration


class Display(Protocol):
    """Receives the events of stages; `failed` is for optional stages, after which the run continues."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: object, error: object, trace: object) -> None: ...
    def skipped(self, stage: str) -> None: ...
    def started(self, stage: str) -> None: ...
    def progress(self, stage: str, done: int, total: int, unit: str, note: str = "") -> None: ...
    def finished(self, stage: str, sentence: str, seconds: float) -> None: ...
    def failed(self, stage: str, why: str) -> None: ...


class Bars:
    """A bar for each running stage, and a line above the bars for each finished stage."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.console = Console(highlight=False)
        self.bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]:>16}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.bars.stop()

    def skipped(self, stage: str) -> None:
        self.console.print(f"[dim]{stage:<22} done before[/dim]")

    def started(self, stage: str) -> None:
        self.tasks[stage] = self.bars.add_task(stage, total=None, rate="", note="starting")

    def progress(self, stage: str, done: int, total: int, unit: str, note: str = "") -> None:
        task = self.tasks.get(stage)
        if task is None:
            return
        self.bars.update(task, completed=done, total=total, note=note)
        speed = self.bars.tasks[self.bars.task_ids.index(task)].speed
        if speed:
            self.bars.update(task, rate=f"{speed:,.0f} {unit}/s")

    def finished(self, stage: str, sentence: str, seconds: float) -> None:
        self.bars.remove_task(self.tasks.pop(stage))
        self.console.print(f"[green]{stage:<22}[/green] {sentence} [dim]({show_duration(seconds)})[/dim]")

    def failed(self, stage: str, why: str) -> None:
        from rich.markup import escape

        if stage in self.tasks:  # a job may end before its stage starts
            self.bars.remove_task(self.tasks.pop(stage))
        self.console.print(f"[yellow]{stage:<22}[/yellow] not made: {escape(why)}")


class Lines:
    """Lines for logs: when a stage starts, every 30 seconds while it runs, and when it ends."""

    every = 30.0

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.said: dict[str, float] = {}
        self.first: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        pass

    def _say(self, text: str) -> None:
        print(text, file=sys.stdout, flush=True)

    def skipped(self, stage: str) -> None:
        self._say(f"{stage}: done before")

    def started(self, stage: str) -> None:
        self.said[stage] = time.monotonic()
        self._say(f"{stage}: started")

    def progress(self, stage: str, done: int, total: int, unit: str, note: str = "") -> None:
        now = time.monotonic()
        began, at = self.first.setdefault(stage, (now, done))
        if now - self.said.get(stage, now) < self.every or now == began or done <= at:
            return
        self.said[stage] = now
        rate = (done - at) / (now - began)
        left = show_duration((total - done) / rate)
        note = f", {note}" if note else ""
        self._say(f"{stage}: {100 * done / max(1, total):.0f} %, {rate:,.0f} {unit}/s, {left} left{note}")

    def finished(self, stage: str, sentence: str, seconds: float) -> None:
        self._say(f"{stage}: {sentence} ({show_duration(seconds)})")

    def failed(self, stage: str, why: str) -> None:
        self._say(f"{stage}: not made: {why}")


class Quiet:
    """No output: for all processes of a parallel job except the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        pass

    def skipped(self, stage: str) -> None:
        pass

    def started(self, stage: str) -> None:
        pass

    def progress(self, stage: str, done: int, total: int, unit: str, note: str = "") -> None:
        pass

    def finished(self, stage: str, sentence: str, seconds: float) -> None:
        pass

    def failed(self, stage: str, why: str) -> None:
        pass


def make_display() -> Display:
    """Bars on a terminal, lines elsewhere; no output in processes other than the first."""
    if place()[0]:
        return Quiet()
    return Bars() if sys.stdout.isatty() else Lines()
