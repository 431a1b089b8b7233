"""Rows of Sehwag et al. 2022, "Robust Learning Meets Generative Models" (arXiv:2104.09425): PORT, half real images."""

from __future__ import annotations

from typing import Any

from robustgen.config.generators import DDPMConfig
from robustgen.config.losses import AdversarialConfig, InnerAttackConfig, StabilityConfig, TRADESConfig
from robustgen.config.recipe import CertificationConfig, EvaluationConfig, KeepConfig, Recipe, Reported, SamplingConfig
from robustgen.config.training import TrainingConfig
from robustgen.recipes.rows import Base, figures, parse, row, schedule

ADVERSARIAL = AdversarialConfig(attack=InnerAttackConfig(optimizer="steepest", mode="updating"))
NEAR = InnerAttackConfig(optimizer="steepest", start="normal", mode="eval")
"""Inner attack for the loss trades, as in TRADES's own code."""
TRAINING = TrainingConfig(
    loss=ADVERSARIAL,
    schedule=schedule(200, 256, 0.1, warmup=0.0),
    real_share=0.5,
    ema_decay=0.0,
    smoothing=0.0,
    models=1,
    validation_attack="steepest-entropy",
    validation_steps=10,
)
"""100 epochs of the original images, in batches of 128 original and 128 generated images: 200 epochs of 50,000."""
BASE = Base(
    paper="sehwag2022",
    cited="Sehwag et al. 2022 (arXiv:2104.09425)",
    alone=TRAINING.model_copy(update={"real_share": 1.0}),
    mixed=TRAINING,
    sampling=SamplingConfig(count=10_000_000),
    keep=KeepConfig(rule="all"),
)
_UNSURE = "the robust discriminators' networks and radii; ours are those of the analysis arc"
RANKED = {
    "sampling": SamplingConfig(count=15_000_000),
    "keep": KeepConfig(rule="discriminator", per_class=1_000_000),
}
"""The 10 million images, of 15 million, that the discriminators find most realistic."""
BIGGER: dict[str, dict[str, Any]] = {"resnest-152": {"schedule": schedule(200, 512, 0.2, warmup=0.0)}}

# data, norm, network, images, loss; clean and AutoAttack in percent
_TABLE = """
cifar10  linf   trades-wrn-34-10-unnormalised ddpm adversarial 86.68 60.27
cifar10  linf   resnet-18-unnormalised        ddpm adversarial 84.59 55.54
cifar10  linf   resnest-152-unnormalised      ddpm adversarial 87.30 62.79
cifar10  l2-0.5 trades-wrn-34-10-unnormalised ddpm trades      90.93 77.24
cifar10  l2-0.5 resnet-18-unnormalised        ddpm trades      89.76 74.41
cifar100 linf   trades-wrn-34-10-unnormalised ddpm adversarial 65.93 31.15
celeba   linf   resnet-18-unnormalised        none trades      86.1  61.2
celeba   linf   resnet-18-unnormalised        ddpm trades      86.1  62.7
"""


def _rows() -> list[Recipe]:
    found = []
    for data, norm, network, images, loss, clean, robust in parse(_TABLE):
        near = NEAR.model_copy(update={"step_size": 0.2}) if norm.startswith("l2") else NEAR
        train = {
            "loss": TRADESConfig(attack=near, statistics="both") if loss == "trades" else ADVERSARIAL,
            **BIGGER.get(network.removesuffix("-unnormalised"), {}),
        }
        more: dict[str, Any] = RANKED if data == "cifar10" else {}
        unsure = _UNSURE
        if data == "cifar100":
            more = {
                "generators": {"ddpm": DDPMConfig(conditional=True)},
                "sampling": SamplingConfig(count=1_000_000),
                "labels": "condition",
            }
            unsure = ""
        if data == "celeba":
            more = {"sampling": SamplingConfig(count=1_000_000)}
            unsure = "network, radius, the four classes' images, and the generator (an improved DDPM)"
        reported = figures(BASE, "RobustBench, or the review thread", clean, "-", robust, unsure)
        found.append(row(BASE, data, norm, network, images, reported=reported, train=train, **more))
    return found


# gamma; clean, robust of ResNet-18 on CIFAR-100 in linf
_GAMMAS = """
0.15 60.6 27.6
0.4  64.7 27.7
0.5  64.5 26.4
0.75 62.2 23.7
0.9  59.8 21.9
"""


def _gammas() -> list[Recipe]:
    """Sweep over gamma, read as the weight of the loss on original images, as the authors' answer suggests."""
    unsure = "which side gamma weighs; the attack behind the robust accuracy"
    return [
        row(
            BASE,
            "cifar100",
            "linf",
            "resnet-18-unnormalised",
            "ddpm",
            name=f"sehwag2022/sweep/cifar100-gamma-{gamma}",
            summary=f"resnet-18 on cifar100, loss on original images weighed {gamma}",
            reported=figures(BASE, "review thread", clean, "-", robust, unsure),
            train={"loss": ADVERSARIAL.model_copy(update={"real_weight": float(gamma)})},
            generators={"ddpm": DDPMConfig(conditional=True)},
            sampling=SamplingConfig(count=1_000_000),
            labels="condition",
        )
        for gamma, clean, robust in parse(_GAMMAS)
    ]


_CERTIFIED = row(
    BASE,
    "cifar10",
    "l2",
    "wrn-28-10",
    "ddpm",
    label="certified",
    summary="wrn-28-10 on cifar10, smoothed: certificates in l2, with ddpm",
    train={"loss": StabilityConfig(sigma=0.25), "schedule": schedule(800, 256, 0.1, warmup=0.0)},
    certification=CertificationConfig(sigma=0.25, samples=10_000),
    evaluation=EvaluationConfig(suite="quick"),
    reported=Reported(
        robust=66.2,
        by="certified",
        where=f"{BASE.cited}, a quotation: certified at l2 radius 0.435",
        unsure="the figure; the abstract says 7.6 points above what was known",
    ),
)
ROWS = [*_rows(), _CERTIFIED, *_gammas()]
