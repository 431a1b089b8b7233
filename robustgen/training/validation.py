"""Clean and robust accuracy on the validation images during training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustgen.attacks import PGD, evaluation_attack
from robustgen.contracts import Attack
from robustgen.images import ImageSet, to_unit
from robustgen.modes import batch_invariant
from robustgen.objectives import margin
from robustgen.randomness import rng_for
from robustgen.runtime.distributed import place, total_over_all
from robustgen.stats.intervals import Proportion
from robustgen.threat import ThreatModel
from robustgen.training.classifier import Validate, ValidationAccuracies

VALIDATION_ATTACKS: dict[str, Callable[[int], Attack]] = {
    "adam-margin": lambda steps: evaluation_attack(steps, margin),
    "steepest-margin": lambda steps: PGD(steps, objective=margin, until_fooled=True),
    "steepest-entropy": PGD,
}
"""Attacks on validation images, of N steps. The third is measured at its last iterate."""


def _validation_share(images: ImageSet, device: str) -> tuple[Tensor, Tensor, range]:
    """Pixels, labels and positions of the images that this process measures; counts are summed over all processes."""
    rank, world = place()
    return (
        to_unit(images.pixels(device)[rank::world]),
        images.targets(device)[rank::world],
        range(len(images))[rank::world],
    )


def noisy_validator(images: ImageSet, sigma: float, seed: int, device: str, copies: int = 16) -> Validate:
    """Clean accuracy and, as robust accuracy, accuracy on noisy copies of held-out images.

    Every validation uses the same noise, so that weights are comparable. Both accuracies count copies.
    """
    pixels, labels, numbers = _validation_share(images, device)

    def validate(model: nn.Module) -> ValidationAccuracies:
        clean = noisy = 0
        with torch.no_grad():
            for first in range(0, len(pixels), 512):
                some, truth = pixels[first : first + 512], labels[first : first + 512]
                clean += int((batch_invariant(model, some).argmax(1) == truth).sum())
                rng = rng_for(seed, "validate", device=device).each(numbers[first : first + 512])
                for _ in range(copies):
                    noise = rng.normal(some.shape) * sigma
                    noisy += int((batch_invariant(model, some + noise).argmax(1) == truth).sum())
        clean, noisy = total_over_all(clean, noisy)
        return ValidationAccuracies(
            Proportion(copies * clean, copies * len(images)), Proportion(noisy, copies * len(images))
        )

    return validate


def robust_validator(images: ImageSet, threat: ThreatModel, attack: Attack, seed: int, device: str) -> Validate:
    """Clean accuracy, and robust accuracy under the attack, on held-out images."""
    pixels, labels, numbers = _validation_share(images, device)

    def validate(model: nn.Module) -> ValidationAccuracies:
        clean = robust = 0
        with torch.no_grad():
            for first in range(0, len(pixels), 512):
                some, truth = pixels[first : first + 512], labels[first : first + 512]
                right = batch_invariant(model, some).argmax(1) == truth
                rng = rng_for(seed, "validate", device=device).each(numbers[first : first + 512])
                found = attack(model, some[right], truth[right], threat, rng.rows(right))
                clean += int(right.sum())
                robust += int((batch_invariant(model, found).argmax(1) == truth[right]).sum()) if len(found) else 0
        clean, robust = total_over_all(clean, robust)
        return ValidationAccuracies(Proportion(clean, len(images)), Proportion(robust, len(images)))

    return validate
