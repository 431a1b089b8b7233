"""A study: a recipe once for each of its seeds, in a folder each, and which folders a report is asked for. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustgen.config.recipe import Recipe
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir


def is_study(folder: Path) -> bool:
    """Whether `run` has made this folder for several seeds."""
    path = folder / "recipe.json"
    return path.exists() and len(read_json(path).get("seeds", ())) > 1


def single_runs(recipe: Recipe, folder: Path) -> list[tuple[Recipe, RunDir]]:
    """The run of each seed: an ordinary recipe with its folder."""
    return [
        (recipe.model_copy(update={"seed": seed, "seeds": ()}), RunDir(seed_folder(folder, seed)))
        for seed in recipe.seeds
    ]


def seed_folder(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}"


def folders_of(places: Sequence[Path]) -> list[Path]:
    """Run folders, with those of its seeds for each study.

    Raises:
        ValueError: a study of which no seed has begun.
    """
    found = []
    for place in places:
        if not is_study(place):
            found.append(place)
            continue
        seeds = [seed_folder(place, seed) for seed in read_json(place / "recipe.json")["seeds"]]
        begun = [folder for folder in seeds if (folder / "recipe.json").exists()]
        if not begun:
            raise ValueError(f"no seed of the study {place} has begun; repeat robustgen run to go on")
        found += begun
    return found
