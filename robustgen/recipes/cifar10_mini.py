"""The complete pipeline on a small subset of CIFAR-10 on two CPU cores, to show that it is not specific to digits."""

from __future__ import annotations

from robustgen.config.generators import EDMConfig, GaussianConfig
from robustgen.config.losses import PlainConfig
from robustgen.config.recipe import Arm, DataConfig, EvaluationConfig, KeepConfig, Recipe, SamplingConfig, ThreatConfig
from robustgen.config.training import ScheduleConfig, TrainingConfig

CIFAR10_MINI = Recipe(
    name="cifar10-mini",
    summary="2,000 images of CIFAR-10, small networks, few training steps; 15 minutes on 2 CPU cores",
    data=DataConfig(name="cifar10", train=2_000, validation=256, test=500),
    threat=ThreatConfig(norm="linf", eps=8 / 255),
    labeller=TrainingConfig(
        architecture="wrn-10-2",
        loss=PlainConfig(),
        schedule=ScheduleConfig(total_images=400 * 64, batch_size=64, peak_lr=0.1, warmup=0.05),
        real_share=1.0,
        smoothing=0.0,
        ema_decay=0.99,
        statistics_decay=0.9,
        models=1,
        early_stopping=False,
    ),
    generators={
        "gaussian": GaussianConfig(),
        "edm": EDMConfig(
            channels=16,
            multipliers=(1, 2, 2),
            blocks=1,
            attention=(),
            augment=0.0,
            dropout=0.05,
            flip=True,
            total_images=1_500 * 64,
            batch_size=64,
            peak_lr=2e-3,
            warmup_images=100 * 64,
            cooldown=0.3,
        ),
    },
    sampling=SamplingConfig(count=2_000, solver="ipndm", evaluations=10, shard_images=500),
    keep=KeepConfig(rule="all"),
    train=TrainingConfig(
        architecture="wrn-10-1",
        schedule=ScheduleConfig(total_images=160 * 128, batch_size=128, peak_lr=0.2, warmup=0.1),
        real_share=0.5,
        models=1,
        validations=2,
        validation_steps=10,
    ),
    arms={"real": Arm(), "gaussian": Arm(proxy="gaussian"), "edm": Arm(proxy="edm")},
    evaluation=EvaluationConfig(suite="quick", batch_size=128),
)
