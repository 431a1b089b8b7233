"""The recipe of `run auto`: chosen for a user's images, device and time, and kept in the run folder."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustgen.config.recipe import DataConfig, Recipe, ThreatConfig
    from robustgen.planning.facts import Choice

FILE = "auto.yaml"


def auto_recipe(
    folder: Path,
    data: str | None,
    threat: str | None,
    time: str | None,
    network: str | None,
    device: str,
    jobs: int | None,
    keep: bool,
) -> Recipe:
    """The recipe in `folder`, chosen by an earlier command with the same words; else a new one, printed with reasons.

    Args:
        keep: write a new one to `folder`.

    Raises:
        ValueError: no images or threat model are given, too little time, or a folder with another choice.
    """
    import yaml

    from robustgen.cli.settings import data_of, threat_of
    from robustgen.config.loading import read_recipe
    from robustgen.pipeline.launchers.elastic import exit_with_parent
    from robustgen.planning.auto import seconds_of
    from robustgen.recipes import RECIPES
    from robustgen.storage.files import atomic_write

    wanted, adversary = data_of(data), threat_of(threat)
    if wanted is None or adversary is None:
        raise ValueError("run auto needs --data NAME[=PATH] and --threat NORM:EPS, such as --threat linf:4/255")
    seconds = seconds_of(time or "30m")
    words = f"# robustgen run auto --data {data} --threat {threat} --time {time or '30m'}"
    words += f" --network {network}" if network else ""
    path = folder / FILE
    if path.exists():
        first = path.read_text().partition("\n")[0]
        if first != words:
            raise ValueError(f"{path} was chosen by {first.removeprefix('# ')!r}; choose another folder with --into")
        return read_recipe(path, RECIPES)
    print("Looking at the images, and timing training steps on this device ...", flush=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    side_by_side = jobs or (cores if device == "cpu" else 1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=exit_with_parent) as pool:  # torch stays out of here
        recipe, choices = pool.submit(_chosen, wanted, adversary, seconds, network, device, side_by_side).result()
    width, wide = (
        max(len(text) for text in column) for column in zip(*((c.what, c.value) for c in choices), strict=True)
    )
    lines = [f"{c.what:<{width}}  {c.value:<{min(wide, 40)}}  {c.why}" for c in choices]
    print("\n".join(lines))
    if keep:
        reasons = "".join(f"# {line}\n" for line in lines)
        with atomic_write(path) as file:
            file.write(f"{words}\n{reasons}{yaml.safe_dump(recipe.to_json(), sort_keys=False)}".encode())
    return recipe


def _chosen(
    data: DataConfig, threat: ThreatConfig, seconds: float, network: str | None, device: str, jobs: int
) -> tuple[Recipe, list[Choice]]:
    from robustgen.planning.auto import choose, choose_side
    from robustgen.stages.auto import look_at, measure_speed

    facts = look_at(data)
    side, size = choose_side(facts, seconds, device)
    speed = measure_speed(facts, side or facts.shape[1], device, jobs, network, seconds)
    sized = data.model_copy(update={"resize": side})
    recipe, choices = choose(facts, speed, seconds, sized, threat, network)
    return recipe, [size, *choices]
