"""Study of the papers' questions on digits: which generators help, with how many real images, what weight EMA does."""

from __future__ import annotations

from robustgen.config.generators import AugmentedConfig
from robustgen.config.recipe import Arm, CertificationConfig, Recipe
from robustgen.recipes.digits_generators import GENERATORS, ON_DIGITS

SHARES = (0.1, 0.5, 0.7, 0.9)
"""Shares of real images in a batch; the recipe's own share, 0.3, is that of each generator's main arm."""

AUGMENTATIONS = {
    "shift": "shift-1",
    "cutmix": "shift-1+cutmix",
    "mixup": "shift-1+mixup-0.2",
    "cutout": "shift-1+cutout-4",
}
"""Augmentations for 8x8 images: shifts by 1 pixel, windows of 4 pixels."""

SMOOTHED = ("loss=stability", "schedule.total_images=61440")
"""Changes for certified training in l2: noise instead of attacks, and twice as many images."""

HEURISTICS = {f"augmented-{name}": how for name, how in AUGMENTATIONS.items() if name != "cutout"}
"""Augmented training images in place of generated ones, as a control."""


def _arms() -> dict[str, Arm]:
    """The arms of the study.

    Real images only; each generator, and augmented images in place of generated ones; shares of real images for two
    generators; standard classifiers of generated images only; smoothed classifiers; augmentations with and without EMA.
    """
    arms = {"real": Arm(), **{name: Arm(proxy=name) for name in (*ON_DIGITS, *HEURISTICS)}}
    for name in ("gaussian", "edm"):
        arms |= {f"{name}-{share:g}": Arm(proxy=name, changes=(f"real_share={share:g}",)) for share in SHARES}
    for name in ON_DIGITS:
        arms[f"{name}-score"] = Arm(proxy=name, changes=("loss=plain", "real_share=0"))
    for name, proxy in {"real": None, "edm": "edm"}.items():
        arms[f"{name}-smoothed"] = Arm(proxy=proxy, changes=SMOOTHED)
    arms["real-raw"] = Arm(changes=("ema_decay=0",))
    for name, augment in AUGMENTATIONS.items():
        arms[f"real-{name}"] = Arm(changes=(f"augment={augment}",))
        arms[f"real-{name}-raw"] = Arm(changes=(f"augment={augment}", "ema_decay=0"))
    return arms


STUDY = Recipe(
    **{
        **GENERATORS.model_dump(),
        "name": "digits-study",
        "summary": "100 digits, 3 seeds: generators, shares of real images, augmentations, certificates; an hour",
        "seeds": (0, 1, 2),
        "generators": {**ON_DIGITS, **{name: AugmentedConfig(augment=how) for name, how in HEURISTICS.items()}},
        "arms": _arms(),
        "analyses": ("arc", "transport", "conditions"),
        "certification": CertificationConfig(
            sigma=0.25, samples=1_000, arms=tuple(name for name in _arms() if name.endswith("-smoothed"))
        ),
    }
)
