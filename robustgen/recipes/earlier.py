"""Rows of earlier work from the papers' tables: Gowal et al. 2020, Wu et al. 2020 (AWP), Carmon et al. 2019 (RST)."""

from __future__ import annotations

from robustgen.config.losses import InnerAttackConfig, TRADESConfig
from robustgen.config.recipe import Recipe
from robustgen.config.training import TrainingConfig
from robustgen.recipes.rebuffi2021 import BASE as REBUFFI
from robustgen.recipes.rows import Base, figures, parse, row, schedule

GOWAL = Base(
    paper="gowal2020",
    cited="Gowal et al. 2020 (arXiv:2010.03593)",
    alone=REBUFFI.alone.model_copy(update={"ema_decay": 0.995}),
    mixed=REBUFFI.mixed,
)
WU = Base(
    paper="wu2020",
    cited="Wu et al. 2020 (arXiv:2004.05884)",
    alone=TrainingConfig(
        loss=TRADESConfig(attack=InnerAttackConfig(optimizer="steepest"), statistics="both"),
        awp=0.005,
        schedule=schedule(200, 128, 0.1, decay="step", warmup=0.0),
        real_share=1.0,
        ema_decay=0.0,
        smoothing=0.0,
        models=1,
    ),
    mixed=REBUFFI.mixed,
)
CARMON = Base(
    paper="carmon2019",
    cited="Carmon et al. 2019 (arXiv:1905.13736)",
    alone=REBUFFI.alone,
    mixed=TrainingConfig(
        loss=TRADESConfig(
            attack=InnerAttackConfig(optimizer="steepest", step_size=0.007 / 0.031, start="normal", mode="eval"),
            statistics="both",
        ),
        schedule=schedule(400, 256, 0.1, warmup=0.0),
        real_share=0.5,
        generated_order="replacement",
        ema_decay=0.0,
        smoothing=0.0,
        models=1,
    ),
)
BASES = {base.paper: base for base in (GOWAL, WU, CARMON)}
_UNSURE = {
    "gowal2020": "trained here as Rebuffi et al. do, who retrained it",
    "wu2020": "the schedule; ours drops the rate once",
    "carmon2019": "how an epoch counts in its code",
}

# paper, data, norm, network, images; clean, AA+MT, AutoAttack in percent
_TABLE = """
gowal2020  cifar10  linf     wrn-34-20        none   85.64 56.82 56.86
gowal2020  cifar10  linf     wrn-70-16        none   85.29 57.14 57.20
gowal2020  cifar10  linf     wrn-28-10        80m-ti 89.48 62.76 62.80
gowal2020  cifar10  linf     wrn-70-16        80m-ti 91.10 65.87 65.88
gowal2020  cifar10  l2       wrn-70-16        none   90.90 74.50 74.50
gowal2020  cifar10  l2       wrn-70-16        80m-ti 94.74 -     80.53
gowal2020  cifar100 linf     wrn-70-16        none   60.86 30.67 30.03
gowal2020  cifar100 linf     wrn-70-16        80m-ti 69.15 37.70 36.88
gowal2020  mnist    linf-0.3 wrn-28-10        none   99.26 -     96.34
wu2020     cifar10  linf     trades-wrn-34-10 none   85.36 56.17 56.17
wu2020     cifar10  l2       trades-wrn-34-10 none   88.51 73.66 73.66
carmon2019 cifar10  linf     trades-wrn-28-10 80m-ti 89.69 -     59.53
"""


def _rows() -> list[Recipe]:
    found = []
    for paper, data, norm, network, images, clean, robust, autoattack in parse(_TABLE):
        unsure = _UNSURE[paper]
        train = {}
        if paper == "gowal2020" and images == "80m-ti":
            unsure += "; its own extraction of 80M Tiny Images was never released, Carmon et al.'s stands in"
        if data == "cifar100" and images == "80m-ti":
            unsure += ", and its labels are those of CIFAR-10: give a file of your own as published"
        if data == "mnist":
            unsure += "; it pads images to 32x32, here they stay 28x28, and are not mirrored"
            train = {"augment": "shift-4"}
        reported = figures(BASES[paper], "as quoted by Rebuffi et al. and RobustBench", clean, robust, autoattack,
                           unsure)  # fmt: skip
        found.append(row(BASES[paper], data, norm, network, images, reported=reported, train=train))
    return found


ROWS = _rows()
