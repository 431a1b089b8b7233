"""Training steps, sampling and labeling in bfloat16 next to float32, and next to the passes that they need.

    python benchmarks/precision.py [NAME ...]      only rows whose name contains one of these; the others are kept

A step is that of the training loops, with batch, augmentation, attack, optimizer and EMA. Columns:

bf16 / f32     time of float32 over that of bfloat16; `ratio of convolutions` is that of the step's convolutions alone:
               each call of PyTorch's convolution that the step made, with its shapes, repeated on its own. Where they
               are nearly all of the work, a step cannot gain more than they do.
convolutions % their share of the time of the bfloat16 step; the rest are normalization, activations, casts, attack,
               optimizer, EMA and augmentation
GFLOP/s        of the step in bfloat16: operations of its convolutions over its whole time
% of peak      the same over the fastest convolution of the step
over passes    time of a step over bare passes in the same precision: as many forward and backward passes of the network
               as the step makes, without data, attack, optimizer and EMA

Medians over interleaved rounds on one thread, ratios within a round. On a CPU they are CPU seconds, which other
programs on the machine lengthen less than they do wall-clock time.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timing import RESULTS, device, record
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from robustgen.augment import AUGMENTATIONS
from robustgen.config.generators import EDMConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.config.training import ScheduleConfig, TrainingConfig
from robustgen.contracts import Loss
from robustgen.generators import build_generator
from robustgen.images import DatasetInfo, ImageSet
from robustgen.losses import TRADES, Adversarial
from robustgen.losses.nfgsm import NFGSM
from robustgen.models import build_model
from robustgen.modes import channels_last, frozen_bn_stats
from robustgen.proxy.labeling import probabilities_of
from robustgen.proxy.sampling import sample_batch
from robustgen.randomness import rng_for
from robustgen.runtime.precision import autocast, has_bfloat16_units
from robustgen.threat import ThreatModel
from robustgen.training.classifier import ClassifierState, _TrainStep
from robustgen.training.generator import GeneratorState
from robustgen.training.generator import _TrainStep as GeneratorStep
from robustgen.training.low_precision import casting_once, in_precision
from robustgen.training.mixing import Mixture

BOTH = ("float32", "bfloat16")
SHAPE = (3, 32, 32)
INFO = DatasetInfo("bench", tuple("0123456789"), SHAPE, (0.5,) * 3, (0.25,) * 3)
Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A row: its name, and how to make the work and its bare passes in a precision."""

    name: str
    batch: int
    rounds: int
    work: Callable[[str], Work]
    passes: Callable[[str], Work] | None = None


def images() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (2048, 32, 32, 3), dtype=np.uint8)
    return ImageSet(pixels, np.arange(2048) % 10, INFO)


def classifier(architecture: str, where: str) -> nn.Module:
    return channels_last(build_model(architecture, INFO, rng_for(0))).to(where).train()


def training(architecture: str, loss: Loss, batch: int, where: str, precision: str) -> Work:
    settings = TrainingConfig(
        architecture=architecture, schedule=ScheduleConfig(total_images=batch * 10**6, batch_size=batch, peak_lr=1e-4),
        precision=precision,
    )  # fmt: skip
    mixture = Mixture(images(), batch_size=batch, augment=AUGMENTATIONS["crop-flip"], device=where)
    state = ClassifierState.initial(classifier(architecture, where), settings)
    step = _TrainStep(state, loss, ThreatModel("linf", 8 / 255), settings, mixture, Path("precision.json"))
    done = iter(range(10**6))

    def one() -> None:
        t = next(done)
        step(t, mixture.batch(t), rng_for(0, "train", t, device=where))

    return one


def bare(architecture: str, attack: int, clean: bool, batch: int, where: str, precision: str) -> Work:
    """`attack` passes with gradients of the images, and one or (with `clean`) two with gradients of the weights."""
    model = classifier(architecture, where)
    network = in_precision(model, precision)
    inputs = torch.rand(batch, *SHAPE, device=where).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.int64, device=where)

    def one() -> None:
        with casting_once(precision, where):
            with frozen_bn_stats(model):
                total = F.cross_entropy(network(inputs), labels) if clean else torch.zeros((), device=where)
                for _ in range(attack):
                    points = inputs.detach().requires_grad_()
                    torch.autograd.grad(F.cross_entropy(network(points), labels), points)
            total = total + F.cross_entropy(network(inputs), labels)
        total.backward()
        model.zero_grad(set_to_none=True)

    return one


