"""publish: a classifier in a format for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import Architecture, DryRun, JudgedBy, JudgedData, Normalization, Sets, Weights, app, one_stage
from robustgen.cli.settings import command_settings, data_of

if TYPE_CHECKING:
    from robustgen.config.recipe import DataConfig
    from robustgen.config.source import Source
    from robustgen.contracts import Progress


@app.command("publish")
def publish_command(
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
    normalize: Normalization = "none",
    recipe: JudgedBy = None,
    data: JudgedData = None,
    sets: Sets = None,
    dry_run: DryRun = False,
) -> None:
    """Write a classifier in a format for other programs.

    The written file is loaded again and must give the same logits. safetensors: a folder that every command accepts.
    robustbench: a state dictionary, and a description to complete. torch-export and onnx: a program for any number of
    images. --data names the images that a model of another source classifies.

    \b
      robustgen publish models/robust --to robustbench --into robust.pt
      robustgen publish hub:Wang2023Better_WRN-28-10 --to safetensors --into models/wang
    """
    from robustgen.config.source import Source
    from robustgen.recipes import RECIPES, find_recipe
    from robustgen.stages.targets import is_run, trained_for

    if is_run(model):
        raise ValueError(f"{model} is a run; publish one of the classifiers in {Path(model) / 'classifiers'}")
    images = data_of(data) or (find_recipe(recipe).data if recipe else trained_for(model).data)
    if images is None:
        raise ValueError(
            f"unknown what images {model} is for: publish needs --data NAME[=PATH] (see: robustgen list datasets), "
            "or --recipe NAME"
        )
    base = RECIPES["digits"].model_copy(update={"data": images})
    settings = command_settings("publish", base, sets)
    stage = Publish(Source(model, weights, architecture, normalize), settings.data, form, into)
    one_stage("publish", into.parent, stage, "cpu", dry_run, file_name=into.name)


@dataclass(frozen=True)
class Publish:
    """The stage behind the command; torch is imported when it runs."""

    source: Source
    data: DataConfig
    form: str
    into: Path

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.stages.publish import publish, subject_of

        return publish(subject_of(self.source, self.data), self.form, self.into)
