"""label: pseudo-labels of a proxy set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import Device, DryRun, Labeler, PrecisionOption, app, one_stage, precision_named


@app.command("label")
def label_command(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a folder made by sample", show_default=False)],
    classifier: Labeler,
    labels: Annotated[
        str, typer.Option("--labels", metavar="WHICH", help="predicted, or condition: the class conditioned on")
    ] = "predicted",
    precision: PrecisionOption = "float32",
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Pseudo-label the images of a proxy set by a classifier.

    Writes the columns label, confidence, and margin to the second most likely class. Results are saved during the run;
    repeat the command to resume. Under torchrun each process takes a share of the images.

    \b
      robustgen label proxies/edm --with models/labeller
    """
    if labels not in ("predicted", "condition"):
        raise ValueError(f"unknown labels {labels!r}; known: predicted, condition")
    from robustgen.stages.label import Label

    one_stage("label", proxy, Label(proxy, classifier, labels, precision_named(precision)), device, dry_run)
