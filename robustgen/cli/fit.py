"""fit: train a generative model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import DataPath, Device, DryRun, FromRecipe, Into, Seed, Sets, app, one_stage
from robustgen.cli.settings import command_settings

if TYPE_CHECKING:
    from robustgen.config.recipe import Recipe


@app.command("fit")
def fit_command(
    generator: Annotated[
        str,
        typer.Argument(
            metavar="GENERATOR",
            help="a generator of the recipe, or with --preset a kind: edm ...",
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
        typer.Option("--base", metavar="FOLDER", help="trained EDM to initialize ECT from", show_default=False),
    ] = None,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Train a generative model on the training images.

    \b
      robustgen fit edm --into models/edm
      robustgen fit edm --into models/edm --set generators.edm.channels=32
      robustgen fit ddpm --preset smoke --into models/ddpm
      robustgen fit edm --preset gpu-60min --data cifar10=FOLDER --into models/edm
    """
    from robustgen.config.generators import ECTConfig
    from robustgen.recipes import find_recipe
    from robustgen.stages.fit import Fit

    base_recipe = find_recipe(recipe)
    if preset is not None:
        base_recipe = _with_preset(base_recipe, generator, preset, base)
    if generator not in base_recipe.generators:
        raise ValueError(
            f"unknown generator {generator!r}; {base_recipe.name} has: {', '.join(base_recipe.generators)}"
        )
    base_recipe = base_recipe.model_copy(update={"generators": {generator: base_recipe.generators[generator]}})
    settings = command_settings("fit", base_recipe, sets, data, seed)
    chosen = settings.generators[generator]
    if base is None and isinstance(chosen, ECTConfig):
        raise ValueError(
            f"{generator} is initialized from a trained EDM; pass --base FOLDER (from `robustgen fit edm`)"
        )
    one_stage(
        f"fit {generator}", into, Fit(chosen, settings.data, into, settings.seed, base), device, dry_run,
        asked={
            "fit": chosen, "data": settings.data, "seed": settings.seed, **({"base": str(base)} if base else {}),
        },
        threads=settings.threads, finished=into / "generator.json",
    )  # fmt: skip


def _with_preset(recipe: Recipe, kind: str, preset: str, base: Path | None) -> Recipe:
    """The recipe with a preset as its only generator."""
    from robustgen.config.generators import ECTConfig
    from robustgen.recipes.presets import find_preset

    chosen = find_preset(kind, preset)
    if isinstance(chosen, ECTConfig):
        chosen = chosen.model_copy(update={"base": f"./{base}" if base else "./"})
    return recipe.model_copy(update={"generators": {kind: chosen}})
