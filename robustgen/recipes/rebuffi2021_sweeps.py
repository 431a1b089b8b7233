"""Sweeps of Rebuffi et al. 2021, App. B: share of original images, window size, strength of MixUp, EMA decay.

Each point is a recipe with WRN-28-10 on CIFAR-10 in linf. The grids of the paper's figures are not in the text that was
available; these grids are our own.
"""

from __future__ import annotations

from typing import Any

from robustgen.config.recipe import Recipe
from robustgen.recipes.rebuffi2021 import AUGMENT, BASE
from robustgen.recipes.rows import row

SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
WINDOWS = (6, 10, 14, 18, 22, 26)
STRENGTHS = (0.1, 0.2, 0.5, 1.0, 1.4)
DECAYS = (0.0, 0.99, 0.9925, 0.995, 0.9975, 0.999, 0.9995)


def _point(name: str, summary: str, images: str = "none", **train: Any) -> Recipe:
    return row(
        BASE, "cifar10", "linf", "wrn-28-10", images, train=train, name=f"rebuffi2021/sweep/{name}", summary=summary
    )


ROWS = [
    *(
        _point(f"{images}-share-{share:g}", f"{share:.0%} original images, the rest {images}", images, real_share=share)
        for images in ("gaussian", "vdvae", "biggan", "ddpm")
        for share in SHARES
    ),
    *(
        _point(f"{kind}-{size}", f"{kind} with windows of {size} pixels", augment=f"crop-flip+{kind}-{size}")
        for kind in ("cutout", "cutmix")
        for size in WINDOWS
    ),
    *(
        _point(f"{kind}-unaveraged-{size}", f"the same, weights not averaged: {kind}, {size} pixels",
               augment=f"crop-flip+{kind}-{size}", ema_decay=0.0)
        for kind in ("cutout", "cutmix")
        for size in WINDOWS
    ),
    *(
        _point(f"mixup-{strength:g}", f"MixUp by Beta({strength:g}, {strength:g})",
               augment=f"crop-flip+mixup-{strength:g}")
        for strength in STRENGTHS
    ),
    *(
        _point(f"{augment}-averaging-{decay:g}", f"{augment}, decay {decay:g} of the average", augment=AUGMENT[augment],
               ema_decay=decay)
        for augment in ("pad", "cutmix")
        for decay in DECAYS
    ),
]  # fmt: skip
