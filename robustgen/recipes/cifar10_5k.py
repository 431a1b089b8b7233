"""The claim on photographs: how much of the gap between 5,000 and all real images of CIFAR-10 generated images close.

Every arm sees the same number of images in training, and has the same network, attack and early stopping. The
generator is fitted to the same 5,000 images; on a CPU it is small, so that only the images are kept of which the
labeler is surest.
`real` and `all` are the ends of the gap; `real-cutmix` is the best heuristic augmentation of arXiv:2103.01946;
`augmented` mixes in augmented training images as if they were generated.
"""

from __future__ import annotations

from robustgen.config.generators import AugmentedConfig, EDMConfig, GaussianConfig
from robustgen.config.losses import AdversarialConfig, InnerAttackConfig, PlainConfig, TRADESConfig
from robustgen.config.recipe import (
    Arm,
    DataConfig,
    EvaluationConfig,
    KeepConfig,
    MeasureConfig,
    Recipe,
    SamplingConfig,
    SelectionConfig,
    ThreatConfig,
)
from robustgen.config.training import ScheduleConfig, TrainingConfig

DATA = DataConfig(name="cifar10", train=5_000, validation=1_000, test=2_000)
THREAT = ThreatConfig(norm="linf", eps=8 / 255)
ARMS = {
    "real": Arm(),
    "edm": Arm(proxy="edm"),
    "all": Arm(train_images="all"),
    "gaussian": Arm(proxy="gaussian"),
    "augmented": Arm(proxy="augmented"),
    "real-cutmix": Arm(changes=("augment=crop-flip+cutmix",)),
}
"""The arms that make the headline number come first."""

CPU = Recipe(
    name="cifar10-5k-cpu",
    summary="5,000 images of CIFAR-10: how much of the gap to 49,000 generated images close; a night on a CPU",
    data=DATA,
    threat=THREAT,
    labeller=TrainingConfig(
        architecture="wrn-16-2",
        loss=PlainConfig(),
        schedule=ScheduleConfig(total_images=1_000 * 128, batch_size=128, peak_lr=0.2, warmup=0.1),
        precision="bfloat16",
        real_share=1.0,
        smoothing=0.0,
        models=1,
        early_stopping=False,
    ),
    generators={
        "edm": EDMConfig(
            channels=32,
            multipliers=(1, 2, 4),
            blocks=1,
            attention=(),
            augment=0.0,
            dropout=0.1,
            flip=True,
            total_images=3_200 * 64,
            batch_size=64,
            peak_lr=1e-3,
            warmup_images=200 * 64,
            cooldown=0.3,
            precision="bfloat16",
            previews=4,
        ),
        "gaussian": GaussianConfig(),
        "augmented": AugmentedConfig(augment="crop-flip"),
    },
    sampling=SamplingConfig(count=40_000, solver="ipndm", evaluations=10, shard_images=2_500, precision="auto"),
    label_precision="auto",
    keep=KeepConfig(rule="all", special={"edm": SelectionConfig(rule="top-confidence", per_class=700)}),
    train=TrainingConfig(
        architecture="wrn-16-2",
        loss=AdversarialConfig(attack=InnerAttackConfig(optimizer="n-fgsm")),
        schedule=ScheduleConfig(total_images=4_500 * 128, batch_size=128, peak_lr=0.2, warmup=0.1),
        precision="bfloat16",
        real_share=0.5,
        models=1,
        validations=10,
        validation_steps=10,
    ),
    arms=ARMS,
    evaluation=EvaluationConfig(suite="swift", batch_size=128, precision="auto"),
    measure=MeasureConfig(judged=2_000),
)

GPU = CPU.model_copy(
    update={
        "name": "cifar10-5k",
        "summary": "5,000 images of CIFAR-10: how much of the gap to 49,000 generated images close; minutes on a GPU",
        "labeller": CPU.labeller.model_copy(
            update={
                "architecture": "preact-resnet-18",
                "schedule": ScheduleConfig(total_images=400 * 512, batch_size=512, peak_lr=0.2, warmup=0.1),
            }
        ),
        "generators": {
            "edm": EDMConfig(
                channels=64,
                multipliers=(1, 2, 2),
                blocks=2,
                augment=0.0,
                dropout=0.13,
                flip=True,
                total_images=3_000 * 256,
                batch_size=256,
                peak_lr=1e-3,
                warmup_images=200 * 256,
                cooldown=0.3,
                precision="bfloat16",
                previews=1,
            ),
            "gaussian": GaussianConfig(),
            "augmented": AugmentedConfig(augment="crop-flip"),
        },
        "sampling": SamplingConfig(count=50_000, solver="ipndm", evaluations=10, shard_images=10_000, precision="auto"),
        "keep": KeepConfig(rule="all"),
        "train": CPU.train.model_copy(
            update={
                "architecture": "preact-resnet-18",
                "loss": TRADESConfig(attack=InnerAttackConfig(optimizer="n-fgsm")),
                "schedule": ScheduleConfig(total_images=700 * 512, batch_size=512, peak_lr=0.2, warmup=0.1),
                "validations": 7,
            }
        ),
        "evaluation": EvaluationConfig(suite="swift", batch_size=1_000, precision="auto"),
        "measure": None,
    }
)
"""3.5e16 operations before the evaluation: 5 minutes at 1.2e14 per second, less than half of `planning.costs.RATE`;
sized for 9 minutes with the evaluation. It has not been run on a GPU yet."""
