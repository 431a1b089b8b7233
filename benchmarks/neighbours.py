"""Seconds for nearest neighbours as the papers look for them: 10,000 samples among 20,000 images, 100 components.

    python benchmarks/neighbours.py

`ratio` is over the bare matrix product that the search needs, in the same round; the aim is under 2 seconds on two
cores. Beside it: torch's own distances without products of matrices, and precision, recall, density and coverage of
10,000 images of either kind (three matrices of distances), and a Frechet distance in Inception's 2048 dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import device, interleaved, ratios, record

from robustgen.analysis.fidelity import frechet_distance, gaussian_of
from robustgen.analysis.neighbors import inclusion, nearest
from robustgen.randomness import rng_for


def main() -> None:
    where = device()
    rng = rng_for(0, device=where)
    samples, points = (rng.at(name).normal((n, 100)).double() for name, n in (("samples", 10_000), ("points", 20_000)))
    wide = [rng.at("wide", side).normal((4096, 2048)) for side in (0, 1)]

    def products() -> None:
        for some in samples.split(128):
            some @ points.T

    def differences() -> None:
        for some in samples.split(128):
            torch.cdist(some, points, compute_mode="donot_use_mm_for_euclid_dist").min(1)

    works: dict[str, Callable[[], object]] = {
        "matrix product alone": products,
        "nearest": lambda: nearest(samples, points),
        "torch.cdist by differences": differences,
        "precision, recall, density, coverage": lambda: inclusion(samples, points[:10_000]),
        "Frechet distance, 2 x 4096 rows of 2048": lambda: frechet_distance(*map(gaussian_of, wide)),
    }
    seconds = interleaved(works, where, 5)
    over = ratios({name: works[name] for name in ("matrix product alone", "nearest")}, "matrix product alone", where, 5)
    record(
        "neighbours",
        where,
        [
            {"what": name, "seconds": round(taken, 3), "ratio": round(over[name], 3) if name in over else None}
            for name, taken in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
