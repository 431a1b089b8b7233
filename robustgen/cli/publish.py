"""publish: a classifier in a format for other programs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import (
    Architecture,
    DryRun,
    JudgedBy,
    JudgedData,
    Normalization,
    Sets,
    Weights,
    app,
    classifier_folder,
    one_stage,
)
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
            callback=classifier_folder,
            help="a folder made by train, hub:NAME, a weights file, FILE.py:FUNCTION, MODULE:FUNCTION",
            show_default=False,
        ),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORM",
            help="safetensors | hf-folder | robustbench | torch-export | onnx",
            show_default=False,
        ),
    ],
    into: Annotated[
        Path,
        typer.Option("--into", metavar="FILE", help="the file; for safetensors a folder or a file", show_default=False),
    ],
    weights: Weights = None,
    architecture: Architecture = None,
    normalize: Normalization = "none",
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results",
            metavar="FILE",
            help="of hf-folder: verdicts or certificates for the card, besides those in MODEL; may be repeated",
            show_default=False,
        ),
    ] = None,
    license_name: Annotated[
        str | None,
        typer.Option("--license", metavar="NAME", help="of hf-folder: mit, cc-by-4.0 ...", show_default=False),
    ] = None,
    recipe: JudgedBy = None,
    data: JudgedData = None,
    sets: Sets = None,
    dry_run: DryRun = False,
) -> None:
    """Write a classifier in a format for other programs.

    The written file is loaded again and must give the same logits. safetensors: a folder that every command accepts.
    hf-folder: such a folder with a model card, to be uploaded to Hugging Face; hf:FOLDER opens it. robustbench: a state
    dictionary, and a description to complete. torch-export and onnx: a program for any number of images. --data names
    the images that a model of another source classifies.

    \b
      robustgen publish models/robust --to hf-folder --license mit --into upload/robust
      robustgen publish models/robust --to robustbench --into robust.pt
      robustgen publish hub:Wang2023Better_WRN-28-10 --to safetensors --into models/wang
    """
    from robustgen.config.source import Source
    from robustgen.recipes import RECIPES, find_recipe
    from robustgen.stages.targets import is_run, trained_for

    if form != "hf-folder" and (results or license_name):
        raise ValueError(f"--results and --license are for the card of --to hf-folder, not of {form}; leave them out")
    if license_name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license_name):
        raise ValueError(
            f"--license: expected a name as on Hugging Face, such as mit or cc-by-4.0, got {license_name!r}"
        )
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
    source = Source(model, weights, architecture, normalize)
    stage = Publish(source, settings.data, form, into, tuple(results or ()), license_name)
    one_stage("publish", into.parent, stage, "cpu", dry_run, file_name=into.name)


@dataclass(frozen=True)
class Publish:
    """The stage behind the command; torch is imported when it runs."""

    source: Source
    data: DataConfig
    form: str
    into: Path
    results: tuple[Path, ...] = ()
    license_name: str | None = None

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.stages.publish import publish, subject_of

        if self.into.resolve() == Path(self.source.place).resolve():
            raise ValueError(f"--into {self.into} is the folder that is published; choose another one")
        subject = subject_of(self.source, self.data)
        subject = replace(subject, results=self.results, license_name=self.license_name)
        said = publish(subject, self.form, self.into)
        if self.form == "hf-folder" and self.license_name is None:
            said += "\nNote: the card names no license; Hugging Face asks for one: add --license, or edit README.md"
        return said
