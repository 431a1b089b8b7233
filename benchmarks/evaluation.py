"""AutoAttack beside the bare passes it needs, and beside its authors' own package.

    python benchmarks/evaluation.py [--images 64] [--rounds 3]

Attacks run alone on images that nothing breaks (RADIUS), so that every pass is wanted. `overhead`
is the whole attack over the same numbers of forward passes and gradients of the model as it was given, in the same
round; below 1 where the prepared copy is faster than the model. `against pyautoattack` is the authors' time over ours
(0.2.0, extra `oracles`), whole cascade and each attack, interleaved; medians of rounds, CPU seconds on one thread.
Aims: overhead at most 1.1; the whole cascade at least 1.4 times as fast.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import cast

import torch
from timing import device, record
from torch import nn

from robustgen.attacks import MultiTargeted, Square
from robustgen.evaluation.cascade import evaluate
from robustgen.evaluation.suites import SUITES, autoattack
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.modes import batch_invariant
from robustgen.randomness import rng_for
from robustgen.threat import ThreatModel

RADIUS = 1e-6
"""So small that no image falls, not even of an untrained network: every pass is wanted."""
QUERIES, TARGETS = 500, 2
"""Of Square, and of APGD-T and FAB-T, in both tools: the rest is alike, so a part tells the ratio."""
WEIGHTS = {"apgd-ce": 1.0, "apgd-t": 9 / TARGETS, "fab-t": 9 / TARGETS, "square": 5000 / QUERIES}
"""What the whole has of the measured parts."""


def network(architecture: str, shape: tuple[int, int, int], where: str) -> nn.Module:
    """Untrained, but with logits that differ, and batch norms that have seen data."""
    channels = shape[0]
    info = DatasetInfo("bench", tuple("0123456789"), shape, (0.5,) * channels, (0.25,) * channels)
    model = build_model(architecture, info, rng_for(0))
    nn.init.normal_(model.logits.weight, std=1.0, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr,arg-type]
    model.train()(torch.rand(64, *shape, generator=torch.Generator().manual_seed(1)))
    return model.eval().requires_grad_(False).to(where)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds where there is no GPU: other jobs share the machine."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    began = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began


def measure(architecture: str, shape: tuple[int, int, int], norm: str, count: int, rounds: int, where: str):
    model = network(architecture, shape, where)
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(2)).to(where)
    labels = model(images).argmax(1)
    threat = ThreatModel(norm, RADIUS)
    parts = autoattack(norm, 10)
    parts["square"] = Square(QUERIES)
    for name in ("apgd-t", "fab-t"):
        parts[name] = dataclasses.replace(cast(MultiTargeted, parts[name]), restarts=TARGETS, targets=TARGETS)
    ours: dict[str, Callable[[], object]] = {}
    theirs: dict[str, Callable[[], object]] = {}
    bare: dict[str, Callable[[], object]] = {}
    tool = None
    if importlib.util.find_spec("pyautoattack"):
        import pyautoattack

        tool = pyautoattack.AutoAttack(
            model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=threat.eps, device=where, seed=0
        )
        tool.square.n_queries = QUERIES
        tool.apgd_targeted.n_target_classes = tool.fab.n_target_classes = TARGETS
    for name, attack in parts.items():
        SUITES[f"bench-{name}"] = lambda norm, classes, name=name, attack=attack: {name: attack}
        passes = evaluate(model, images, labels, threat, f"bench-{name}").passes.sum(0)

        def floor(passes=passes) -> None:
            for _ in range(int(passes[0]) // count):
                batch_invariant(model, images)
            for _ in range(int(passes[1]) // count):
                with torch.enable_grad():
                    points = images.detach().requires_grad_()
                    torch.autograd.grad(model(points).sum(), points)

        ours[name] = lambda name=name: evaluate(model, images, labels, threat, f"bench-{name}", batch_size=count)
        bare[name] = floor
        if tool is not None:

            def reference(name=name) -> None:
                tool.attacks_to_run = [name]
                tool.run_standard_evaluation(images, labels, batch_size=count)

            theirs[name] = reference
    times: dict[str, dict[str, list[float]]] = {name: {"ours": [], "bare": [], "theirs": []} for name in parts}
    for _ in range(rounds):
        for name in parts:
            times[name]["ours"].append(seconds(ours[name]))
            times[name]["bare"].append(seconds(bare[name]))
            if theirs:
                times[name]["theirs"].append(seconds(theirs[name]))
    rows = []
    sums = {"ours": [0.0] * rounds, "bare": [0.0] * rounds, "theirs": [0.0] * rounds}
    for name, taken in times.items():
        weight = WEIGHTS[name]
        for who in sums:
            sums[who] = [a + weight * b for a, b in zip(sums[who], taken[who] or [0.0] * rounds, strict=True)]
        rows.append(_row(architecture, shape, norm, count, name, taken["ours"], taken["bare"], taken["theirs"]))
    theirs_in_all = sums["theirs"] if theirs else []
    rows.append(_row(architecture, shape, norm, count, "all", sums["ours"], sums["bare"], theirs_in_all))
    return rows


def _row(architecture, shape, norm, count, attack, ours, bare, theirs) -> dict[str, object]:
    row: dict[str, object] = {
        "network": architecture,
        "images": f"{count} of {'x'.join(map(str, shape))}",
        "norm": norm,
        "attack": attack,
        "seconds": round(statistics.median(ours), 2),
        "overhead": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 3),
    }
    if theirs:
        row["against pyautoattack"] = round(statistics.median(a / b for a, b in zip(theirs, ours, strict=True)), 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    where = device()
    cases = [("wrn-10-2", (1, 16, 16), "linf"), ("wrn-10-2", (3, 32, 32), "linf")]
    if where == "cuda":
        cases = [("wrn-28-10", (3, 32, 32), "linf"), ("wrn-28-10", (3, 32, 32), "l2")]
    rows = []
    for architecture, shape, norm in cases:
        count = asked.images if shape[1] < 32 or where == "cuda" else asked.images // 2
        rows += measure(architecture, shape, norm, count, asked.rounds, where)
    record("evaluation", where, rows)


if __name__ == "__main__":
    main()
