"""Measured rates of a device: products, copies, training steps, sampling, passes of attacks. A JSON with the machine.

    python benchmarks/rates.py --into rates.json [--seconds 60] [--tiny]

trades-10     a step as `train_classifier` makes it, on images that stay: attack, loss, gradients, SGD, EMA. `how`:
              channels-last, compiled, or eager (NCHW), which in float32 is the step of the public PyTorch ports without
              their loader. `share` is its rate in operations over that of the matrix product
edm sampling  a batch by ipndm with 10 evaluations; `over passes` is its time over that of 10 bare evaluations
attack        passes a second: with gradient (Auto-PGD) and without (Square)

The most wanted rows come first, and no row begins after `--seconds`. A row that fails says why, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timing import device, interleaved
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robustgen.attacks import APGD, Square
from robustgen.config.generators import EDMConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.config.training import ScheduleConfig, TrainingConfig
from robustgen.contracts import Batch
from robustgen.evaluation.prepare import prepared
from robustgen.generators import build_generator
from robustgen.images import DatasetInfo
from robustgen.losses.building import build_loss
from robustgen.models import build_model
from robustgen.modes import channels_last
from robustgen.objectives import cross_entropy
from robustgen.planning.costs import passes
from robustgen.randomness import rng_for
from robustgen.storage.provenance import environment
from robustgen.threat import ThreatModel
from robustgen.training.batch_norms import use_own_batch_norms
from robustgen.training.classifier import parameter_groups
from robustgen.training.ema import EMA
from robustgen.training.low_precision import casting_once, in_precision

Row = dict[str, Any]
THREAT = ThreatModel("linf", 8 / 255)
EVALUATIONS = 10


class Sizes(NamedTuple):
    """Side of images and matrix, MiB of the copy, steps timed, networks with batch, form and precision, U-Net."""

    side: int
    matrix: int
    copy_mib: int
    repeats: int
    steps: tuple[tuple[str, int, str, str], ...]
    unet: EDMConfig
    attacked: tuple[str, int]

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("rates", tuple("0123456789"), (3, self.side, self.side), (0.5,) * 3, (0.25,) * 3)


UNET: dict[str, Any] = {"augment": 0.0, "dropout": 0.1, "total_images": 1024, "batch_size": 1024}
FULL = Sizes(
    32, 8192, 1024, 5,
    (
        ("preact-resnet-18", 1024, "channels-last", "bfloat16"), ("wrn-28-10", 1024, "channels-last", "bfloat16"),
        ("preact-resnet-18", 1024, "eager", "float32"), ("preact-resnet-18", 1024, "eager", "bfloat16"),
        ("preact-resnet-18", 1024, "compiled", "bfloat16"), ("wrn-28-10", 1024, "eager", "bfloat16"),
        ("wrn-28-10", 1024, "compiled", "bfloat16"),
    ),
    EDMConfig(channels=64, multipliers=(1, 2, 2), blocks=2, **UNET),
    ("preact-resnet-18", 256),
)  # fmt: skip
TINY = Sizes(
    8, 64, 1, 1,
    (("wrn-10-1", 8, "channels-last", "bfloat16"), ("wrn-10-1", 8, "eager", "float32")),
    EDMConfig(**{**UNET, "batch_size": 16}, channels=8, multipliers=(1, 1), blocks=1, attention=()),
    ("wrn-10-1", 16),
)  # fmt: skip


def works(sizes: Sizes, where: str) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """Descriptions of the rows and what measures them, the most wanted first."""
    yield {"what": "matrix product", "size": sizes.matrix}, partial(product, sizes, where)
    yield {"what": "copy", "MiB": sizes.copy_mib}, partial(copy, sizes, where)
    names = ("network", "batch", "how", "precision")
    steps = [({"what": "trades-10", **dict(zip(names, step, strict=True))}, step) for step in sizes.steps]
    first, later = steps[:2], steps[2:]
    yield from ((row, partial(trades, sizes, where, *step)) for row, step in first)
    unet = {"channels": sizes.unet.channels, "batch": sizes.unet.batch_size, "precision": "bfloat16"}
    yield {"what": "edm step", **unet}, partial(edm_step, sizes, where)
    yield {"what": "edm sampling", **unet, "evaluations": EVALUATIONS}, partial(edm_sampling, sizes, where)
    for precision in ("float32", "bfloat16"):
        row = {"what": "attack", "network": sizes.attacked[0], "batch": sizes.attacked[1], "precision": precision}
        yield row, partial(attack, sizes, where, precision)
    yield from ((row, partial(trades, sizes, where, *step)) for row, step in later)


def measure(sizes: Sizes, where: str, seconds: float) -> list[Row]:
    """Rows of rates, until `seconds` have passed."""
    began, rows = time.monotonic(), list[Row]()
    for row, work in works(sizes, where):
        if time.monotonic() - began > seconds:
            row["left out"] = f"{seconds:g} s had passed"
        else:
            try:
                row |= work()
            except Exception as error:  # whatever a compiler or a library says about one way of doing it
                row["failed"] = (str(error).splitlines() or [type(error).__name__])[0][:200]
        peak = next((one["TFLOP/s"] for one in rows if "TFLOP/s" in one), None)
        if peak and "images/s" in row and "GFLOP an image" in row:
            row["share"] = round(row["images/s"] * row["GFLOP an image"] / 1e3 / peak, 4)
        rows.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        if where != "cpu":
            torch.compiler.reset()
            torch.cuda.empty_cache()
    return rows


def seconds_of(work: Callable[[], object], where: str, rounds: int) -> float:
    return max(interleaved({"work": work}, where, rounds)["work"], 1e-9)


def rate(cost: float, count: int, seconds: float) -> Row:
    return {"GFLOP an image": round(cost, 4), "images/s": round(count / seconds, 1), "ms": round(1e3 * seconds, 2)}


def gflop(model: nn.Module, *inputs: torch.Tensor) -> float:
    """Of a forward pass of one row, as counted by torch."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops() / len(inputs[0]) / 1e9


