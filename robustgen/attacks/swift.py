"""A short cascade in one attack: untargeted ascent, then targeted ones from where it ended, likeliest class first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD
from robustgen.attacks.gradients import Found
from robustgen.objectives import classes_aimed_at, dlr, margin, targeted_dlr, targeted_margin
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Swift:
    """Auto-PGD on the DLR objective for `first` steps, then at one class after the other for the steps of `plan`.

    The classes come in the order of the logits at the best point so far, not of the clean image; each targeted ascent
    starts at that point. Everything is decided image by image, so that the result depends on no other image. Below 4
    classes margins take the place of DLR.
    """

    first: int = 20
    plan: tuple[int, ...] = (40, 40, 30, 30, 30, 20, 20, 20, 20)
    warm: bool = True

    @property
    def steps(self) -> int:
        return self.first + sum(self.plan)

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        return self.search(model, images, targets, threat, rng).points

    @torch.no_grad()
    def search(self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng) -> Found:
        """The first misclassified point of each image, else the best of the first ascent; and the step in all."""
        labels = targets
        classes = model(images[:1]).shape[1] if len(images) else 0
        untargeted, targeted = (dlr, targeted_dlr) if classes >= 4 else (margin, targeted_margin)
        result, step = APGD(self.first, untargeted).search(model, images, labels, threat, rng.at("first"))
        row = (step < 0).nonzero().squeeze(1)
        spent = self.first
        order = classes_aimed_at(model(result[row]), labels[row]) if len(row) else row[:, None]
        for rank, steps in enumerate(self.plan[: classes - 1]):
            if not len(row):
                break
            aims = torch.stack([labels[row], order[:, rank]], dim=1)
            found = APGD(steps, targeted).search(
                model, images[row], aims, threat, rng.at("class", rank).rows(row), result[row] if self.warm else None
            )
            fell = found.step >= 0
            result[row[fell]], step[row[fell]] = found.points[fell], spent + found.step[fell]
            row, order = row[~fell], order[~fell]
            spent += steps
        return Found(result, step)
