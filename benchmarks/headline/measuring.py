"""What the device does: rates of products and copies, and images a second of every step the plan may take.

A row that fails says so and the others go on; rows stand as they come, so that a measurement cut off keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from plan import Plan, network_name
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robustgen.attacks import APGD, Square
from robustgen.config.sampler import SamplerConfig
from robustgen.contracts import Batch
from robustgen.datasets.cifar import INFO
from robustgen.evaluation.prepare import prepared
from robustgen.generators import build_generator
from robustgen.losses.building import build_loss
from robustgen.models import build_model
from robustgen.modes import channels_last
from robustgen.objectives import cross_entropy
from robustgen.proxy.sampling import sample_batch
from robustgen.randomness import rng_for
from robustgen.stages.common import threat_model
from robustgen.training.batch_norms import use_own_batch_norms
from robustgen.training.classifier import parameter_groups
from robustgen.training.ema import EMA
from robustgen.training.low_precision import casting_once, in_precision

Row = dict[str, Any]
STEP_PASSES = 6
"""A TRADES step beside its attack, in forward passes: two passes with gradients of weights. Each of the attack's steps
is two more, forward and back to the images."""

ORDER = ("channels-last", "compiled", "eager", "graph")
"""What runs at once first; what is compiled for a minute later; a capture that fails may spoil what comes after it."""


def measure(plan: Plan, device: str, rows: list[Row], put_down: Callable[[], None]) -> None:
    """Fill `rows` with what is not there yet, the most wanted first; `put_down` is called after each."""
    done = {_key(row) for row in rows}
    for row, work in sorted(_works(plan, device), key=lambda each: ORDER.index(each[0].get("how", ORDER[0]))):
        if _key(row) in done:
            continue
        began = time.monotonic()
        try:
            row |= work()
        except Exception as error:  # whatever a compiler or a library says about one way of doing it
            row["failed"] = (str(error).splitlines() or [type(error).__name__])[0][:200]
        row["took_s"] = round(time.monotonic() - began, 1)
        rows.append(row)
        peak = next((r["TFLOP/s"] for r in rows if "TFLOP/s" in r), None)
        if "GFLOP an image" in row and "images/s" in row and peak:
            row["share of peak"] = round(row["images/s"] * row["GFLOP an image"] / 1e3 / peak, 4)
        put_down()
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        if device != "cpu":
            torch.compiler.reset()  # else networks compiled before count against the limit of those to come
            torch.cuda.empty_cache()


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("what", "network", "batch", "how", "evaluations", "precision"))


def _works(plan: Plan, device: str) -> Iterator[tuple[Row, Callable[[], Row]]]:
    yield {"what": "matrix product", "precision": "bfloat16"}, partial(_product, plan, device)
    yield {"what": "copy"}, partial(_copy, plan, device)
    solver, evaluations = plan.sampling.solver, plan.sampling.evaluations
    for how in plan.hows:
        for network in plan.networks if how == "channels-last" else plan.networks[:1]:
            row = {"what": "edm training", "network": network_name(*network), "batch": plan.fit_batch, "how": how}
            yield row, partial(_edm_training, plan, device, network, how)
        row = {"what": "edm sampling", "network": network_name(*plan.networks[0]), "how": how, "solver": solver}
        row |= {"evaluations": evaluations, "precision": "bfloat16", "batch": plan.fit_batch}
        yield row, partial(_edm_sampling, plan, device, solver, evaluations, how)
    row = {"what": "autoattack", "network": plan.trade.architecture, "batch": plan.chunk // 2, "precision": "float32"}
    yield row, partial(_attacks, plan, device)
    for architecture, batch, how in plan.candidates:
        row = {"what": "trades-10", "network": architecture, "batch": batch, "how": how, "precision": "bfloat16"}
        yield row, partial(_trades, plan, device, architecture, batch, how)
    row = {"what": "edm sampling", "network": network_name(*plan.networks[0]), "how": "channels-last"}
    row |= {"solver": "heun", "evaluations": 35, "precision": "bfloat16", "batch": plan.fit_batch}
    yield row, partial(_edm_sampling, plan, device, "heun", 35, "channels-last")


def _timed(work: Callable[[], object], device: str, repeats: int) -> float:
    """Median seconds, after two that are not counted."""

    def once() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for _ in range(2):
        once()
    return float(np.median([once() for _ in range(repeats)]))


@contextmanager
def _peak(device: str, row: Row) -> Iterator[None]:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    yield
    if device != "cpu":
        row["GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)


def _product(plan: Plan, device: str) -> Row:
    a, b = (rng_for(n, "product", device=device).normal((plan.size, plan.size)).bfloat16() for n in range(2))
    seconds = _timed(lambda: a @ b, device, 2 * plan.repeats)
    return {"size": plan.size, "TFLOP/s": round(2 * plan.size**3 / seconds / 1e12, 4)}


def _copy(plan: Plan, device: str) -> Row:
    source = torch.ones(plan.copy_mib * 2**20 // 4, device=device)
    into = torch.empty_like(source)
    seconds = _timed(lambda: into.copy_(source), device, 2 * plan.repeats)
    return {"MiB": plan.copy_mib, "GB/s, read and written": round(2 * source.nbytes / seconds / 1e9, 1)}


def _forward_gflop(model: nn.Module, *inputs: torch.Tensor) -> float:
    """Of one row."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops() / len(inputs[0]) / 1e9


def _laid_out(model: nn.Module, how: str) -> nn.Module:
    return model if how == "eager" else channels_last(model)


