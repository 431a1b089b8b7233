"""The study on digits with ten times as many training steps: do the gains persist?"""

from __future__ import annotations

from robustgen.config.generators import AugmentedConfig
from robustgen.config.recipe import Arm, Recipe
from robustgen.config.training import ScheduleConfig
from robustgen.recipes.digits_generators import GENERATORS, ON_DIGITS
from robustgen.recipes.digits_study import AUGMENTATIONS

CHOSEN = ("gaussian", "vdvae", "edm")

LONG = Recipe(
    **{
        **GENERATORS.model_dump(),
        "name": "digits-long",
        "summary": "100 digits, 3 seeds, 10x training: generators, augmentations, robust overfitting; 45 minutes",
        "seeds": (0, 1, 2),
        "generators": {
            **{name: ON_DIGITS[name] for name in CHOSEN},
            "augmented-shift": AugmentedConfig(augment=AUGMENTATIONS["shift"]),
        },
        "sampling": GENERATORS.sampling.model_copy(
            update={"special": {name: draw for name, draw in GENERATORS.sampling.special.items() if name in CHOSEN}}
        ),
        "train": GENERATORS.train.model_copy(
            update={
                "schedule": ScheduleConfig(total_images=2_400 * 128, batch_size=128, peak_lr=0.2, warmup=0.02),
                "validations": 24,
            }
        ),
        "arms": {
            "real": Arm(),
            **{f"real-{name}": Arm(changes=(f"augment={AUGMENTATIONS[name]}",)) for name in ("shift", "cutmix")},
            **{name: Arm(proxy=name) for name in (*CHOSEN, "augmented-shift")},
        },
        "measure": None,
        "analyses": (),
    }
)
