"""The papers' experiment in miniature: 100 handwritten digits of 8x8 pixels, minutes on two CPU cores."""

from __future__ import annotations

from robustgen.config.generators import EDMConfig, GaussianConfig
from robustgen.config.losses import InnerAttackConfig, PlainConfig, StabilityConfig, TRADESConfig
from robustgen.config.recipe import (
    Arm,
    CertificationConfig,
    DataConfig,
    EvaluationConfig,
    KeepConfig,
    Recipe,
    SamplingConfig,
    ThreatConfig,
)
from robustgen.config.training import ScheduleConfig, TrainingConfig

LABELLER = TrainingConfig(
    architecture="wrn-10-2",
    loss=PlainConfig(),
    schedule=ScheduleConfig(total_images=300 * 64, batch_size=64, peak_lr=0.1, warmup=0.05),
    real_share=1.0,
    smoothing=0.0,
    ema_decay=0.995,
    statistics_decay=0.9,
    augment="shift-1",
    models=1,
    early_stopping=False,
)

ROBUST_TRAINING = TrainingConfig(
    architecture="wrn-10-1",
    schedule=ScheduleConfig(total_images=240 * 128, batch_size=128, peak_lr=0.2, warmup=0.2),
    augment="none",
    models=2,
    validations=8,
    validation_steps=20,
)

DIGITS = Recipe(
    name="digits",
    summary="100 handwritten digits: real only, plus Gaussian or diffusion images; 4 minutes on 2 CPU cores",
    data=DataConfig(name="digits", train=100, validation=250, test=797),
    threat=ThreatConfig(norm="linf", eps=0.2),
    labeller=LABELLER,
    generators={
        "gaussian": GaussianConfig(),
        "edm": EDMConfig(
            channels=16,
            multipliers=(1, 2),
            blocks=1,
            attention=(),
            augment=0.0,
            dropout=0.1,
            total_images=400 * 128,
            batch_size=128,
            peak_lr=2e-3,
            warmup_images=100 * 128,
            cooldown=0.3,
        ),
    },
    sampling=SamplingConfig(count=10_000, solver="ipndm", evaluations=10, shard_images=2_500),
    keep=KeepConfig(rule="top-confidence", per_class=500),
    train=ROBUST_TRAINING,
    arms={"real": Arm(), "gaussian": Arm(proxy="gaussian"), "edm": Arm(proxy="edm")},
    evaluation=EvaluationConfig(suite="aa+mt", batch_size=256),
)

CERTIFIED = DIGITS.model_copy(
    update={
        "name": "digits-certified",
        "summary": "100 digits, real only and plus diffusion images, randomized smoothing certified in l2; minutes",
        "threat": ThreatConfig(norm="l2", eps=0.25),
        "train": ROBUST_TRAINING.model_copy(
            update={
                "loss": StabilityConfig(sigma=0.25),
                "schedule": ScheduleConfig(total_images=480 * 128, batch_size=128, peak_lr=0.2, warmup=0.2),
                "models": 1,
            }
        ),
        "generators": {"edm": DIGITS.generators["edm"]},
        "arms": {"real": Arm(), "edm": Arm(proxy="edm")},
        "evaluation": EvaluationConfig(suite="quick", batch_size=256),
        "certification": CertificationConfig(sigma=0.25, samples=2_000),
    }
)

SMOKE = Recipe(
    name="digits-smoke",
    summary="every stage of digits in half a minute, to test the installation; its accuracies are meaningless",
    data=DataConfig(name="digits", train=100, validation=40, test=64),
    threat=ThreatConfig(norm="linf", eps=0.1),
    labeller=LABELLER.model_copy(
        update={
            "architecture": "wrn-10-1",
            "schedule": ScheduleConfig(total_images=60 * 64, batch_size=64, peak_lr=0.1),
        }
    ),
    generators={
        "gaussian": GaussianConfig(),
        "edm": EDMConfig(
            channels=8,
            multipliers=(1, 1),
            blocks=1,
            attention=(),
            augment=0.0,
            dropout=0.1,
            total_images=60 * 64,
            batch_size=64,
            peak_lr=2e-3,
            warmup_images=10 * 64,
            cooldown=0.3,
        ),
    },
    sampling=SamplingConfig(count=400, solver="heun", evaluations=9, shard_images=150),
    keep=KeepConfig(rule="all"),
    train=ROBUST_TRAINING.model_copy(
        update={
            "loss": TRADESConfig(attack=InnerAttackConfig(steps=3)),
            "schedule": ScheduleConfig(total_images=24 * 64, batch_size=64, peak_lr=0.2, warmup=0.1),
            "validations": 2,
            "validation_steps": 5,
        }
    ),
    arms={"real": Arm(), "gaussian": Arm(proxy="gaussian"), "edm": Arm(proxy="edm")},
    evaluation=EvaluationConfig(suite="quick", batch_size=64),
)
