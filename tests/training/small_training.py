"""A training small enough for tests, in this process or as a program of its own, also under torchrun.

python tests/small_training.py FOLDER JOB...      JOB is a name in JOBS; results go to FOLDER/JOB
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from robustgen.augment import AUGMENTATIONS
from robustgen.config.training import ScheduleConfig, TrainingConfig
from robustgen.images import DatasetInfo, ImageSet
from robustgen.losses import TRADES
from robustgen.models import build_model
from robustgen.pipeline.scheduler import run_alone
from robustgen.randomness import rng_for
from robustgen.runtime.distributed import place, wait_for_all
from robustgen.stats.intervals import Proportion
from robustgen.storage.files import SaveInterval
from robustgen.storage.weights import save_weights
from robustgen.threat import ThreatModel
from robustgen.training.classifier import ValidationAccuracies, train_classifier
from robustgen.training.mixing import Mixture

STEPS, BATCH = 8, 64
INFO = DatasetInfo("tiny", ("a", "b", "c"), (1, 8, 8), (0.3,), (0.4,))
SETTINGS = TrainingConfig(
    schedule=ScheduleConfig(total_images=STEPS * BATCH, batch_size=BATCH, peak_lr=0.05, warmup=0.1), validations=2
)


class Plain(nn.Module):
    """A network without batch statistics, smooth, in float64 so that sums in another order do not show."""

    def __init__(self) -> None:
        super().__init__()
        with rng_for(3).seeding_torch():
            self.layers = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 3)
            ).double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images.double())


def images() -> ImageSet:
    """Three classes that differ by which third of the rows is bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    pixels = rng.integers(0, 60, (90, 8, 8, 1))
    for i, label in enumerate(labels):
        pixels[i, 2 + 2 * label : 4 + 2 * label] += 150
    return ImageSet(pixels.astype(np.uint8), labels.astype(np.int64), INFO)


JOBS = {
    "plain": (Plain, {}),
    "plain in 2 passes": (Plain, {"accumulate": 2}),
    "norms of a process": (lambda: build_model("wrn-10-1", INFO, rng_for(0)), {}),
    "norms of a pass": (lambda: build_model("wrn-10-1", INFO, rng_for(0)), {"accumulate": 2}),
    "norms of all": (lambda: build_model("wrn-10-1", INFO, rng_for(0)), {"batch_norms": "all"}),
}


def by_weights(model: nn.Module) -> ValidationAccuracies:
    """A score that depends on the weights alone."""
    return ValidationAccuracies(
        Proportion(1, 2), Proportion(int(sum(p.double().abs().sum() for p in model.parameters()) * 1e6) % 20, 20)
    )


def train(job: str, folder: Path, progress=lambda *told: None, **changes):
    make, own = JOBS[job]
    settings = SETTINGS.model_copy(update={**own, **changes})
    mixture = Mixture(images(), batch_size=BATCH, repeats=2, augment=AUGMENTATIONS["shift-1"], seed=5)
    trained = train_classifier(
        make(), mixture, TRADES(), ThreatModel("linf", 0.1), settings, folder, seed=0, validate=by_weights,
        progress=progress,
    )  # fmt: skip
    if place()[0] == 0:
        save_weights(folder / "weights.safetensors", trained.model)
    wait_for_all()
    return trained


def main() -> None:
    """`ROBUSTGEN_TEST_FAULT` is "SIGNAL RANK STEP MARKER": so the process ends there, once; SIGNAL may be `error`."""
    folder, *jobs = sys.argv[1:]
    fault = os.environ.get("ROBUSTGEN_TEST_FAULT", "").split()

    def progress(done: int, total: int, unit: str, note: str = "") -> None:
        if not fault or place()[0] != int(fault[1]) or done < int(fault[2]) * BATCH or Path(fault[3]).exists():
            return
        Path(fault[3]).touch()
        if fault[0] == "error":
            raise ValueError("the disk of process 1 is full of tests")
        os.kill(os.getpid(), getattr(signal, fault[0]))

    SaveInterval.due = lambda self: True
    for job in jobs:
        where = Path(folder) / job
        run_alone(job, where, lambda told, job=job, where=where: str(train(job, where, progress).step), threads=1,
                  file_name=f".{place()[0]}")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"process {place()[0]} says: {error}")