def edm(channels: int, batch: int, where: str) -> tuple[nn.Module, EDMConfig]:
    config = EDMConfig(channels=channels, blocks=2, batch_size=batch, total_images=batch * 10**6, warmup_images=0)
    return channels_last(build_generator(config, INFO, rng_for(0))).to(where), config


def fitting(channels: int, batch: int, where: str, precision: str) -> Work:
    model, config = edm(channels, batch, where)
    step = GeneratorStep(GeneratorState.initial(model, config, 0), images(), config, where, precision)
    done = iter(range(10**6))

    def one() -> None:
        t = next(done)
        step(t, rng_for(0, "fit", t, device=where))

    return one


def bare_unet(channels: int, batch: int, where: str, precision: str) -> Work:
    model: Any = edm(channels, batch, where)[0].train()
    inputs = torch.rand(batch, *SHAPE, device=where).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=where) % 10
    augmentation, noise = torch.zeros(batch, 9, device=where), torch.zeros(batch, device=where)

    def one() -> None:
        with autocast(precision, where):
            value = model.network(inputs, noise, labels, augmentation).float().square().mean()
        value.backward()
        model.zero_grad(set_to_none=True)

    return one


def sampling(channels: int, batch: int, where: str, precision: str) -> Work:
    model: Any = edm(channels, batch, where)[0].eval()
    model.configure_sampler(SamplerConfig(solver="ipndm", evaluations=3))
    return lambda: sample_batch(model, np.arange(batch), 0, where, precision)


def labeling(architecture: str, batch: int, where: str, precision: str) -> Work:
    model, inputs = classifier(architecture, where).eval(), torch.rand(batch, *SHAPE, device=where)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    return lambda: probabilities_of(model, inputs, precision)


def cases(where: str) -> list[Case]:
    def nfgsm(architecture: str, batch: int, rounds: int) -> Case:
        return Case(
            f"N-FGSM step, {architecture}", batch, rounds,
            lambda precision: training(architecture, Adversarial(attack=NFGSM()), batch, where, precision),
            lambda precision: bare(architecture, 1, False, batch, where, precision),
        )  # fmt: skip

    def trades(architecture: str, batch: int, rounds: int) -> Case:
        return Case(
            f"TRADES-10 step, {architecture}", batch, rounds,
            lambda precision: training(architecture, TRADES(), batch, where, precision),
            lambda precision: bare(architecture, 10, True, batch, where, precision),
        )  # fmt: skip

    def unet(channels: int, batch: int, rounds: int) -> Case:
        return Case(
            f"EDM step, {channels} channels, 2 blocks", batch, rounds,
            lambda precision: fitting(channels, batch, where, precision),
            lambda precision: bare_unet(channels, batch, where, precision),
        )  # fmt: skip

    scale = 4 if where == "cuda" else 1
    return [
        nfgsm("wrn-16-2", 128 * scale, 5),
        trades("wrn-16-2", 128 * scale, 3),
        nfgsm("preact-resnet-18", 128 * scale, 3),
        nfgsm("wrn-28-10", 32 * scale, 3),
        trades("wrn-28-10", 8 * scale, 2),
        unet(32, 32 * scale, 5),
        unet(64, 32 * scale, 5),
        Case("sampling, EDM, 64 channels, 3 evaluations", 64, 5, lambda p: sampling(64, 64, where, p)),
        Case("labeling, wrn-16-2", 64 * scale, 5, lambda p: labeling("wrn-16-2", 64 * scale, where, p)),
    ]


