"""Study of robust overfitting, CutMix and the share of real images on few small photographs, on two CPU cores."""

from __future__ import annotations

from robustgen.config.generators import EDMConfig, GaussianConfig
from robustgen.config.recipe import Arm, DataConfig, EvaluationConfig, Recipe, SamplingConfig
from robustgen.config.training import ScheduleConfig, TrainingConfig
from robustgen.recipes.cifar10_mini import CIFAR10_MINI

CIFAR10_STUDY = Recipe(
    **{
        **CIFAR10_MINI.model_dump(),
        "name": "cifar10-study",
        "summary": "500 images of CIFAR-10 resized to 16x16, 3 seeds: overfitting, CutMix, shares; 45 minutes",
        "seeds": (0, 1, 2),
        "data": DataConfig(name="cifar10", resize=16, train=500, validation=500, test=1_000),
        "generators": {
            "gaussian": GaussianConfig(),
            "edm": EDMConfig(
                channels=16,
                multipliers=(1, 2),
                blocks=1,
                attention=(),
                augment=0.0,
                dropout=0.1,
                flip=True,
                total_images=600 * 128,
                batch_size=128,
                peak_lr=2e-3,
                warmup_images=100 * 128,
                cooldown=0.3,
            ),
        },
        "sampling": SamplingConfig(count=2_000, solver="ipndm", evaluations=10, shard_images=500),
        "train": TrainingConfig(
            architecture="wrn-10-2",
            schedule=ScheduleConfig(total_images=300 * 128, batch_size=128, peak_lr=0.2, warmup=0.1),
            augment="crop-flip",
            models=1,
            validations=10,
            validation_steps=20,
        ),
        "arms": {
            "real": Arm(),
            "real-cutmix": Arm(changes=("augment=crop-flip+cutmix",)),
            **{name: Arm(proxy=name) for name in ("gaussian", "edm")},
            **{f"{name}-0.7": Arm(proxy=name, changes=("real_share=0.7",)) for name in ("gaussian", "edm")},
        },
        "evaluation": EvaluationConfig(suite="swift", batch_size=256),
    }
)
