"""Rows of Wang et al. 2023, "Better Diffusion Models Further Improve Adversarial Training" (arXiv:2302.04638)."""

from __future__ import annotations

from robustgen.config.recipe import KeepConfig, Recipe, SamplingConfig
from robustgen.recipes.rows import PORTS, Base, figures, parse, row, schedule

BASE = Base(
    paper="wang2023",
    cited="Wang et al. 2023 (arXiv:2302.04638)",
    alone=PORTS.model_copy(update={"real_share": 1.0}),
    mixed=PORTS,
    sampling=SamplingConfig(count=5_000_000, evaluations=39),
    labels="condition",
)
"""39 evaluations are 20 Heun steps. The 1M set keeps the most confident 20 % of 5M samples."""
_EVALUATIONS = {"cifar10": 39, "cifar100": 49, "svhn": 49, "tiny-imagenet": 35}

# data, norm, network, million images, epochs, batch; clean and AutoAttack in percent
_TABLE = """
cifar10       linf wrn-28-10 1  400  512  91.12 63.35
cifar10       linf wrn-70-16 1  400  512  91.98 65.54
cifar10       linf wrn-28-10 20 2400 2048 92.44 67.31
cifar10       linf wrn-70-16 50 2000 1024 93.25 70.69
cifar10       l2   wrn-28-10 50 1600 2048 95.16 83.63
cifar10       l2   wrn-70-16 50 2000 1024 95.54 84.86
cifar100      linf wrn-28-10 50 1600 2048 72.58 38.83
cifar100      linf wrn-70-16 50 2000 1024 75.22 42.67
svhn          linf wrn-28-10 50 1600 2048 95.56 64.01
tiny-imagenet linf wrn-28-10 1  400  512  65.19 31.30
"""


def _rows() -> list[Recipe]:
    found = []
    for data, norm, network, millions, epochs, batch, clean, robust in parse(_TABLE):
        few, count = millions == "1", int(millions) * 1_000_000
        chosen = few and data == "cifar10"
        unsure = "the figures" if chosen else "epochs and batch size"
        if data == "tiny-imagenet":
            unsure += "; its images are of an EDM of ImageNet, here of one fitted to TinyImageNet"
        found.append(
            row(
                BASE,
                data,
                norm,
                network,
                "edm",
                label=f"edm-{millions}m",
                reported=figures(BASE, "tables", clean, "-", robust, unsure),
                train={
                    "schedule": schedule(int(epochs), int(batch), 0.2, decay="one-cycle"),
                    "real_share": 0.3 if few else 0.2,
                    "augment": "none" if data == "svhn" else "crop-flip",
                },
                sampling=SamplingConfig(
                    count=5_000_000 if chosen else count,
                    evaluations=_EVALUATIONS[data],
                    shard_images=100_000 if few else 1_000_000,
                ),
                keep=KeepConfig(per_class=100_000) if chosen else KeepConfig(rule="all"),
            )
        )
    return found


ROWS = _rows()
