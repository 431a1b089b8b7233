"""Ablation on digits of the differences between the official code and its PyTorch ports, one difference per arm."""

from __future__ import annotations

from robustgen.config.generators import GaussianConfig
from robustgen.config.recipe import Arm, EvaluationConfig, Recipe
from robustgen.recipes.digits import DIGITS, ROBUST

DIFFERENCES: dict[str, tuple[str, ...]] = {
    "sign-steps": ("loss.attack.optimizer=steepest",),
    "near-start": ("loss.attack.start=normal",),
    "eval-mode": ("loss.attack.mode=eval",),
    "updating": ("loss.attack.mode=updating",),
    "both-statistics": ("loss.statistics=both",),
    "all-smoothed": ("smooth=all",),
    "replacement": ("generated_order=replacement",),
    "one-cycle": ("schedule.decay=one-cycle",),
    "late-averaging": ("ema_start=0.025",),
    "sign-validation": ("validation_attack=steepest-margin",),
    "entropy-validation": ("validation_attack=steepest-entropy",),
}
"""Settings of a public code that differ from the official code, by arm; the arm `official` has none."""

TOGETHER = {
    "ports": (
        "sign-steps",
        "both-statistics",
        "all-smoothed",
        "replacement",
        "one-cycle",
        "late-averaging",
        "sign-validation",
    ),
    "trades": ("sign-steps", "near-start", "eval-mode", "both-statistics"),
}
"""All differences of one public code: the PyTorch ports of arXiv:2103.01946, and TRADES's own (arXiv:1901.08573)."""

PORTS = Recipe(
    **{
        **DIGITS.model_dump(),
        "name": "digits-ports",
        "summary": "100 digits and Gaussian images, 3 seeds: ablation of the PyTorch ports' differences; 30 minutes",
        "seeds": (0, 1, 2),
        "generators": {"gaussian": GaussianConfig()},
        "train": ROBUST.model_copy(update={"models": 1}),
        "arms": {
            "official": Arm(proxy="gaussian"),
            **{name: Arm(proxy="gaussian", changes=changes) for name, changes in DIFFERENCES.items()},
            **{
                name: Arm(proxy="gaussian", changes=tuple(change for each in names for change in DIFFERENCES[each]))
                for name, names in TOGETHER.items()
            },
        },
        "evaluation": EvaluationConfig(suite="swift", batch_size=256),
    }
)
