"""Rows of Bartoldson et al. 2024, "Adversarial Robustness Limits via Scaling-Law and Human-Alignment Studies".

arXiv:2404.09349. Their 300 million images come in equal parts from an EDM, an EDM with discriminator guidance, and
PFGM++. Here all of them come from one EDM.
"""

from __future__ import annotations

from robustgen.config.recipe import Arm, KeepConfig, Phase, Recipe, SamplingConfig
from robustgen.recipes.rows import PORTS, Base, figures, row, schedule

BASE = Base(
    paper="bartoldson2024",
    cited="Bartoldson et al. 2024 (arXiv:2404.09349)",
    alone=PORTS,
    mixed=PORTS,
    sampling=SamplingConfig(count=300_000_000, evaluations=39, shard_images=1_000_000),
    keep=KeepConfig(rule="all"),
    labels="condition",
)
_UNSURE = "one generator stands in for three"
_PHASES = (
    Phase(until=0.6, proxies={"edm": 1.0}, real_share=0.0),
    Phase(until=1.0, proxies={"edm": 1.0}, real_share=0.125),
)
ROWS: list[Recipe] = [
    row(
        BASE,
        "cifar10",
        "linf",
        "wrn-82-8",
        "edm",
        label="edm-300m",
        reported=figures(BASE, "tables", "93.11", "-", "71.59", _UNSURE),
        train={"schedule": schedule(6820, 2048, 0.1, decay="one-cycle"), "real_share": 0.125},
    ),
    row(
        BASE,
        "cifar10",
        "linf",
        "wrn-94-16",
        "edm",
        label="edm-300m",
        reported=figures(BASE, "tables", "93.68", "-", "73.71", _UNSURE),
        train={"schedule": schedule(10_000, 2048, 0.1, decay="one-cycle")},
        arms={"edm": Arm(phases=_PHASES)},
    ),
]
