"""Attacks of several runs: random restarts, or one run per target class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustgen.attacks.common import rng_or_default
from robustgen.contracts import Attack, MultiRunAttack
from robustgen.objectives import classes_aimed_at
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Restarts:
    """An attack with `times` random restarts; `first`, if given, replaces the first run."""

    attack: Attack
    times: int = 5
    first: Attack | None = None

    def runs(self, classes: int) -> int:
        return self.times

    def attack_in(self, run: int) -> Attack:
        return self.first if self.first is not None and run == 0 else self.attack

    def targets_for(self, run: int, clean_logits: Tensor, labels: Tensor) -> Tensor:
        return labels

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor:
        return all_runs(self, model, images, targets, threat, rng)


@dataclass(frozen=True)
class MultiTargeted:
    """A targeted attack on one wrong class after the other, the most likely by the clean logits first.

    Run r targets the class of rank 1 + r mod T, T = min(`targets`, K - 1); its targets are pairs of label and class.

    Source: Gowal et al. 2019, arXiv:1910.09338. Whether the "10 restarts" of the papers' AA+MT are per class or in
    total is not stated; `restarts` is the total, or with `each=True` the number per class.
    """

    attack: Attack
    restarts: int = 10
    targets: int = 9
    each: bool = False

    def runs(self, classes: int) -> int:
        return self.restarts * min(self.targets, classes - 1) if self.each else self.restarts

    def attack_in(self, run: int) -> Attack:
        return self.attack

    def targets_for(self, run: int, clean_logits: Tensor, labels: Tensor) -> Tensor:
        aims = classes_aimed_at(clean_logits, labels)
        rank = run % min(self.targets, aims.shape[1])
        return torch.stack([labels, aims[:, rank]], dim=1)

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor:
        return all_runs(self, model, images, targets, threat, rng)


@torch.no_grad()
def all_runs(
    many: MultiRunAttack, model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, rng: Rng | None
) -> Tensor:
    """Make every run of an attack on the images that remain robust; others keep their adversarial example."""
    rng = rng_or_default(rng, images)
    clean_logits = model(images)
    result = images.clone()
    remaining = torch.arange(len(images), device=images.device)
    for run in range(many.runs(clean_logits.shape[1])):
        aims = many.targets_for(run, clean_logits[remaining], labels[remaining])
        found = many.attack_in(run)(model, images[remaining], aims, threat, rng.at("run", run).rows(remaining))
        result[remaining] = found
        remaining = remaining[model(found).argmax(1) == labels[remaining]]
        if not len(remaining):
            break
    return result
