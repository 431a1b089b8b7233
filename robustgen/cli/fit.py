"""The command fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import (
    DataPath,
    Device,
    DryRun,
    FromRecipe,
    Into,
    Seed,
    Sets,
    app,
    one_stage,
    settings_of,
)

if TYPE_CHECKING:
    from robustgen.config.recipe import Recipe
    from robustgen.contracts import Progress


@app.command(rich_help_panel=None)
def fit(
    generator: Annotated[
        str,
        typer.Argument(
            metavar="GENERATOR",
            help="one of the recipe's, or with --preset a kind: edm ...",
            show_default=False,
        ),
    ],
    into: Into,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", metavar="NAME", help="smoke | cpu-tiny | gpu-20min | gpu-60min | paper", show_default=False
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="FOLDER", help="the trained EDM that ect starts from", show_default=False),
    ] = None,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Fit a generative model to training images.

    \b
      robustgen fit edm --into models/edm
      robustgen fit edm --into models/edm --set generators.edm.channels=32
      robustgen fit ddpm --preset smoke --into models/ddpm
      robustgen fit edm --preset gpu-60min --data cifar10=FOLDER --into models/edm
    """
    from robustgen.config.generators import ECTConfig

    if preset is None:
        settings = settings_of(recipe, sets, data, seed)
    else:
        settings = _with_preset(recipe, generator, preset, base, sets or [], data, seed)
    if generator not in settings.generators:
        raise ValueError(f"unknown generator {generator!r}; {settings.name} has: {', '.join(settings.generators)}")
    from robustgen.stages import fit as stage

    chosen = settings.generators[generator]
    if base is None and isinstance(chosen, ECTConfig):
        raise ValueError(f"{generator} starts from a trained EDM; say which with --base FOLDER, one made by: fit edm")

    def work(progress: Progress, device: str) -> str:
        return stage.fit(chosen, settings.data, into, settings.seed, device, progress, base)

    one_stage(
        f"fit {generator}", into, work, device, dry_run,
        asked={
            "fit": chosen.to_json(), "data": settings.data.to_json(), "seed": settings.seed,
            **({"base": str(base)} if base else {}),
        },
        threads=settings.threads, finished=into / "generator.json",
    )  # fmt: skip


def _with_preset(
    recipe: str, kind: str, preset: str, base: Path | None, sets: list[str], data: str | None, seed: int | None
) -> Recipe:
    """A recipe whose one generator is a preset, before settings of it are changed."""
    from robustgen.config.generators import ECTConfig
    from robustgen.config.loading import override
    from robustgen.config.recipe import Arm
    from robustgen.recipes.presets import find_preset

    of_generators = [text for text in sets if text.startswith("generators.")]
    settings = settings_of(recipe, [text for text in sets if text not in of_generators], data, seed)
    chosen = find_preset(kind, preset)
    if isinstance(chosen, ECTConfig):
        chosen = chosen.model_copy(update={"base": f"./{base}" if base else "./"})
    alone = {"generators": {kind: chosen}, "arms": {"real": Arm()}}
    return override(settings.model_copy(update=alone), of_generators)
