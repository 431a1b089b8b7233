"""AutoAttack beside the bare passes it needs, and beside its authors' own package, in float32 and bfloat16.

    python benchmarks/evaluation.py [--rounds 3] [--model FOLDER --test FILE.npz --eps 8/255] [--images 16 64]

With a trained model (a folder made by `train`) and images (`images` (N, H, W, 3) uint8 and `labels` in an `.npz`),
the images are taken as they come: some are misclassified, some are broken, and most passes are made on the few that
remain. Each attack runs on those that reach it in the cascade. Without, an untrained network and a radius that breaks
no image (RADIUS). `overhead` is an attack's time over that of the same numbers of passes of the model as it was given,
`bfloat16` that with --precision bfloat16 over float32, `against pyautoattack` the authors' time (0.2.0, extra
`oracles`) over ours; CPU seconds on one thread, medians of interleaved rounds. Attacks are shortened alike in both
tools (QUERIES, TARGETS), and `all` weighs them as the whole suite does. The row `swift` compares the suite of that
name, at full length, with `all`.
Aims: overhead at most 1.05; 1.4 times as fast as the authors' package in float32, 3 times in bfloat16 where the
processor has AMX; `swift` 25 times as fast as `autoattack`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import statistics
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from timing import device, record
from torch import Tensor, nn

from robustgen import load_model
from robustgen.attacks import MultiTargeted, Square
from robustgen.contracts import Attack
from robustgen.evaluation.cascade import evaluate
from robustgen.evaluation.suites import SUITES, autoattack
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.randomness import rng_for
from robustgen.runtime.precision import has_bfloat16_units
from robustgen.threat import ThreatModel

RADIUS = 1e-6
"""So small that no image falls, not even of an untrained network: every pass is wanted."""
QUERIES, TARGETS = 250, 1
"""Of Square, and of APGD-T and FAB-T, in both tools."""
WEIGHTS = {"apgd-ce": 1.0, "apgd-t": 9 / TARGETS, "fab-t": 9 / TARGETS, "square": 5000 / QUERIES}
"""Length of an attack in the suite over that measured here."""


@dataclass(frozen=True)
class Case:
    """A model, and the images that each attack of the suite meets."""

    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    reached: dict[str, Tensor]
    """(N,) bool by attack: the images that no attack before it broke."""

    def of(self, attack: str) -> tuple[Tensor, Tensor]:
        return self.images[self.reached[attack]], self.labels[self.reached[attack]]


def untrained(architecture: str, shape: tuple[int, int, int], norm: str, count: int, where: str) -> Case:
    """A network with logits that differ, batch norms that have seen data, and images that nothing breaks."""
    channels = shape[0]
    info = DatasetInfo("bench", tuple("0123456789"), shape, (0.5,) * channels, (0.25,) * channels)
    model = build_model(architecture, info, rng_for(0))
    nn.init.normal_(model.logits.weight, std=1.0, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr,arg-type]
    model.train()(torch.rand(64, *shape, generator=torch.Generator().manual_seed(1)))
    model = model.eval().requires_grad_(False).to(where)
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(2)).to(where)
    name = f"untrained {architecture}, {count} images of {'x'.join(map(str, shape))}, {norm}"
    all_of_them = dict.fromkeys(WEIGHTS, torch.ones(count, dtype=torch.bool))
    return Case(name, model, images, model(images).argmax(1), ThreatModel(norm, RADIUS), all_of_them)


def as_they_come(folder: str, test: str, eps: float, count: int, where: str) -> Case:
    """The first images of a file, and which of them reach each attack."""
    model = load_model(folder).to(where)
    with np.load(test) as arrays:
        images = torch.from_numpy(arrays["images"][:count]).permute(0, 3, 1, 2).float().div(255).to(where)
        labels = torch.from_numpy(arrays["labels"][:count]).long().to(where)
    threat = ThreatModel("linf", eps)
    fell = evaluate(model, images, labels, threat, "bench-apgd-ce").robust
    robust = torch.from_numpy(evaluate(model, images, labels, threat, "swift").robust)
    reached = {"apgd-ce": torch.ones(count, dtype=torch.bool), "apgd-t": torch.from_numpy(fell)}
    name = f"{Path(folder).name}, first {count} images, {threat}, {int(robust.sum())} robust"
    return Case(name, model, images, labels, threat, {**reached, "fab-t": robust, "square": robust})


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds where there is no GPU: other jobs share the machine."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    began = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began


def shortened(norm: str, classes: int) -> dict[str, Attack]:
    parts = autoattack(norm, classes)
    parts["square"] = Square(QUERIES)
    for name in ("apgd-t", "fab-t"):
        parts[name] = dataclasses.replace(cast(MultiTargeted, parts[name]), restarts=TARGETS, targets=TARGETS)
    return parts


def ours(case: Case, attack: str, precision: str) -> Callable[[], object]:
    images, labels = case.of(attack)
    return lambda: evaluate(case.model, images, labels, case.threat, f"bench-{attack}", precision=precision)


def bare(case: Case, attack: str) -> Callable[[], object]:
    """As many passes of the model as it is, on as many images at a time as are attacked at the end."""
    images, labels = case.of(attack)
    verdicts = evaluate(case.model, images, labels, case.threat, f"bench-{attack}")
    some = images[: max(int(verdicts.robust.sum()), 1)]
    forward, gradients = (round(int(count) / len(some)) for count in verdicts.passes.sum(0))

    def work() -> None:
        with torch.no_grad():
            for _ in range(forward):
                case.model(some)
        for _ in range(gradients):
            points = some.detach().requires_grad_()
            torch.autograd.grad(case.model(points).sum(), points)

    return work


def theirs(case: Case, attack: str) -> Callable[[], object]:
    import pyautoattack

    images, labels = case.of(attack)
    norm = {"linf": "Linf", "l2": "L2"}[case.threat.norm]
    tool = pyautoattack.AutoAttack(case.model, norm=norm, eps=case.threat.eps, device=str(images.device), seed=0)
    tool.square.n_queries = QUERIES
    tool.apgd_targeted.n_target_classes = tool.fab.n_target_classes = TARGETS
    tool.attacks_to_run = [attack]

    def work() -> None:
        with redirect_stdout(io.StringIO()):
            tool.run_standard_evaluation(images.contiguous(), labels, batch_size=len(images))

    return work


def measure(case: Case, rounds: int) -> list[dict[str, object]]:
    """A row for each attack, and one for the whole suite."""
    rows: list[dict[str, object]] = []
    whole: dict[str, list[float]] = {}
    for attack, weight in WEIGHTS.items():
        works = {"float32": ours(case, attack, "float32"), "bare": bare(case, attack)}
        if has_bfloat16_units(case.images.device):
            works["bfloat16"] = ours(case, attack, "bfloat16")
        if importlib.util.find_spec("pyautoattack"):
            works["theirs"] = theirs(case, attack)
        taken = {who: [0.0] * rounds for who in works}
        for number in range(rounds):
            for who, work in works.items():
                taken[who][number] = seconds(work)
        rows.append(_row(case, attack, taken))
        for who, times in taken.items():
            whole[who] = [a + weight * b for a, b in zip(whole.get(who, [0.0] * rounds), times, strict=True)]
    rows.append(_row(case, "all", whole))
    return [*rows, _swift_row(case, whole, rounds)]


def _swift_row(case: Case, whole: dict[str, list[float]], rounds: int) -> dict[str, object]:
    """The suite `swift` against the whole of `autoattack`, of which `whole` has the seconds."""
    row: dict[str, object] = {"case": case.name, "attack": "swift"}
    for precision in [name for name in ("float32", "bfloat16") if name in whole]:
        work = partial(evaluate, case.model, case.images, case.labels, case.threat, "swift", precision=precision)
        taken = statistics.median(seconds(work) for _ in range(rounds))
        row[f"seconds in {precision}"] = round(taken, 2)
        for other in dict.fromkeys(("float32", precision)):
            row[f"autoattack in {other} over swift in {precision}"] = round(statistics.median(whole[other]) / taken, 1)
    print(row, flush=True)
    return row


def _row(case: Case, attack: str, taken: dict[str, list[float]]) -> dict[str, object]:
    def ratio(one: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=True)), 2)

    row: dict[str, object] = {"case": case.name, "attack": attack}
    row["seconds in float32"] = round(statistics.median(taken["float32"]), 2)
    row["overhead"] = ratio("float32", "bare")
    if "bfloat16" in taken:
        row["bfloat16"] = ratio("float32", "bfloat16")
    if "theirs" in taken:
        row["against pyautoattack"] = ratio("theirs", "float32")
    if "bfloat16" in taken and "theirs" in taken:
        row["against pyautoattack in bfloat16"] = ratio("theirs", "bfloat16")
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder made by train")
    parser.add_argument("--test", help="an .npz with images (N, H, W, 3) uint8 and labels (N,)")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--images", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    where = device()
    for attack in WEIGHTS:
        SUITES[f"bench-{attack}"] = lambda norm, classes, attack=attack: {attack: shortened(norm, classes)[attack]}
    if options.model:
        eps = ThreatModel.parse(f"linf:{options.eps}").eps
        cases = [as_they_come(options.model, options.test, eps, count, where) for count in options.images]
    elif where == "cuda":
        cases = [untrained("wrn-28-10", (3, 32, 32), norm, 64, where) for norm in ("linf", "l2")]
    else:
        cases = [untrained("wrn-10-2", (1, 16, 16), "linf", 64, where)]
        cases += [untrained("wrn-10-2", (3, 32, 32), "linf", 32, where)]
    rows = [row for case in cases for row in measure(case, options.rounds)]
    record("evaluation-as-they-come" if options.model else "evaluation", where, rows)


if __name__ == "__main__":
    main()
