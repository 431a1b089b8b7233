"""watch: a run in progress."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import app


@app.command("watch")
def watch_command(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run folder, running or finished", show_default=False)
    ],
    once: Annotated[bool, typer.Option("--once", help="show the current state once, and stop")] = False,
    every: Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.2, help="refresh interval")] = 2.0,
) -> None:
    """Watch a run from another terminal.

    Shows stages, training curves and accuracies so far. It only reads the run's files, so it can be started and stopped
    (Ctrl-C) at any time, and it ends with the run.

    \b
      robustgen watch runs/digits
      robustgen watch runs/digits-study --once
    """
    from robustgen.pipeline.monitor import frame, unfinished

    if once:
        print(frame(run_folder))
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    try:
        with Live(Text(frame(run_folder)), console=Console(highlight=False), auto_refresh=False) as live:
            while unfinished(run_folder):
                time.sleep(every)
                live.update(Text(frame(run_folder)), refresh=True)
            live.update(Text(frame(run_folder)), refresh=True)
    except KeyboardInterrupt:
        return
