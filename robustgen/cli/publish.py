"""fetch, publish: what comes from others, and what goes to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import (
    Architecture,
    DataPath,
    DryRun,
    FromRecipe,
    Normalisation,
    Sets,
    Weights,
    app,
    one_stage,
    settings_of,
)

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@app.command()
def publish(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="a folder made by train, hub:NAME, a weights file, FILE.py:FUNCTION, MODULE:FUNCTION",
            show_default=False,
        ),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--to", metavar="FORM", help="safetensors | robustbench | torch-export | onnx", show_default=False
        ),
    ],
    into: Annotated[
        Path,
        typer.Option("--into", metavar="FILE", help="the file; for safetensors a folder or a file", show_default=False),
    ],
    weights: Weights = None,
    architecture: Architecture = None,
    normalise: Normalisation = "none",
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    dry_run: DryRun = False,
) -> None:
    """Write a classifier in the form that others read.

    What was written is opened again, and must give the same logits. safetensors: a folder that every verb here opens.
    robustbench: a state dictionary, and a description to complete. torch-export and onnx: a program for any number of
    images. --data says what a model from elsewhere sees.

    \b
      robustgen publish models/robust --to robustbench --into robust.pt
      robustgen publish hub:Wang2023Better_WRN-28-10 --to safetensors --into models/wang
    """
    settings = settings_of(recipe, [*(["data.test=none"] if data else []), *(sets or [])], data, None)
    from robustgen.models import sources
    from robustgen.stages import analyse as analysing

    if analysing.is_run(Path(model)):
        raise ValueError(f"{model} is a run; publish one of the classifiers in {Path(model) / 'classifiers'}")
    source = sources.Source(model, weights, architecture, normalise)

    def work(progress: Progress, device: str) -> str:
        from robustgen.stages import publish as publishing

        return publishing.publish(publishing.subject_of(source, settings.data), form, into)

    one_stage("publish", into.parent, work, "cpu", dry_run, file_name=into.name)
