"""import-generator: make a generator folder of a published generator."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import DryRun, Into, app, one_stage
from robustgen.cli.settings import data_of


@app.command("import-generator")
def import_generator_command(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="a published checkpoint, or its name; see: list generators", show_default=False
        ),
    ],
    into: Into,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME[=PATH]",
            help="whose classes the labels are: cifar10, folder=FOLDER ...  [by the file's name, or numbers]",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Make a generator folder of a published checkpoint, for sample and recipes.

    No code in the file is executed. Licenses of published weights are printed; NVIDIA's are non-commercial.

    \b
      robustgen fetch edm-cifar10-32x32-cond-vp
      robustgen import-generator edm-cifar10-32x32-cond-vp --into models/edm
      robustgen import-generator edm-cifar10-32x32-cond-vp.pkl --into models/edm
    """
    from robustgen.stages.import_generator import ImportGenerator
    from robustgen.storage.published_generators import find_generator_file

    path = Path(file) if dry_run else find_generator_file(file)
    there = into.exists()
    try:
        one_stage(
            "import-generator", into, ImportGenerator(path, into, data_of(data)), "cpu", dry_run,
            asked=None if dry_run else {"import-generator": path.name, "data": data},
            finished=into / "generator.json",
        )  # fmt: skip
    except ValueError:
        if not there and {one.name for one in into.glob("*")} <= {".lock", "asked.json"}:
            shutil.rmtree(into, ignore_errors=True)
        raise
