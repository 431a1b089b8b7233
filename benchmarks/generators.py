"""Every generator of a finished `digits-generators` run: images a second, beside how good they are.

    robustgen run digits-generators
    python benchmarks/generators.py runs/digits-generators

The yardstick is DDPM's own chain of 1000 evaluations an image. `times` is images a second over its, in one process on
one thread, measured in turns; `classifier-fid` is of as many images of each, in the features of the run's labeller,
beside the real training images (its bias depends on the number of images: compare within the table only). Aim: 50
times at an equal or smaller distance.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from timing import device, record

from robustgen.analysis.features import classifier_features
from robustgen.analysis.fidelity import frechet_distance, gaussian_of
from robustgen.config.loading import from_content
from robustgen.config.sampler import SamplerConfig
from robustgen.datasets import load_splits
from robustgen.generators import read_generator
from robustgen.images import to_unit
from robustgen.models.saved import load_classifier
from robustgen.proxy.sampling import sample_batch
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir

COUNT, BATCH = 2_000, 500
DRAWS = {
    "ddpm, ancestral, 1000": ("ddpm", SamplerConfig(solver="ancestral", evaluations=1000)),
    "ddpm, ddim, 50": ("ddpm", SamplerConfig(solver="ddim", evaluations=50)),
    "ddpm, ddim, 20": ("ddpm", SamplerConfig(solver="ddim", evaluations=20)),
    "edm, heun, 35": ("edm", SamplerConfig(solver="heun", evaluations=35)),
    "edm, ipndm, 10": ("edm", SamplerConfig(solver="ipndm", evaluations=10)),
    "edm, ipndm, 8": ("edm", SamplerConfig(solver="ipndm", evaluations=8)),
    "ect, 2": ("ect", SamplerConfig(evaluations=2)),
    "ect, 1": ("ect", SamplerConfig(evaluations=1)),
    "vdvae": ("vdvae", SamplerConfig()),
    "biggan": ("biggan", SamplerConfig()),
    "stylegan2": ("stylegan2", SamplerConfig()),
    "gaussian": ("gaussian", SamplerConfig()),
}


def main(folder: str) -> None:
    where = device()
    run = RunDir(folder)
    recipe = from_content(read_json(run.recipe), str(run.recipe))
    train = load_splits(recipe.data).train
    features = classifier_features(load_classifier(run.labeller).to(where))

    def rows_of(pixels: np.ndarray) -> torch.Tensor:
        """(N, D) features of uint8 images (N, H, W, C)."""
        found = []
        with torch.no_grad():
            for first in range(0, len(pixels), BATCH):
                some = torch.from_numpy(pixels[first : first + BATCH]).to(where).permute(0, 3, 1, 2)
                found.append(features(to_unit(some))[0].cpu())
        return torch.cat(found)

    real = gaussian_of(rows_of(np.asarray(train.images)))
    made: dict[str, list[np.ndarray]] = {name: [] for name in DRAWS}
    seconds = dict.fromkeys(DRAWS, 0.0)
    models = {kind: read_generator(run.generator(kind))[0].to(where) for kind, _ in DRAWS.values()}
    for first in range(0, COUNT, BATCH):
        for name, (kind, draw) in DRAWS.items():
            models[kind].configure_sampler(draw)
            began = time.perf_counter()
            made[name].append(sample_batch(models[kind], np.arange(first, first + BATCH), 0, where).numpy())
            seconds[name] += time.perf_counter() - began
    yardstick = seconds["ddpm, ancestral, 1000"]
    record(
        "generators",
        where,
        [
            {
                "generator": name,
                "images/s": float(f"{COUNT / seconds[name]:.3g}"),
                "times": float(f"{yardstick / seconds[name]:.3g}"),
                "classifier-fid": float(f"{frechet_distance(gaussian_of(rows_of(np.concatenate(parts))), real):.3g}"),
            }
            for name, parts in made.items()
        ],
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/digits-generators")
