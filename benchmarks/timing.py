"""Timing of benchmarks: interleaved rounds, ratios, a record of the machine."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from robustgen.runtime.cpu import configure_cpu
from robustgen.storage.provenance import environment

RESULTS = Path(__file__).resolve().parent / "results"


def device() -> str:
    """The GPU if there is one. On a CPU one thread, as runs use it."""
    configure_cpu(1)
    return "cuda" if torch.cuda.is_available() else "cpu"


def _once(work: Callable[[], object], where: str) -> float:
    if where == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if where == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def interleaved(works: dict[str, Callable[[], object]], where: str, rounds: int = 9) -> dict[str, float]:
    """Median seconds of each, measured in turns so that a drifting machine treats all alike."""
    for work in works.values():
        work()
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(_once(work, where))
    return {name: statistics.median(times) for name, times in taken.items()}


def ratios(works: dict[str, Callable[[], object]], base: str, where: str, rounds: int = 9) -> dict[str, float]:
    """Median over rounds of each one's time over that of `base` in the same round."""
    for work in works.values():
        work()
        work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        times = {name: _once(work, where) for name, work in works.items()}
        for name, seconds in times.items():
            found[name].append(seconds / times[base])
    return {name: statistics.median(values) for name, values in found.items()}


def record(name: str, where: str, rows: list[dict[str, object]]) -> None:
    """Print the rows and keep them with the machine in `results/NAME-DEVICE.json`."""
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    machine = torch.cuda.get_device_name() if where == "cuda" else environment()["processor"]
    RESULTS.mkdir(exist_ok=True)
    content = {"device": machine, "environment": environment(), "rows": rows}
    path = RESULTS / f"{name}-{where}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"-> {path.relative_to(RESULTS.parent.parent)}")
