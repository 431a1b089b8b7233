"""Rows of Gowal et al. 2021, "Improving Robustness using Generated Data" (arXiv:2110.09468), 100 million images."""

from __future__ import annotations

from robustgen.config.recipe import KeepConfig, Recipe, SamplingConfig
from robustgen.recipes.rebuffi2021 import AUGMENT
from robustgen.recipes.rebuffi2021 import BASE as REBUFFI
from robustgen.recipes.rows import Base, figures, parse, row, schedule

BASE = Base(
    paper="gowal2021",
    cited="Gowal et al. 2021 (arXiv:2110.09468)",
    alone=REBUFFI.alone,
    mixed=REBUFFI.mixed.model_copy(update={"schedule": schedule(2000, 1024, 0.4, warmup=0.005)}),
    sampling=SamplingConfig(count=100_000_000, shard_images=1_000_000),
    keep=KeepConfig(rule="all"),
)
_UNSURE = "epochs and batch size of training with 100 million images"

# data, network, augmentation; clean, AA+MT, AutoAttack in percent
_TABLE = """
cifar10 preact-resnet-18 pad    87.35 58.50 58.63
cifar10 wrn-28-10        pad    87.50 63.38 63.44
cifar10 wrn-70-16        cutmix 88.74 66.10 66.11
"""


def _rows() -> list[Recipe]:
    found = []
    for data, network, augment, clean, robust, autoattack in parse(_TABLE):
        unsure = _UNSURE + ("; whether CutMix was used: its file says so, the text does not" * (augment == "cutmix"))
        reported = figures(BASE, "model zoo and RobustBench", clean, robust, autoattack, unsure)
        label, train = "ddpm-100m", {"augment": AUGMENT[augment]}
        found.append(row(BASE, data, "linf", network, "ddpm", label=label, reported=reported, train=train))
    return found


TINY_IMAGENET = row(
    BASE,
    "tiny-imagenet",
    "linf",
    "wrn-28-10-stem2",
    "ddpm",
    reported=figures(BASE, "a quotation", "60.95", "26.66", "-", "the figures, the stem, and all of the training"),
    train={"schedule": REBUFFI.mixed.schedule},
    sampling=SamplingConfig(),
    keep=KeepConfig(per_class=5_000),
)
ROWS = [*_rows(), TINY_IMAGENET]
