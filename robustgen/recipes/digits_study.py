"""The papers' questions on handwritten digits in one command: which images help, how many, what averaging prevents."""

from __future__ import annotations

from robustgen.config.generators import AugmentedConfig
from robustgen.config.recipe import Arm, CertificationConfig, Recipe
from robustgen.recipes.digits_generators import GENERATORS, ON_DIGITS

SHARES = (0.1, 0.5, 0.7, 0.9)
"""Of real images in a batch; 0.3, of the recipe, is every generator's own arm."""

AUGMENTATIONS = {
    "shift": "shift-1",
    "cutmix": "shift-1+cutmix",
    "mixup": "shift-1+mixup-0.2",
    "cutout": "shift-1+cutout-4",
}
"""On images of 8x8: a pixel to each side, a window of 4."""

SMOOTHED = ("loss=stability", "schedule.total_images=61440")
"""Training for certificates in l2, under noise instead of attacks, and twice as long."""

HEURISTICS = {f"augmented-{name}": how for name, how in AUGMENTATIONS.items() if name != "cutout"}
"""Training images, augmented, as if they were a generator's: what nearest neighbours and ARC say of them."""


def _arms() -> dict[str, Arm]:
    """Real images; each generator, and augmented images in place of one; the share of real images for two of them;
    standard classifiers of generated images alone; smoothed classifiers; augmentations, averaged or not."""
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
