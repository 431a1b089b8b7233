"""Studies: a recipe with several seeds, one run folder per seed; and the run folders that a report reads. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustgen.config.recipe import Recipe
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir


def is_study(folder: Path) -> bool:
    """Whether this is the folder of a study made by `run`."""
    path = folder / "recipe.json"
    return path.exists() and len(read_json(path).get("seeds", ())) > 1


def single_runs(recipe: Recipe, folder: Path) -> list[tuple[Recipe, RunDir]]:
    """The run of each seed: a single-seed recipe and its folder."""
    return [
        (recipe.model_copy(update={"seed": seed, "seeds": ()}), RunDir(seed_folder(folder, seed)))
        for seed in recipe.seeds
    ]


def seed_folder(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}"


def folders_of(places: Sequence[Path]) -> list[Path]:
    """Run folders; a study is replaced by the folders of its seeds.

    Raises:
        ValueError: a study without a run that has started.
    """
    found = []
    for place in places:
        if not is_study(place):
            found.append(place)
            continue
        seeds = [seed_folder(place, seed) for seed in read_json(place / "recipe.json")["seeds"]]
        begun = [folder for folder in seeds if (folder / "recipe.json").exists()]
        if not begun:
            raise ValueError(f"no seed of the study {place} has started; repeat robustgen run to resume")
        found += begun
    return found