def _trades(plan: Plan, device: str, architecture: str, batch: int, how: str) -> Row:
    """A step as `train_classifier` makes it, on images that stay: attack, loss, gradients, optimiser, average."""
    settings, row = plan.trade, Row()
    model = _laid_out(build_model(architecture, INFO, rng_for(0)), how).to(device).train()
    rng = rng_for(0, "measure", device=device)
    images = rng.uniform((batch, *INFO.shape))
    if how != "eager":
        images = images.contiguous(memory_format=torch.channels_last)
    classes = len(INFO.classes)
    targets = torch.full((batch, classes), 1 / classes, device=device)
    given = Batch(images, targets, torch.arange(batch, device=device) >= batch // 3)
    row["GFLOP an image"] = round(
        (2 * settings.loss.attack.steps + STEP_PASSES) * _forward_gflop(model.eval(), images[:2]), 6
    )
    model.train()
    if how == "compiled":
        use_own_batch_norms(model)
    compiled: Any = torch.compile(model) if how == "compiled" else model
    network = in_precision(compiled, settings.precision)
    groups = parameter_groups(model, settings.weight_decay)
    optimizer = torch.optim.SGD(groups, lr=1e-4, momentum=0.9, nesterov=True)
    average = EMA(model)
    loss, threat = build_loss(settings), threat_model(plan.threat)
    place = rng_for(0, "step", device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=how != "graph")
        with casting_once(settings.precision, device):
            value = loss(network, given, threat, place)
        value.backward()
        optimizer.step()
        average.update(model, 0.995)

    with _peak(device, row):
        seconds = _timed(_captured(step) if how == "graph" else step, device, plan.repeats)
    return row | {"images/s": round(batch / seconds, 1), "step_ms": round(1e3 * seconds, 2)}


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as one CUDA graph: what is left when launching costs nothing. Its random numbers stay the same."""
    if not torch.cuda.is_available():
        raise ValueError("CUDA graphs need a GPU")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _edm(plan: Plan, device: str, network: tuple[int, tuple[int, ...], int]) -> Any:
    channels, multipliers, blocks = network
    settings = plan.fit.model_copy(update={"channels": channels, "multipliers": multipliers, "blocks": blocks})
    return channels_last(build_generator(settings, INFO, rng_for(0))).to(device)


def _edm_forward(model: Any, device: str) -> float:
    two = rng_for(0, "two", device=device)
    images, noise = two.normal((2, *INFO.shape)), two.normal((2,))
    return _forward_gflop(model.network.eval(), images, noise, torch.zeros(2, dtype=torch.int64, device=device))


def _edm_training(plan: Plan, device: str, network: tuple[int, tuple[int, ...], int], how: str) -> Row:
    """A step as `train_generator` makes it: forward, backward, Adam, average."""
    model, row = _edm(plan, device, network), Row()
    row["GFLOP an image"] = round(3 * _edm_forward(model, device), 6)
    model.train()
    if how == "compiled":
        model.network.compile()
    optimizer = model.training_spec(plan.fit, rng_for(0)).optimizations["network"].optimizer
    average = EMA(model)
    rng = rng_for(0, "measure", device=device)
    images = rng.uniform((plan.fit_batch, *INFO.shape)).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(plan.fit_batch, device=device) % len(INFO.classes)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            value = model.loss(images, labels, rng_for(0, "step", device=device))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        for parameter in model.parameters():
            torch.nan_to_num_(parameter.grad, nan=0.0, posinf=1e5, neginf=-1e5)
        optimizer.step()
        average.update(model, 0.999)

    with _peak(device, row):
        seconds = _timed(step, device, plan.repeats)
    return row | {"images/s": round(plan.fit_batch / seconds, 1), "step_ms": round(1e3 * seconds, 2)}


def _edm_sampling(plan: Plan, device: str, solver: str | None, evaluations: int | None, how: str) -> Row:
    """A batch as sampling draws it, to bytes on the host."""
    model, row = _edm(plan, device, plan.networks[0]), Row()
    row["GFLOP an image"] = round((evaluations or 1) * _edm_forward(model, device), 6)
    model.eval().configure_sampler(SamplerConfig(solver=solver, evaluations=evaluations))
    if how == "compiled":
        model.network.compile(dynamic=False)
    ids = np.arange(plan.fit_batch)

    def draw() -> None:
        with torch.autocast(device, torch.bfloat16):
            sample_batch(model, ids, 0, device)

    with _peak(device, row):
        seconds = _timed(draw, device, min(2, plan.repeats))
    return row | {"images/s": round(len(ids) / seconds, 1)}


def _attacks(plan: Plan, device: str) -> Row:
    """Passes a second as attacks make them: with gradients (APGD) and without (Square), and what that means."""
    count = plan.chunk // 2
    rng = rng_for(0, "measure", device=device)
    images = rng.uniform((count, *INFO.shape))
    model = prepared(build_model(plan.trade.architecture, INFO, rng_for(0)).to(device).eval(), images[:16])
    threat = threat_model(plan.threat)
    with torch.no_grad():
        labels = model(images).argmax(1)
    streams = rng.each(range(count))
    steps = 4 * plan.repeats
    ascent = _timed(lambda: APGD(steps, cross_entropy)(model, images, labels, threat, streams), device, 1)
    queries = _timed(lambda: Square(10 * steps)(model, images, labels, threat, streams), device, 1)
    with_gradient, without = count * steps / ascent, count * 10 * steps / queries
    seconds = (100 + 900 + 900) / with_gradient + 5000 / without
    return {
        "passes/s with gradient": round(with_gradient),
        "passes/s without": round(without),
        "estimated s for 1,000 images half of which stand": round(500 * seconds, 1),
    }
