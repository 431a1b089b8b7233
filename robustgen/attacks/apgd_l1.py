"""Auto-PGD in l1: sparse steps, and a radius that shrinks to the allowed one (Croce & Hein 2021, arXiv:2103.01208)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustgen.attacks.common import AttackResult, averaged_value_and_grad, raised
from robustgen.objectives import Objective, hard_labels, margin
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel

PHASES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""(radius as a multiple of eps, share of the steps)."""


def phase_steps(steps: int) -> tuple[int, ...]:
    """Steps of each phase, all of them together `steps`."""
    first = [min(math.ceil(share * steps), steps) for _, share in PHASES[:-1]]
    return (*first, max(steps - sum(first), 0))


def sparse_search(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    threat: ThreatModel,
    rng: Rng,
    steps: int,
    objective: Objective,
    eot: int,
) -> AttackResult:
    """Ascent along the k steepest pixels, projected on ball and box; k and the step size adapt to the best point.

    Three phases maximize the objective within 3, 2 and 1 times the radius, each from the projected best point of the
    previous one; only the last may end an image's search as misclassified. Every 4 % of a phase's steps k becomes the
    number of pixels changed in the best point over 1.5; where that number decreased by more than 5 % the
    step is reset to the radius and the iterate to the best point, elsewhere the step is divided by 1.5, down to a tenth
    of the radius.
    """
    start = ThreatModel("l1", PHASES[0][0] * threat.eps).boundary_start(images, rng)
    plan = [(factor, count) for (factor, _), count in zip(PHASES, phase_steps(steps), strict=True)]
    for factor, count in plan[:-1]:
        wider = ThreatModel("l1", factor * threat.eps)
        start = _run_phase(model, images, targets, wider, start, count, objective, eot, leave=False).points
    return _run_phase(model, images, targets, threat, start, plan[-1][1], objective, eot, leave=True)


def _run_phase(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    threat: ThreatModel,
    start: Tensor,
    steps: int,
    objective: Objective,
    eot: int,
    leave: bool,
) -> AttackResult:
    points = threat.project(start, images)
    result = points.clone()
    found_at = torch.full((len(images),), -1, dtype=torch.int64, device=images.device)
    row = torch.arange(len(images), device=images.device)
    pixels = images[0].numel()
    logits, value, gradient = averaged_value_and_grad(model, points, targets, objective, eot)
    best, best_value, best_gradient = points, value, gradient
    reached = margin(logits, hard_labels(targets))
    changed = _changed_pixels(points, images)
    count = changed / 1.5
    length = torch.full_like(value, threat.eps)
    window = max(int(0.04 * steps), 1)
    for step in range(1, steps + 2):
        fooled = (logits.argmax(1) != hard_labels(targets)) if leave else torch.zeros_like(row, dtype=torch.bool)
        if fooled.any():
            result[row[fooled]], found_at[row[fooled]] = points[fooled], step - 1
            stays = ~fooled
            row, images, targets, points, gradient = (x[stays] for x in (row, images, targets, points, gradient))
            best, best_value, best_gradient = best[stays], best_value[stays], best_gradient[stays]
            changed, count, length = changed[stays], count[stays], length[stays]
        if step > steps or not len(row):
            break
        points = threat.project(points + _sparse_step(gradient, count, pixels) * _wide(length), images)
        logits, value, gradient = averaged_value_and_grad(model, points, targets, objective, eot)
        reached[row] = raised(reached[row], logits, targets)
        better = value > best_value
        best = torch.where(_wide(better), points, best)
        best_gradient = torch.where(_wide(better), gradient, best_gradient)
        best_value = torch.where(better, value, best_value)
        if step % window == 0:
            now = _changed_pixels(best, images)
            sparser = now < 0.95 * changed
            length = torch.where(sparser, torch.full_like(length, threat.eps), length / 1.5)
            length = length.clamp(threat.eps / 10, threat.eps)
            count, changed = now / 1.5, now
            # `fooled` refers to the last pass, so a misclassified iterate must be recorded before it is reset.
            back = sparser & ((logits.argmax(1) == hard_labels(targets)) | (not leave))
            points = torch.where(_wide(back), best, points)
            gradient = torch.where(_wide(back), best_gradient, gradient)
    result[row] = best
    return AttackResult(result, found_at, reached)


def _wide(column: Tensor) -> Tensor:
    return column.view(-1, 1, 1, 1)


def _changed_pixels(points: Tensor, images: Tensor) -> Tensor:
    """(N,) number of values that differ, as float."""
    return (points != images).flatten(1).sum(1).float()


def _sparse_step(gradient: Tensor, count: Tensor, pixels: int) -> Tensor:
    """Signs of the `count` largest gradient values, divided by their number: l1 norm 1."""
    size = gradient.abs().flatten(1)
    place = (pixels - count).clamp(0, pixels - 1).long()[:, None]
    least = size.sort(dim=1).values.gather(1, place)
    signs = torch.where(size >= least, gradient.flatten(1).sign(), torch.zeros_like(size))
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1e-10)).view_as(gradient)
