"""The row with the largest network on 1, 8 and 64 GPUs, on paper: hours, idle share, bytes that the GPUs exchange.

    python benchmarks/cluster.py

Nothing is run. The hours of a stage are its counted operations (`robustgen/planning/costs.py`) on devices that sustain
the rate given there; evaluation is not counted. Stages take the GPUs that a run on one machine gives them. Every
training step averages the gradients by a ring, each GPU sending and receiving 2 (n - 1) / n of them, without overlap
with computing, at the speeds below. The time of a step is multiplied by the measured overhead of sharing
(`benchmarks/results/distributed-cpu.json`), whatever the number of GPUs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from timing import RESULTS, record

from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.pipeline.devices import divided
from robustgen.pipeline.graph import Node, levels, stages
from robustgen.planning.costs import stage_hours
from robustgen.recipes import RECIPES
from robustgen.storage.run_folder import RunDir

ROW = "rebuffi2021/cifar10-linf-wrn-106-16-cutmix-ddpm"
NODE = 8
"""GPUs that NVLink connects."""
INSIDE, BETWEEN = 450e9, 50e9
"""Bytes per second and direction of a GPU: NVLink of an H100, and a 400 Gbit/s network card for each GPU."""
UNET_PARAMETERS = 36e6
"""Of the DDPM of Ho et al. for CIFAR-10: 35.7 million."""


@dataclass(frozen=True)
class Stage:
    """hours on its GPUs, and bytes that each of them sends"""

    gpus: int
    hours: float
    sent: float


def overheads() -> dict[str, float]:
    rows = json.loads((RESULTS / "distributed-cpu.json").read_text())["rows"]
    return {row["work"]: max(1.0, row["two processes over one"]) for row in rows}


def parameters(architecture: str) -> int:
    with torch.device("meta"):
        model = build_model(architecture, DatasetInfo("", tuple("0123456789"), (3, 32, 32), (0.0,) * 3, (1.0,) * 3))
    return sum(p.numel() for p in model.parameters())


def planned(node: Node, gpus: int, hours: float, steps: int, weights: float, overhead: float) -> Stage:
    sent = steps * 2 * (gpus - 1) / gpus * 4 * weights
    speed = INSIDE if gpus <= NODE else BETWEEN
    return Stage(gpus, hours / gpus * (overhead if gpus > 1 else 1.0) + sent / speed / 3600, sent)


def simulate(count: int) -> dict[str, object]:
    """Stages in the order in which a run starts them, on `count` GPUs."""
    recipe = RECIPES[ROW]
    graph = stages(recipe, RunDir("nowhere"))
    hours, shares, after = stage_hours(recipe), divided(graph, count), levels(graph)
    (arm,) = recipe.arms
    training, generator = recipe.training(arm), recipe.generators["ddpm"]
    extra = overheads()
    kinds = {
        "labeller": ("training", recipe.labeller.schedule.steps, float(parameters(recipe.labeller.architecture))),
        "train": ("training", training.schedule.steps, float(parameters(training.architecture))),
        "fit": ("training", generator.steps, UNET_PARAMETERS),
        "sample": ("sampling", 0, 0.0),
        "label": ("labeling", 0, 0.0),
    }
    work = {}
    for node in graph:
        name, steps, weights = kinds.get(node.kind, ("", 0, 0.0))
        gpus = shares.get(node.name, 1)
        work[node.name] = planned(node, gpus, hours.get(node.name, 0.0), steps, weights, extra.get(name, 1.0))
    ends = _schedule(graph, work, after, count)
    last = max(ends.values())
    busy = sum(stage.gpus * stage.hours for stage in work.values())
    path: dict[str, float] = {}
    for node in graph:
        path[node.name] = work[node.name].hours + max((path[need] for need in node.needs), default=0.0)
    sent = sum(stage.gpus * stage.sent for stage in work.values())
    trained = work[f"train {arm}-0"]
    exchange = trained.sent / (INSIDE if trained.gpus <= NODE else BETWEEN) / 3600
    return {
        "GPUs": count,
        "hours": round(last, 1),
        "critical path": round(max(path.values()), 1),
        "idle %": round(100 * (1 - busy / count / last), 1),
        "sent TB": round(sent / 1e12, 1),
        "GPUs of a training": trained.gpus,
        "images a GPU and step": training.schedule.batch_size // trained.gpus,
        "exchange % of a training": round(100 * exchange / trained.hours, 1),
        "speedup": round(sum(hours.values()) / last, 1),
    }


def _schedule(graph: list[Node], work: dict[str, Stage], after: dict[str, int], count: int) -> dict[str, float]:
    """The hour at which each stage ends: the ready one that most depends on starts when enough GPUs are free."""
    ends: dict[str, float] = {}
    running: dict[str, float] = {}
    now, todo = 0.0, list(graph)
    while todo or running:
        for node in sorted(todo, key=lambda node: -after[node.name]):
            free = count - sum(work[name].gpus for name in running)
            if all(need in ends for need in node.needs) and work[node.name].gpus <= free:
                running[node.name] = now + work[node.name].hours
                todo.remove(node)
        first = min(running, key=lambda name: running[name])
        now = ends[first] = running.pop(first)
    return ends


def main() -> None:
    rows = [simulate(count) for count in (1, 8, 64)]
    record("cluster", "paper", rows)


if __name__ == "__main__":
    main()
