"""report: the page of a run, of several, or of one evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import app
from robustgen.cli.result_files import CSV_HELP, is_result_file, report_result


@app.command("report")
def report_command(
    run_folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="folders made by run, of one seed or of several, or one .npz of verdicts or certificates",
            show_default=False,
        ),
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            metavar="FILE",
            help="the page  [report.html of the run or study; of several runs, here; of FILE.npz, FILE.html]",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help=CSV_HELP, show_default=False)] = None,
) -> None:
    """Render the report of a run, of several in one, or of one evaluation.

    Runs of one recipe with different seeds are averaged, with their spread over seeds; other runs are compared side by
    side on the same images. A file of verdicts gets a page of its own: the answer, red flags explained, attack by
    attack, by class, what was evaluated, how to repeat it.

    \b
      robustgen report runs/digits
      robustgen report models/edm/aa+mt.npz --into audit.html
      robustgen report runs/digits-study
      robustgen report runs/digits runs/beta5 --into both.html
    """
    from robustgen.pipeline.study import folders_of, is_study
    from robustgen.report.page import render_run, write_page
    from robustgen.report.study_page import write_reports
    from robustgen.report.tables import read_results
    from robustgen.storage.provenance import command_line
    from robustgen.storage.run_folder import RunDir

    files = [path for path in run_folders if is_result_file(path)]
    if files:
        if len(run_folders) > 1:
            raise ValueError(
                f"report takes one .npz at a time, got {len(run_folders)} names; to compare two evaluations: robustgen "
                "compare"
            )
        report_result(files[0], into, csv)
        return
    if csv is not None:
        raise ValueError(f"--csv requires an .npz made by evaluate or certify, got {run_folders[0]}")
    if into is not None and into.is_dir():
        raise ValueError(f"{into} is a folder; --into names the page, such as {into / 'report.html'}")
    folders = folders_of(run_folders)
    if len(run_folders) == 1 and not is_study(run_folders[0]):
        run = RunDir(folders[0])
        print(write_page(render_run(read_results(run)), into or run.report))
        return
    usual = run_folders[0] / "report.html" if len(run_folders) == 1 else Path("report.html")
    print(write_reports(folders, into or usual, command_line()))
