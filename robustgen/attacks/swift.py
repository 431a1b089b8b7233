"""A short cascade in one attack, which spends its passes on the images nearest to misclassification."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD
from robustgen.attacks.common import AttackResult, rng_or_default
from robustgen.attacks.square import Square
from robustgen.objectives import classes_aimed_at, dlr, margin, targeted_dlr, targeted_margin
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel

ROUNDS = ((-math.inf, 8), (-0.3, 20), (-0.15, 60), (-0.1, 80))
"""(value of the DLR objective that an image must have reached to be attacked again, steps for each class)."""


@dataclass(frozen=True)
class Swift:
    """Auto-PGD on the DLR objective for `first` steps, then rounds of short targeted ascents, one for each class.

    Classes are in the order of the logits at the best point of the first ascent, not of the clean image; each ascent
    has a random start. A round attacks only images whose DLR objective came within its limit of 0, where they would be
    misclassified: the objective is invariant to the scale of the logits, so the limits have the same meaning for every
    model. All decisions are per image, so no image depends on another. Images that remain within the last limit are
    also attacked by Square, which needs no gradients. With fewer than 4 classes the margin replaces DLR, and every
    image is attacked in every round, because margins depend on the scale.
    """

    first: int = 20
    rounds: tuple[tuple[float, int], ...] = ROUNDS
    targets: int = 9
    queries: int = 1000

    @property
    def steps(self) -> int:
        """Steps of an image that is only attacked in the first round, like most images."""
        return self.first + self.targets * self.rounds[0][1]

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor:
        return self.search(model, images, targets, threat, rng).points

    @torch.no_grad()
    def search(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> AttackResult:
        """The first misclassified point of each image, else its best one; and the total number of steps."""
        labels, rng = targets, rng_or_default(rng, images)
        if not len(images):
            return AttackResult(images, labels.clone())
        logits = model(images)
        scaled = logits.shape[1] >= 4
        untargeted, targeted = (dlr, targeted_dlr) if scaled else (margin, targeted_margin)
        result, step, margins = APGD(self.first, untargeted).search(model, images, labels, threat, rng.at("first"))
        highest = cast(Tensor, margins)
        logits = model(result)
        reached, order = untargeted(logits, labels), classes_aimed_at(logits, labels)
        spent = self.first
        for number, (limit, steps) in enumerate(self.rounds):
            for rank in range(min(self.targets, order.shape[1])):
                row = ((step < 0) & ((reached > limit) | (not scaled))).nonzero().squeeze(1)
                if not len(row):
                    break
                aims = torch.stack([labels[row], order[row, rank]], dim=1)
                found = APGD(steps, targeted).search(
                    model, images[row], aims, threat, rng.at("round", number, rank).rows(row)
                )
                value = untargeted(model(found.points), labels[row])
                fooled = found.step >= 0
                highest[row] = torch.maximum(highest[row], cast(Tensor, found.margin))
                better = fooled | (value > reached[row])
                result[row[better]], reached[row[better]] = found.points[better], value[better]
                step[row[fooled]] = spent + found.step[fooled]
                spent += steps
        row = ((step < 0) & ((reached > self.rounds[-1][0]) | (not scaled))).nonzero().squeeze(1)
        if len(row):
            found = Square(self.queries).search(model, images[row], labels[row], threat, rng.at("square").rows(row))
            highest[row] = torch.maximum(highest[row], cast(Tensor, found.margin))
            fooled = found.step >= 0
            result[row[fooled]], step[row[fooled]] = found.points[fooled], spent + found.step[fooled]
        return AttackResult(result, step, highest)
