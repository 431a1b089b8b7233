"""Built-in recipes by name. Recipes that reproduce rows of papers are named PAPER/DATA-NORM-NETWORK-WHAT."""

from __future__ import annotations

from pathlib import Path

from robustgen.config.loading import read_recipe, unknown_recipe
from robustgen.config.recipe import Recipe
from robustgen.recipes import (
    bartoldson2024,
    cifar10_5k,
    earlier,
    gowal2021,
    rebuffi2021,
    rebuffi2021_sweeps,
    sehwag2022,
    wang2023,
)
from robustgen.recipes.cifar10_mini import CIFAR10_MINI
from robustgen.recipes.digits import CERTIFIED, DIGITS, SMOKE
from robustgen.recipes.digits_generators import DIGITS_GENERATORS

PAPERS = {
    "carmon2019": earlier.CARMON.cited,
    "gowal2020": earlier.GOWAL.cited,
    "wu2020": earlier.WU.cited,
    "rebuffi2021": rebuffi2021.BASE.cited,
    "gowal2021": gowal2021.BASE.cited,
    "sehwag2022": sehwag2022.BASE.cited,
    "wang2023": wang2023.BASE.cited,
    "bartoldson2024": bartoldson2024.BASE.cited,
}
"""Papers by the prefix of their rows' names."""

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        DIGITS,
        SMOKE,
        CERTIFIED,
        DIGITS_GENERATORS,
        CIFAR10_MINI,
        cifar10_5k.CPU,
        cifar10_5k.GPU,
        *earlier.ROWS,
        *rebuffi2021.ROWS,
        *rebuffi2021_sweeps.ROWS,
        *gowal2021.ROWS,
        *sehwag2022.ROWS,
        *wang2023.ROWS,
        *bartoldson2024.ROWS,
    )
}

STUDIES = ("digits-study", "digits-long", "digits-ports", "cifar10-study")
"""Studies whose recipes are stored with their records, in `docs/study/NAME/recipe.yaml` of the repository."""


def find_recipe(name: str) -> Recipe:
    """A recipe by its name, or from a YAML or JSON file.

    Raises:
        ValueError: unknown (known ones are named), or a file that cannot be read as a recipe.
    """
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith((".yaml", ".yml", ".json")):
        return read_recipe(Path(name), RECIPES)
    if name in STUDIES:
        raise ValueError(f"the recipe of {name} is a file of the repository: docs/study/{name}/recipe.yaml")
    raise ValueError(f"unknown recipe {name!r}; {unknown_recipe(name, RECIPES)}, or a .yaml file")
