"""What sharing work among two processes costs: their processor time together, over that of one process.

    python benchmarks/distributed.py

The same global batch and the same rows, on digits of 32x32 pixels: TRADES-10 steps of WRN-16-2, batches of 64; EDM
samples; labels; certificates. A ratio of 1 is work without overhead. Processor time, unlike time on the clock, is not
changed by other programs of the machine; processes that wait for each other sleep, and so are not counted.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from timing import device, record

from robustgen.config.generators import EDMConfig
from robustgen.config.recipe import Arm, CertificationConfig
from robustgen.config.source import Source
from robustgen.config.training import TrainingConfig
from robustgen.contracts import silent
from robustgen.recipes import RECIPES
from robustgen.stages.certify import Certify
from robustgen.stages.fit import Fit
from robustgen.stages.label import Label
from robustgen.stages.sample import Sample
from robustgen.stages.train import Train

ROUNDS = 3
IMAGES = 256
RECIPE = RECIPES["digits-smoke"]
DATA = RECIPE.data.model_copy(update={"resize": 32, "validation": 0})
UNET = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": ()}


def training(steps: int) -> TrainingConfig:
    schedule = RECIPE.train.schedule.model_copy(update={"batch_size": 64, "total_images": 64 * steps})
    return RECIPE.train.model_copy(
        update={"architecture": "wrn-16-2", "schedule": schedule, "early_stopping": False, "models": 1}
    )


def train(folder: Path, steps: int) -> Train:
    return Train(training(steps), DATA, RECIPE.threat, Arm(), folder, 0)


def works(made: Path, into: Path) -> dict[str, Any]:
    """The stages to be timed, which use the networks in `made`."""
    sampler = RECIPE.sampling.of("edm")
    settings = CertificationConfig(sigma=0.25, selection=16, samples=496, images=4)
    return {
        "training": train(into / "model", 3),
        "sampling": Sample(made / "edm", sampler, into / "proxy", 0, IMAGES, IMAGES // 2),
        "labeling": Label(into / "proxy", made / "model", "predicted"),
        "certifying": Certify(Source(str(made / "model")), DATA, settings, into / "certificates.npz", 0),
    }


def timed(made: str, into: str) -> dict[str, float]:
    """In each process: processor seconds of each stage, after one that has loaded everything."""
    from robustgen.runtime.cpu import configure_cpu
    from robustgen.runtime.distributed import leave

    configure_cpu(1)
    train(Path(into) / "first", 1)("cpu", silent)
    seconds = {}
    for name, stage in works(Path(made), Path(into)).items():
        began = time.process_time()
        stage("cpu", silent)
        seconds[name] = time.process_time() - began
    leave()
    return seconds


def together(processes: int, made: Path, into: Path) -> dict[str, float]:
    """Processor seconds of each stage, summed over processes."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0", max_restarts=0,
    )  # fmt: skip
    found = elastic_launch(config, timed)(str(made), str(into))
    return {name: sum(one[name] for one in found.values()) for name in found[0]}


def main() -> None:
    device()
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "made"
        Fit(EDMConfig(**UNET, total_images=64, batch_size=64, peak_lr=1e-3), DATA, made / "edm", 0)("cpu", silent)
        train(made / "model", 1)("cpu", silent)
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(ROUNDS):
            one, two = (together(count, made, Path(place) / f"{count}") for count in (1, 2))
            for name in one:
                found.setdefault(name, []).append((one[name], two[name]))
            for count in (1, 2):
                shutil.rmtree(Path(place) / f"{count}")
    rows: list[dict[str, object]] = [
        {
            "work": name,
            "processor seconds of one process": round(statistics.median(one for one, _ in pairs), 2),
            "two processes over one": round(statistics.median(two / one for one, two in pairs), 3),
        }
        for name, pairs in found.items()
    ]
    record("distributed", "cpu", rows)


if __name__ == "__main__":
    main()
