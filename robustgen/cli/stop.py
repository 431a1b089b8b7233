"""stop: the jobs of a run on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import DryRun, app


@app.command()
def stop(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run folder, or that of a study", show_default=False)
    ],
    dry_run: DryRun = False,
) -> None:
    """Cancel the jobs of a run on a cluster.

    Trainings save a checkpoint first. Repeat robustgen run to go on.

    \b
      robustgen stop runs/digits
    """
    from robustgen.pipeline.launchers import LAUNCHERS
    from robustgen.pipeline.study import folders_of
    from robustgen.storage.run_folder import RunDir

    if not (run_folder / "recipe.json").exists():
        raise ValueError(f"{run_folder} is not a run folder (no recipe.json)")
    stopped = 0
    for folder in folders_of([run_folder]):
        for there in LAUNCHERS.values():
            found = list(there.jobs_at_work(RunDir(folder))) if dry_run else there.cancel_all(RunDir(folder))
            for stage in found:
                print(f"{stage}: {'would be stopped' if dry_run else 'stopped'}")
            stopped += len(found)
    if not stopped:
        print(f"{run_folder}: no jobs of a cluster; stop a run on this machine with Ctrl-C")
