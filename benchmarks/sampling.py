"""Images a second of the generators, beside the bare network evaluations.

    python benchmarks/sampling.py

`ratio` is `sample_proxies` (per-image noise, solver, rounding, shards on disk) over the same number of network
evaluations on a batch that is already there, in the same round; aim: at most 1.1. A Gaussian has no network: there the
floor is torch's own normal noise, the matrix product with the factors, mean and rounding, without a store; what is
above it is per-image noise, order of classes, layout, digest and disk.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from timing import device, interleaved, ratios, record

from robustgen.config.generators import EDMConfig
from robustgen.generators import Diffusion, build_generator
from robustgen.generators.gaussian import Gaussian
from robustgen.generators.solvers import Sampler
from robustgen.images import DatasetInfo, ImageSet, to_bytes
from robustgen.modes import channels_last
from robustgen.proxy.sampling import sample_proxies
from robustgen.randomness import rng_for
from robustgen.stages.common import images_in_a_pass

DIGITS = DatasetInfo("digits", tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,))
CIFAR = DatasetInfo("cifar10", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3)


def _compare(sample, floor, count: int, where: str) -> dict[str, object]:
    works = {"floor": floor, "sample": sample}
    seconds = interleaved(works, where, 5)
    return {
        "images/s": round(count / seconds["sample"], 1),
        "floor images/s": round(count / seconds["floor"], 1),
        "ratio": round(ratios(works, "floor", where)["sample"], 3),
    }


def diffusion(info: DatasetInfo, settings: EDMConfig, solver: str, evaluations: int, where: str) -> dict[str, object]:
    model = build_generator(settings, info, rng_for(0))
    assert isinstance(model, Diffusion)
    channels_last(model).to(where).eval()
    model.sampler = Sampler(solver, evaluations)
    batch = images_in_a_pass(info.shape, where)
    folder = Path(tempfile.mkdtemp())

    def sample() -> None:
        shutil.rmtree(folder)
        sample_proxies(model, batch, folder, classes=info.classes, batch_size=batch, device=where)

    x = torch.randn(batch, *info.shape, device=where).contiguous(memory_format=torch.channels_last)
    sigma, labels = torch.ones(batch, device=where), torch.zeros(batch, dtype=torch.int64, device=where)

    @torch.no_grad()
    def floor() -> None:
        for _ in range(evaluations):
            model.network(x, sigma, labels)

    row = {"generator": "edm", "images": "x".join(map(str, info.shape)), "solver": solver, "evaluations": evaluations}
    found = row | _compare(sample, floor, batch, where)
    shutil.rmtree(folder)
    return found


def gaussian(info: DatasetInfo, where: str) -> dict[str, object]:
    channels, height, width = info.shape
    rng = np.random.default_rng(0)
    images = ImageSet(rng.integers(0, 256, (1000, height, width, channels), dtype=np.uint8), np.arange(1000) % 10, info)
    model = Gaussian(info.shape, 10)
    model.fit(images)
    model.to(where)
    count, folder = 5000, Path(tempfile.mkdtemp())

    def sample() -> None:
        shutil.rmtree(folder)
        sample_proxies(model, count, folder, classes=info.classes, batch_size=1000, device=where)

    def floor() -> None:
        for label in range(10):
            noise = torch.randn(count // 10, model.rank, device=where)
            to_bytes(torch.addmm(model.mean[label], noise, model.factor[label]))

    row = {"generator": "gaussian", "images": "x".join(map(str, info.shape)), "solver": "", "evaluations": 0}
    found = row | _compare(sample, floor, count, where)
    shutil.rmtree(folder)
    return found


def main() -> None:
    where = device()
    small = EDMConfig(channels=16, multipliers=(1, 2), blocks=1, attention=(), dropout=0.1)
    mini = EDMConfig(channels=16, multipliers=(1, 2, 2), blocks=1, attention=())
    rows = [gaussian(DIGITS, where), gaussian(CIFAR, where)]
    for info, settings in ((DIGITS, small), (CIFAR, mini if where == "cpu" else EDMConfig())):
        for solver, evaluations in (("ipndm", 10), ("heun", 35)):
            rows.append(diffusion(info, settings, solver, evaluations, where))
    record("sampling", where, rows)


if __name__ == "__main__":
    main()
