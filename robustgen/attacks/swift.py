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
"""(value of the DLR objective that the ascent to a class must have reached for the class to be tried again, steps)."""


@dataclass(frozen=True)
class Swift:
    """Auto-PGD on the DLR objective for `first` steps, then rounds of short targeted ascents, one for each class.

    Classes are in the order of the logits at the best point of the first ascent, not of the clean image; each ascent
    has a random start. The first round tries every class. A later one tries, for each image, the classes whose ascents
    came within its limit of 0, where the image would be misclassified: the objective is invariant to the scale of the
    logits, so the limits have the same meaning for every model. All decisions are per image, so no image depends on
    another. Images whose objective came within `square_limit` are also attacked by Square, which needs no gradients.
    With fewer than 4 classes the margin replaces DLR, and every image is attacked in every round, because margins
    depend on the scale.

    The ascents of a round run together, in passes of at most as many images as are attacked: an image's result is that
    of the first class, in this order, at which it was misclassified.
    """

    first: int = 20
    rounds: tuple[tuple[float, int], ...] = ROUNDS
    targets: int = 9
    queries: int = 1000
    square_limit: float = -0.05

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
        scaled = model(images).shape[1] >= 4
        untargeted, targeted = (dlr, targeted_dlr) if scaled else (margin, targeted_margin)
        best = APGD(self.first, untargeted).search(model, images, labels, threat, rng.at("first"))
        logits = model(best.points)
        reached, order = untargeted(logits, labels), classes_aimed_at(logits, labels)[:, : self.targets]
        values = torch.full_like(order, -math.inf, dtype=reached.dtype)  # of each class, the highest so far
        values[:, 0] = reached
        spent = self.first
        for number, (limit, steps) in enumerate(self.rounds):
            near = (best.step < 0)[:, None] & ((values >= limit) | (not scaled))
            streams = [rng.at("round", number, rank) for rank in range(order.shape[1])]
            for pairs in near.T.nonzero().split(len(images)) if near.any() else ():
                rank, row = pairs.T
                aims = torch.stack([labels[row], order[row, rank]], dim=1)
                found = APGD(steps, targeted).search(model, images[row], aims, threat, _joined(streams, rank, row))
                value = untargeted(model(found.points), labels[row])
                values[row, rank] = torch.maximum(values[row, rank], value)
                for each in rank.unique():
                    here = rank == each
                    part = AttackResult(*(cast(Tensor, column)[here] for column in found))
                    _keep(best, reached, row[here], part, value[here], spent + int(each) * steps)
            spent += order.shape[1] * steps
        row = ((best.step < 0) & ((reached >= self.square_limit) | (not scaled))).nonzero().squeeze(1)
        if len(row):
            square = Square(self.queries)
            found = square.search(model, images[row], labels[row], threat, rng.at("square").rows(row))
            _keep(best, reached, row, found, untargeted(model(found.points), labels[row]), spent)
        return best


def _joined(streams: list[Rng], rank: Tensor, row: Tensor) -> Rng:
    """The random numbers of ascents: those of the image's row in the stream of the rank of the class aimed at."""
    single = streams[0].keys.ndim == 0
    return streams[int(rank[0])] if single else Rng(torch.stack([stream.keys for stream in streams])[rank, row])


def _keep(best: AttackResult, reached: Tensor, row: Tensor, found: AttackResult, value: Tensor, spent: int) -> None:
    """Enter what an attack found for some rows, each at most once, into the best so far, in place."""
    margins = cast(Tensor, best.margin)
    margins[row] = torch.maximum(margins[row], cast(Tensor, found.margin))
    stands = best.step[row] < 0
    fooled = stands & (found.step >= 0)
    better = fooled | (stands & (value > reached[row]))
    best.points[row[better]], reached[row[better]] = found.points[better], value[better]
    best.step[row[fooled]] = spent + found.step[fooled]
