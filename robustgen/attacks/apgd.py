"""Auto-PGD: projected ascent with momentum that halves its own step (Croce & Hein 2020, arXiv:2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustgen.attacks.apgd_l1 import sparse_search
from robustgen.attacks.common import AttackResult, averaged_value_and_grad, raised, rng_or_default
from robustgen.objectives import Objective, cross_entropy, hard_labels, margin
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


def checkpoints(steps: int) -> tuple[int, ...]:
    """Steps after which the step size may be halved: windows of 22 % of the steps, 3 % less each time, at least 6 %."""
    window, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    places, place = [], window
    while place <= steps:
        places.append(place)
        window = max(window - less, least)
        place += window
    return tuple(places)


@dataclass(frozen=True)
class APGD:
    """Auto-PGD, without hyperparameters to tune.

        z = project(x + a * ascend(gradient));  x <- project(x + 0.75 (z - x) + 0.25 (x - x_before))

    from a random point on the boundary, with a = 2 eps initially. At a checkpoint the step size of an image is halved,
    and it returns to its best point, if at most `rho` of the window's steps raised its objective, or if neither step
    size nor best value changed since the previous checkpoint. The search of an image ends at its first misclassified
    iterate; if there is none, the point with the highest objective is returned.

    The first window compares its first step with the start; the original compares that step with zero.
    In l1 it is the sparse variant of `attacks.apgd_l1`.
    """

    steps: int = 100
    objective: Objective = cross_entropy
    rho: float = 0.75
    eot: int = 1
    """Passes averaged for each gradient of a stochastic model (EOT, expectation over transformation)."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"an attack needs at least 1 step, got {self.steps}")

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor:
        return self.search(model, images, targets, threat, rng).points

    def search(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        threat: ThreatModel,
        rng: Rng | None = None,
        start: Tensor | None = None,
    ) -> AttackResult:
        """The first misclassified iterate of each image, else its best; the step, 0 being the start; and the margin.

        `start` replaces the random one; in l1, where the search starts outside the ball, it is not used.
        """
        rng = rng_or_default(rng, images)
        if threat.norm == "l1":
            return sparse_search(model, images, targets, threat, rng, self.steps, self.objective, self.eot)
        start = threat.boundary_start(images, rng) if start is None else start
        result = start.clone()
        logits, value, gradient = averaged_value_and_grad(model, start, targets, self.objective, self.eot)
        count = len(images)
        found_at = torch.full((count,), -1, dtype=torch.int64, device=images.device)
        reached = margin(logits, hard_labels(targets))
        state = {
            "row": torch.arange(count, device=images.device),
            "images": images,
            "targets": targets,
            "seen": start,  # the points of the last pass; `points` may have been reset to the best since
            "points": start,
            "before": start,
            "gradient": gradient,
            "value": value,
            "best": start,
            "best_value": value,
            "best_gradient": gradient,
            "step": value.new_full((count,), 2 * threat.eps),
            "rises": value.new_zeros(count),
            "checked_value": value,
            "halved": torch.ones(count, dtype=torch.bool, device=images.device),
        }
        ends = checkpoints(self.steps)
        last_end = 0
        for step in range(1, self.steps + 2):
            fooled = logits.argmax(1) != hard_labels(state["targets"])
            if fooled.any():
                result[state["row"][fooled]] = state["seen"][fooled]
                found_at[state["row"][fooled]] = step - 1
                state = {name: column[~fooled] for name, column in state.items()}
            if step > self.steps or not len(state["row"]):
                break
            self._move(state, threat, 0.75 if step > 1 else 1.0)
            logits, value, gradient = averaged_value_and_grad(
                model, state["points"], state["targets"], self.objective, self.eot
            )
            self._remember(state, value, gradient)
            reached[state["row"]] = raised(reached[state["row"]], logits, state["targets"])
            if step in ends:
                self._consider_halving(state, step - last_end)
                last_end = step
        result[state["row"]] = state["best"]
        return AttackResult(result, found_at, reached)

    @staticmethod
    def _move(state: dict[str, Tensor], threat: ThreatModel, share: float) -> None:
        points, images = state["points"], state["images"]
        step = state["step"].view(-1, *([1] * (points.ndim - 1)))
        aim = threat.project(points + step * threat.ascend(state["gradient"]), images)
        moved = points + share * (aim - points) + (1 - share) * (points - state["before"])
        state["before"], state["points"] = points, threat.project(moved, images)
        state["seen"] = state["points"]

    @staticmethod
    def _remember(state: dict[str, Tensor], value: Tensor, gradient: Tensor) -> None:
        state["rises"] = state["rises"] + (value > state["value"])
        state["value"], state["gradient"] = value, gradient
        better = value > state["best_value"]
        wide = better.view(-1, *([1] * (gradient.ndim - 1)))
        state["best"] = torch.where(wide, state["points"], state["best"])
        state["best_gradient"] = torch.where(wide, gradient, state["best_gradient"])
        state["best_value"] = torch.where(better, value, state["best_value"])

    def _consider_halving(self, state: dict[str, Tensor], window: int) -> None:
        few_rises = state["rises"] <= self.rho * window
        stuck = ~state["halved"] & (state["checked_value"] >= state["best_value"])
        halve = few_rises | stuck
        wide = halve.view(-1, *([1] * (state["points"].ndim - 1)))
        state["step"] = torch.where(halve, state["step"] / 2, state["step"])
        state["points"] = torch.where(wide, state["best"], state["points"])
        state["gradient"] = torch.where(wide, state["best_gradient"], state["gradient"])
        state["halved"], state["checked_value"] = halve, state["best_value"]
        state["rises"] = torch.zeros_like(state["rises"])
