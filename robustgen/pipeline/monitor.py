"""The state of a run as text, from its files alone: finished stages, progress, current accuracies. No torch."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustgen.config.loading import from_content
from robustgen.config.recipe import Recipe
from robustgen.pipeline.graph import Node, stages
from robustgen.pipeline.launchers.jobs import line_of, read_jobs
from robustgen.pipeline.launchers.slurm import queue
from robustgen.pipeline.study import is_study, single_runs
from robustgen.records.verdicts import UNBROKEN, Verdicts
from robustgen.report.tables import name_of, read_results
from robustgen.runtime.trackers import LINES, read_lines
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir
from robustgen.units import show_duration

_BLOCKS = "▁▂▃▄▅▆▇█"
_RUNNING = "running"
_WIDTH = 24
"""Characters per curve."""


def frame(folder: Path) -> str:
    """The current state of a run or a study.

    Raises:
        ValueError: not a run folder, or one of a recipe that this version does not understand.
    """
    if not (folder / "recipe.json").exists():
        raise ValueError(f"{folder} is not a run folder (no recipe.json)")
    recipe = from_content(read_json(folder / "recipe.json"), str(folder / "recipe.json"))
    if not is_study(folder):
        return "\n".join(_lines_of(recipe, RunDir(folder)))
    lines = [f"{recipe.name}: a study of {len(recipe.seeds)} seeds in {folder}"]
    for single, run in single_runs(recipe, folder):
        lines += ["", *(_lines_of(single, run) if run.recipe.exists() else [f"seed {single.seed}: not started"])]
    return "\n".join(lines)


def unfinished(folder: Path) -> bool:
    """Whether the report of the run or study does not exist yet."""
    return not (folder / "report.html").exists()


def _lines_of(recipe: Recipe, run: RunDir) -> list[str]:
    plan = stages(recipe, run)
    unmade = run.failed_stages()
    done = [stage for stage in plan if stage.finished]
    taken = read_json(run.timings) if run.timings.exists() else {}
    spent = f", {show_duration(sum(taken.values()))} of work" if taken else ""
    jobs, holder = read_jobs(run), _holder(run.root)
    waiting = queue() if jobs and not plan[-1].finished else None
    if waiting is not None and not waiting.keys() & {job.id for job in jobs.values()} and holder.startswith(_RUNNING):
        jobs = {}  # it was on a cluster, and goes on here
    state = "finished" if plan[-1].finished else f"{len(jobs)} jobs of a cluster" if jobs else holder
    lines = [
        f"{recipe.name}, seed {recipe.seed}: {state}; {len(done)} of {len(plan)} stages done{spent}",
        f"[{_bar(len(done) / len(plan), 40)}]",
    ]

    def state_of(stage: Node) -> str:
        job = line_of(run, stage.name, waiting) if jobs else ""
        return "; ".join(filter(None, [job, _going_on(recipe, run, stage)]))

    begun = [(stage.name, state_of(stage)) for stage in plan if not stage.finished and stage.name not in unmade]
    lines += [f"  {name:<26}{going}" for name, going in begun if going]
    lines += [f"  {name:<26}not made: {why}" for name, why in unmade.items()]
    if last := [f"{name} ({show_duration(seconds)})" for name, seconds in list(taken.items())[-3:]]:
        lines.append(f"  last: {', '.join(last)}")
    return [*lines, *_accuracies(run)]


def _holder(folder: Path) -> str:
    """Whether the process that last locked the folder still runs."""
    lock = folder / ".lock"
    text = lock.read_text().strip() if lock.exists() else ""
    if not text.isdigit():
        return "not running"
    try:
        os.kill(int(text), 0)
    except ProcessLookupError:
        return "stopped; repeat robustgen run to resume"
    except PermissionError:
        pass
    return f"{_RUNNING}, process {text}"


def _going_on(recipe: Recipe, run: RunDir, stage: Node) -> str:
    """Progress of a stage, as far as its files show it; empty if it has not started."""
    verb, _, what = stage.name.partition(" ")
    folder = stage.output.parent
    if verb in ("train", "labeller"):
        steps = (recipe.labeller if verb == "labeller" else recipe.training(what.rpartition("-")[0])).schedule.steps
        return _training(folder, steps)
    if verb == "fit":
        return "has a checkpoint" if (folder / "checkpoint.pt").exists() else ""
    if verb == "sample":
        shards = len(list(folder.glob("images-*.npy")))
        return f"{min(shards * recipe.sampling.shard_images, recipe.sampling.count):,} images" if shards else ""
    if verb == "evaluate":
        return _evaluation(stage.output.with_suffix(".npz"))
    return ""


def _training(folder: Path, steps: int) -> str:
    lines = read_lines(folder / LINES)
    if not lines:
        return ""
    losses = [line["loss"] for line in lines if "loss" in line]
    robust = [line["averaged_robust"] for line in lines if "averaged_robust" in line]
    clean = [line["averaged_clean"] for line in lines if "averaged_clean" in line]
    quiet = time.time() - (folder / LINES).stat().st_mtime
    parts = [f"step {lines[-1]['step']} of {steps}"]
    if losses:
        parts.append(f"loss {sparkline(losses)} {losses[-1]:.3f}")
    if robust:
        parts.append(f"robust {sparkline(robust)} {100 * robust[-1]:.1f} %, clean {100 * clean[-1]:.1f} % (validation)")
    return ", ".join(parts) + (f", quiet for {show_duration(quiet)}" if quiet > 60 else "")


def _evaluation(path: Path) -> str:
    if not path.exists():
        return ""
    verdicts = Verdicts.load(path)
    met, last = int(verdicts.faced.max(initial=0)), len(verdicts.attacks) - 1
    robust = int((verdicts.fell_to == UNBROKEN).sum())
    return f"{robust} of {len(verdicts)} images remain robust before {verdicts.attacks[min(met, last)]}"


def _accuracies(run: RunDir) -> list[str]:
    """Clean and robust accuracy of the arms that have been evaluated."""
    try:
        results = read_results(run)
    except ValueError:
        return []
    names = {arm: name_of(results.recipe, arm) for arm in results.verdicts}
    width = max(map(len, names.values())) + 2
    return [
        f"  {names[arm]:<{width}}clean {100 * found.clean_accuracy.value:5.1f} %  "
        f"robust {100 * found.robust_accuracy.value:5.1f} %"
        for arm, found in results.verdicts.items()
    ]


def _bar(share: float, width: int) -> str:
    full = int(share * width)
    return "#" * full + "." * (width - full)


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """A curve as a line of block characters: means over equal parts, scaled from lowest to highest; blank if not
    finite.

    If there are fewer values than `width`, each takes one character.
    """
    parts = np.array_split(np.asarray(values, dtype=np.float64), max(1, min(width, len(values))))
    heights = [float(part[np.isfinite(part)].mean()) if np.isfinite(part).any() else np.nan for part in parts]
    finite = [height for height in heights if np.isfinite(height)]
    if not finite:
        return " " * len(heights)
    low, reach = min(finite), max(finite) - min(finite)
    return "".join(
        _BLOCKS[round((height - low) / reach * 7) if reach else 3] if np.isfinite(height) else " " for height in heights
    )