def product(sizes: Sizes, where: str) -> Row:
    a = torch.randn(sizes.matrix, sizes.matrix, device=where).bfloat16()
    return {"TFLOP/s": round(2e-12 * sizes.matrix**3 / seconds_of(lambda: a @ a, where, 4 * sizes.repeats), 4)}


def copy(sizes: Sizes, where: str) -> Row:
    source, into = torch.ones(2, sizes.copy_mib * 2**18, device=where)
    return {"GB/s": round(2e-9 * source.nbytes / seconds_of(lambda: into.copy_(source), where, 4 * sizes.repeats), 1)}


def trades(sizes: Sizes, where: str, architecture: str, batch: int, how: str, precision: str) -> Row:
    schedule = ScheduleConfig(total_images=batch, batch_size=batch, peak_lr=1e-4)
    settings = TrainingConfig(architecture=architecture, schedule=schedule, precision=precision)  # type: ignore[arg-type]
    model = build_model(architecture, sizes.info, rng_for(0))
    model = (model if how == "eager" else channels_last(model)).to(where)
    images = torch.rand(batch, *sizes.info.shape, device=where)
    images = images if how == "eager" else images.contiguous(memory_format=torch.channels_last)
    cost = (passes(settings) or 0.0) * gflop(model.eval(), images[:2])
    model.train()
    if how == "compiled":
        use_own_batch_norms(model)
    network: Any = torch.compile(model) if how == "compiled" else model
    given = Batch(
        images, torch.full((batch, 10), 0.1, device=where), torch.zeros(batch, dtype=torch.bool, device=where)
    )
    optimizer = torch.optim.SGD(parameter_groups(model, 5e-4), lr=1e-4, momentum=0.9, nesterov=True)
    ema, loss, place = EMA(model), build_loss(settings), rng_for(0, "step", device=where)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with casting_once(settings.precision, where):
            value = loss(in_precision(network, settings.precision), given, THREAT, place)
        value.backward()
        optimizer.step()
        ema.update(model, 0.995)

    return rate(cost, batch, seconds_of(step, where, sizes.repeats))


def unet_on(sizes: Sizes, where: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The model in training mode, noisy images, classes."""
    model: Any = channels_last(build_generator(sizes.unet, sizes.info, rng_for(0))).to(where)
    images = torch.rand(sizes.unet.batch_size, 3, sizes.side, sizes.side, device=where)
    labels = torch.arange(len(images), device=where) % 10
    return model, images.contiguous(memory_format=torch.channels_last), labels


def edm_step(sizes: Sizes, where: str) -> Row:
    model, images, labels = unet_on(sizes, where)
    model.train()
    optimizer = model.training_spec(sizes.unet, rng_for(0)).optimizations["network"].optimizer
    ema = EMA(model)

    def step() -> None:
        with torch.autocast(where, torch.bfloat16):
            value = model.loss(images, labels, rng_for(0, "step", device=where))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        ema.update(model, 0.999)

    cost = (sizes.unet.training_flops(sizes.side) or 0.0) / 1e9
    return rate(cost, len(images), seconds_of(step, where, sizes.repeats))


def edm_sampling(sizes: Sizes, where: str) -> Row:
    model, images, labels = unet_on(sizes, where)
    model.eval().configure_sampler(SamplerConfig(solver="ipndm", evaluations=EVALUATIONS))
    streams, sigma = rng_for(0, "sample", device=where).each(range(len(labels))), torch.ones(len(labels), device=where)
    with torch.no_grad(), torch.autocast(where, torch.bfloat16):
        drawn = seconds_of(lambda: model.sample(labels, streams), where, min(3, sizes.repeats))
        bare = EVALUATIONS * seconds_of(lambda: model.denoise(images, sigma, labels), where, min(3, sizes.repeats))
    return {"images/s": round(len(labels) / drawn, 1), "over passes": round(drawn / bare, 3)}


def attack(sizes: Sizes, where: str, precision: str) -> Row:
    architecture, count = sizes.attacked
    images = torch.rand(count, 3, sizes.side, sizes.side, device=where)
    model = prepared(build_model(architecture, sizes.info, rng_for(0)).to(where).eval(), images[:16])
    with torch.no_grad():
        labels = model(images).argmax(1)
    streams, steps = rng_for(0, "attack", device=where).each(range(count)), 4 * sizes.repeats
    still = ThreatModel("linf", 1e-6)  # so small that no image is broken: every pass is made
    with torch.autocast(where, torch.bfloat16, enabled=precision == "bfloat16"):
        ascent = seconds_of(lambda: APGD(steps, cross_entropy)(model, images, labels, still, streams), where, 1)
        queries = seconds_of(lambda: Square(10 * steps)(model, images, labels, still, streams), where, 1)
    made = count * steps
    return {"passes/s with gradient": round(made / ascent, 1), "passes/s without": round(10 * made / queries, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--seconds", type=float, default=60.0, help="no row begins after so many  [%(default)s]")
    parser.add_argument("--tiny", action="store_true", help="networks of a few thousand weights, to test the program")
    asked = parser.parse_args()
    where = device()
    rows = measure(TINY if asked.tiny else FULL, where, asked.seconds)
    name = torch.cuda.get_device_name() if where == "cuda" else environment()["processor"]
    asked.into.write_text(json.dumps({"device": name, "environment": environment(), "rows": rows}, indent=2) + "\n")
    print(f"-> {asked.into}")


if __name__ == "__main__":
    main()
