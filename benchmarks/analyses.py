"""What the analyses of generated images cost, and what they find on the digits.

    python benchmarks/analyses.py [runs/digits/proxies/edm ...] [--seeds 2]

Transport: seconds for exact transport of 1,000 onto 1,000 images of 3x32x32 (aim: under 10 s a class), the part of it
that solves, and POT's network simplex on the same costs. ARC: seconds and value on the digits recipe's splits, in linf,
for each proxy set and seed (aim: 2 to 3 minutes); without a proxy set, for 2,000 images of a Gaussian fitted here.
The conditional Wasserstein distance of the same images beside it. CPU seconds on one thread: others share the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from timing import device, record

from robustgen.analysis import ARC, Transport
from robustgen.analysis.contracts import ProxySubject
from robustgen.analysis.subjects import pairwise_distances
from robustgen.analysis.transport import exact, sinkhorn
from robustgen.datasets import Splits, load_splits
from robustgen.generators.gaussian import Gaussian
from robustgen.proxy.sampling import sample_batch
from robustgen.proxy.store import ProxySet
from robustgen.recipes import RECIPES
from robustgen.threat import ThreatModel

Result = TypeVar("Result")


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    began = clock()
    result = work()
    return round(clock() - began, 2), result


def transport_row(norm: str, where: str, count: int = 1000) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    sides = [torch.rand(count, 3072, generator=generator).to(where) for _ in range(2)]
    apart, cost = timed(lambda: pairwise_distances(*sides, norm).cpu().double().numpy())
    solving, found = timed(lambda: exact(cost))
    blurring, ends = timed(lambda: sinkhorn(cost))
    row: dict[str, object] = {"images": f"2 x {count}", "norm": norm, "distances s": apart, "solving s": solving}
    try:
        import ot
    except ImportError:
        return row
    weights = np.full(count, 1 / count)
    seconds, theirs = timed(lambda: ot.emd2(weights, weights, cost, numItermax=10_000_000))
    assert abs(theirs - found.upper) < 1e-6 * found.upper
    return {**row, "POT s": seconds, "sinkhorn s": blurring, "sinkhorn within": f"{ends.upper / ends.lower - 1:.1e}"}


def subject_of(splits: Splits, images: torch.Tensor, labels: torch.Tensor, norm: str, eps: float) -> ProxySubject:
    train = torch.cat([splits.train.pixels(), splits.validation.pixels()])
    train_labels = torch.cat([splits.train.targets(), splits.validation.targets()])
    test = splits.test
    return ProxySubject(
        test.info, ThreatModel(norm, eps), train, train_labels, test.pixels(), test.targets(), images, labels
    )


def generated_images(folders: list[Path], splits: Splits) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    found = {}
    for folder in folders:
        proxies = ProxySet(folder)
        pixels = torch.from_numpy(proxies.images(np.arange(len(proxies)))).permute(0, 3, 1, 2)
        found[folder.name] = pixels, torch.from_numpy(proxies.column("label").astype(np.int64))
    if not found:
        info = splits.train.info
        gaussian = Gaussian(info.shape, len(info.classes))
        gaussian.fit(splits.train)
        ids = np.arange(2000)
        pixels = sample_batch(gaussian, ids, 0, "cpu").permute(0, 3, 1, 2)
        found["gaussian, fitted here"] = pixels, torch.from_numpy(ids % len(info.classes))
    return found


def digits_rows(folders: list[Path], seeds: int) -> list[dict[str, object]]:
    splits = load_splits(RECIPES["digits"].data)
    rows: list[dict[str, object]] = []
    for name, (images, labels) in generated_images(folders, splits).items():
        subject = subject_of(splits, images, labels, "linf", 0.2)
        for seed in range(seeds):
            seconds, found = timed(lambda subject=subject, seed=seed: ARC()(subject, seed=seed))  # type: ignore[misc]
            low, high = found.arc_interval
            rows.append(
                {
                    "generator": name,
                    "seed": seed,
                    "arc s": seconds,
                    "radii": found.reached,
                    "arc": round(found.arc, 5),
                    "95 %": f"{low:.5f} to {high:.5f}",
                    "clean %": round(100 * found.discrimination_accuracy(0).value, 1),
                    "at least apart": round(found.distance_bound, 4),
                }
            )
        seconds, distance = timed(lambda subject=subject: Transport()(subject))  # type: ignore[misc]
        rows.append(
            {
                "generator": name,
                "transport s": seconds,
                "cwd": round(distance.cwd, 4),
                "among real, half": round(distance.bias, 4),
                "excess": round(distance.excess, 4),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxies", nargs="*", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    where = device()
    rows = [transport_row(norm, where) for norm in ("linf", "l2")]
    record("analyses", where, rows + digits_rows(args.proxies, args.seeds))


if __name__ == "__main__":
    main()
