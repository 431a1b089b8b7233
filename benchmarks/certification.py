"""Certification beside the bare forward passes it needs.

    python benchmarks/certification.py

An image costs selection + samples forward passes. The floor is measured by running just these on copies that lie
ready, in batches of the same size. On top come the noise, the votes, early abstention and the record. `ratio` is
certify over the floor, in the same round; aim: at most 1.05. The next columns are the share of a pass that its noise
takes, by the torch.Generator that is used and, for comparison, by `Rng.normal`.
"""

from __future__ import annotations

import torch
from timing import device, interleaved, ratios, record

from robustgen.evaluation.certification import certify
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.modes import channels_last
from robustgen.randomness import rng_for
from robustgen.stages.common import images_in_a_pass

SELECTION = 100
IMAGES = 4


def measure(architecture: str, shape: tuple[int, int, int], samples: int, where: str) -> dict[str, object]:
    channels, height, width = shape
    info = DatasetInfo("bench", tuple("0123456789"), shape, (0.5,) * channels, (0.25,) * channels)
    model = channels_last(build_model(architecture, info, rng_for(0))).to(where).eval()
    batch_size = images_in_a_pass(shape, where)
    images = torch.rand(IMAGES, *shape, device=where)
    batch = torch.rand(batch_size, *shape, device=where).contiguous(memory_format=torch.channels_last)
    # An untrained network may be of two minds; its own answer under noise is certified, so nothing is given up.
    labels = torch.zeros(IMAGES, dtype=torch.int64, device=where)
    with torch.no_grad():
        model.logits.bias[0] += 100

    @torch.no_grad()
    def floor() -> None:
        for _ in range(IMAGES):
            left = SELECTION + samples
            while left > 0:
                model(batch[: min(left, batch_size)])
                left -= batch_size

    def whole() -> None:
        found = certify(model, images, labels, 0.25, selection=SELECTION, samples=samples, batch_size=batch_size)
        assert (found.spent == SELECTION + samples).all()

    @torch.no_grad()
    def one_pass() -> None:
        model(batch)

    generator = torch.Generator(where)
    parts = {
        "pass": one_pass,
        "rng": lambda: rng_for(0, device=where).each(range(batch_size)).normal((batch_size, height, width, channels)),
        "generator": lambda: torch.randn(batch_size, height, width, channels, device=where, generator=generator),
    }
    seconds = interleaved(parts, where)
    works = {"floor": floor, "certify": whole}
    return {
        "network": architecture,
        "images": "x".join(map(str, shape)),
        "batch": batch_size,
        "samples": samples,
        "passes/s": round(batch_size / seconds["pass"]),
        "noise %": round(100 * seconds["generator"] / seconds["pass"], 2),
        "by Rng.normal %": round(100 * seconds["rng"] / seconds["pass"], 2),
        "ratio": round(ratios(works, "floor", where)["certify"], 3),
    }


def main() -> None:
    where = device()
    cases = [("wrn-10-1", (1, 8, 8), 10_000), ("wrn-10-2", (1, 8, 8), 4_000), ("wrn-10-2", (3, 32, 32), 412)]
    if where == "cuda":
        cases = [("wrn-10-2", (3, 32, 32), 100_000), ("wrn-28-10", (3, 32, 32), 10_000)]
    record("certification", where, [measure(*case, where) for case in cases])


if __name__ == "__main__":
    main()