class Convolutions(TorchDispatchMode):
    """Count the calls of convolutions, forward and backward, by what decides their time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[Any, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            key = [func]
            for value in args:
                tensor = isinstance(value, Tensor)
                key.append(("tensor", tuple(value.shape), value.dtype) if tensor else _frozen(value))
            self.calls[tuple(key)] += 1
        return func(*args, **(kwargs or {}))


def _frozen(value: Any) -> Any:
    return ("list", tuple(value)) if isinstance(value, list | tuple) else value


def replayed(key: tuple[Any, ...], where: str) -> Work:
    """A call of a convolution on random tensors of the same shapes and types."""
    func, *values = key
    arguments: list[Any] = []
    for value in values:
        if isinstance(value, tuple) and value[0] == "tensor":
            tensor = torch.randn(value[1], device=where).to(value[2])
            four = tensor.ndim == 4
            arguments.append(tensor.contiguous(memory_format=torch.channels_last) if four else tensor)
        else:
            arguments.append(list(value[1]) if isinstance(value, tuple) else value)

    def call() -> None:
        with torch.no_grad():
            func(*arguments)

    return call


def operations(key: tuple[Any, ...]) -> float:
    """Multiplications and additions of one call, from torch's own counter."""
    from torch.utils.flop_counter import flop_registry

    func, *values = key
    arguments = [v[1] if isinstance(v, tuple) else v for v in values]
    count = flop_registry[func.overloadpacket]
    if func is torch.ops.aten.convolution.default:
        outputs = _shape_after(*arguments[:2], *arguments[3:6])
        return float(count(*arguments, out_val=torch.empty(outputs, device="meta")))
    gradients = [torch.empty(shape, device="meta") for shape in (arguments[1], arguments[2])]
    return float(count(*arguments, out_val=gradients))


def _shape_after(images: Any, weight: Any, stride: Any, padding: Any, dilation: Any) -> tuple[int, ...]:
    sides = zip(images[2:], weight[2:], stride, padding, dilation, strict=True)
    return images[0], weight[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)


def seconds_of(work: Work, where: str) -> float:
    clock = time.perf_counter if where == "cuda" else time.process_time
    if where == "cuda":
        torch.cuda.synchronize()
    began = clock()
    work()
    if where == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def in_turns(works: dict[str, Work], rounds: int, where: str) -> dict[str, list[float]]:
    """Seconds of every work in every round, after a warm-up."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds_of(work, where))
    return taken


def ratio(taken: dict[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=True))


def convolutions_of(works: dict[str, Work], where: str) -> dict[str, dict[str, float]]:
    """Of a work in each precision: seconds of its convolutions alone, their operations, and the fastest one's rate."""
    found = {}
    for precision in BOTH:
        with Convolutions() as seen:
            works[precision]()
        seconds, total, peak = 0.0, 0.0, 0.0
        for key, count in seen.calls.items():
            call = replayed(key, where)
            call()
            each = min(seconds_of(call, where) for _ in range(2))
            work = operations(key)
            seconds, total, peak = seconds + count * each, total + count * work, max(peak, work / each)
        found[precision] = {"seconds": seconds, "operations": total, "peak": peak}
    return found


def measure(case: Case, where: str) -> dict[str, object]:
    works = {precision: case.work(precision) for precision in BOTH}
    alone = convolutions_of(works, where)
    bare_works = {f"{p} passes": case.passes(p) for p in BOTH} if case.passes else {}
    taken = in_turns({**works, **bare_works}, case.rounds, where)
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    low = alone["bfloat16"]
    rate = low["operations"] / seconds["bfloat16"]
    row: dict[str, object] = {
        "what": case.name,
        "batch": case.batch,
        "float32 images/s": float(f"{case.batch / seconds['float32']:.3g}"),
        "bfloat16 images/s": float(f"{case.batch / seconds['bfloat16']:.3g}"),
        "bf16 / f32": round(ratio(taken, "float32", "bfloat16"), 2),
        "ratio of convolutions": round(alone["float32"]["seconds"] / low["seconds"], 2),
        "convolutions %": round(100 * low["seconds"] / seconds["bfloat16"]),
        "GFLOP/s": round(rate / 1e9),
        "% of peak": round(100 * rate / low["peak"]),
    }
    for precision in BOTH if case.passes else ():
        row[f"{precision} over passes"] = round(ratio(taken, precision, f"{precision} passes"), 3)
    return row


def main() -> None:
    where = device()
    wanted = sys.argv[1:]
    path = RESULTS / f"precision-{where}.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {row["what"]: row for row in known}
    for case in cases(where):
        if wanted and not any(word in case.name for word in wanted):
            continue
        rows[case.name] = {**measure(case, where), "bfloat16 units": has_bfloat16_units(where)}
        record("precision", where, list(rows.values()))


if __name__ == "__main__":
    main()
