"""Square attack: random search with square windows, no gradients (Andriushchenko et al. 2020, arXiv:1912.00049)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustgen.attacks.common import AttackResult, raised, rng_or_default
from robustgen.objectives import Objective, margin
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the windows' share of the image is halved; published for 10,000 queries, not rescaled."""

_BLOCK = 500
"""Queries whose random numbers are drawn at a time."""


@dataclass(frozen=True)
class Square:
    """Random search that changes one window at a time and accepts what raises the objective, or is misclassified.

    linf   starts as vertical stripes of +-eps; a proposal sets a window to x0 +- eps, with one sign per channel
    l2     starts as a mosaic of bumps scaled to norm eps; a proposal clears one window and adds its mass, and the
           rest of the radius, to another
    l1     the same with masses in l1, and steeper bumps; projected onto ball and box

    A window's side is sqrt(p H W), at most the image's (in l2 and l1 odd, at least 3), with p = `share`, halved at the
    queries `HALVED_AFTER`. Windows can be anywhere; the authors' code never reaches the last row and column.
    Proposals equal to the current image are not evaluated: they cannot change anything. Each image has its own random
    numbers, and its search ends when it is misclassified.
    """

    queries: int = 5000
    share: float = 0.8
    objective: Objective = margin

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ValueError(f"an attack needs at least 1 query, got {self.queries}")
        if not 0 < self.share <= 1:
            raise ValueError(f"the windows' share of the image must lie in (0, 1], got {self.share}")

    @property
    def steps(self) -> int:
        return self.queries

    def side(self, query: int, height: int, width: int) -> float:
        """Side of a window in pixels, before the norm's own rounding."""
        halvings = sum(query > after for after in HALVED_AFTER)
        return math.sqrt(self.share / 2**halvings * height * width)

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor:
        return self.search(model, images, targets, threat, rng).points

    @torch.no_grad()
    def search(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> AttackResult:
        """The best allowed image for each, the query at which it was misclassified, and the largest margin."""
        rng = rng_or_default(rng, images)
        state = (_Signs if threat.norm == "linf" else _Masses)(images, threat, rng)
        points = state.points
        result = points.clone()
        row = torch.arange(len(images), device=images.device)
        found_at = torch.full_like(row, -1)
        logits = model(points)
        best, fooled = self.objective(logits, targets), logits.argmax(1) != targets
        reached = margin(logits, targets)
        draws = images.new_empty(0)
        for query in range(self.queries):
            if fooled.any():
                result[row[fooled]], found_at[row[fooled]] = state.points[fooled], query
                stays = ~fooled
                row, targets, best, rng = row[stays], targets[stays], best[stays], rng.rows(stays)
                draws = draws[stays] if len(draws) == len(stays) else draws
                state.keep(stays)
                fooled = fooled[stays]
            if not len(row) or query == self.queries - 1:
                break  # the start was the first query
            if query % _BLOCK == 0:
                draws = rng.uniform((len(row), _BLOCK, state.draws))
            side = self.side(query, *images.shape[2:])
            proposal, changed = state.propose(side, draws[:, query % _BLOCK])
            if changed is not None and not changed.any():
                continue
            seen = proposal if changed is None else proposal[changed]
            logits = model(seen)
            aims = targets if changed is None else targets[changed]
            value, wrong = self.objective(logits, aims), logits.argmax(1) != aims
            seen_rows = row if changed is None else row[changed]
            reached[seen_rows] = raised(reached[seen_rows], logits, aims)
            if changed is not None:
                value = best.masked_scatter(changed, value)
                wrong = torch.zeros_like(fooled).masked_scatter(changed, wrong)
            better = (value > best) | wrong
            if better.any():
                state.accept(better)
                best = torch.where(better, value, best)
            fooled = wrong
        result[row] = state.points
        return AttackResult(result, found_at, reached)


def _wide(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)


def _places(draws: Tensor, extent: int, side: int) -> Tensor:
    """(N,) first row or column of windows, uniform among all that fit."""
    return (draws * (extent - side + 1)).long()


class _Signs:
    """linf: every pixel is at the upper or the lower end of its range, so one bit per pixel is stored.

    points   the current images
    draws    number of uniform numbers per image that a proposal needs
    propose  new images, and which of them differ from the current ones (None if all of them may)
    accept   replace the current images by the last proposal where it was better
    keep     drop all images except these
    """

    def __init__(self, images: Tensor, threat: ThreatModel, rng: Rng):
        count, channels, height, width = images.shape
        self.upper, self.lower = (images + threat.eps).clamp_(max=1), (images - threat.eps).clamp_(min=0)
        stripes = rng.uniform((count, channels, 1, width)) < 0.5
        self.up = stripes.expand(-1, -1, height, -1).contiguous()
        self.points = torch.where(self.up, self.upper, self.lower)
        self.rows = torch.arange(height, device=images.device)
        self.columns = torch.arange(width, device=images.device)
        self.draws = 2 + channels

    def propose(self, side: float, draws: Tensor) -> tuple[Tensor, Tensor | None]:
        height, width = len(self.rows), len(self.columns)
        length = min(max(round(side), 1), height, width)
        top, left = _places(draws[:, :1], height, length), _places(draws[:, 1:2], width, length)
        tall = (self.rows >= top) & (self.rows < top + length)
        broad = (self.columns >= left) & (self.columns < left + length)
        inside = (tall[:, :, None] & broad[:, None, :])[:, None]
        sign = draws[:, 2:, None, None] < 0.5
        self.new = torch.where(inside, sign, self.up)
        changed = (self.new ^ self.up).flatten(1).any(1)
        return torch.where(self.new, self.upper, self.lower), None if changed.all() else changed

    def accept(self, better: Tensor) -> None:
        self.up[better] = self.new[better]
        self.points[better] = torch.where(self.new[better], self.upper[better], self.lower[better])

    def keep(self, stays: Tensor) -> None:
        self.upper, self.lower, self.up, self.points = (
            x[stays] for x in (self.upper, self.lower, self.up, self.points)
        )


class _Masses:
    """The same for l2 and l1, where mass is moved from one window to another."""

    def __init__(self, images: Tensor, threat: ThreatModel, rng: Rng):
        count, channels, height, width = images.shape
        self.images, self.threat = images, threat
        self.power = 2 if threat.norm == "l2" else 1
        side = max(height // 5, 1)
        first = (height - 5 * side) // 2 if height >= 5 else 0
        moves = torch.zeros_like(images)
        tile = bump(side, self.power).to(images)
        tops = range(first, height - side + 1, side)
        lefts = range(first, width - side + 1, side)
        signs = rng.uniform((count, channels, len(tops) * len(lefts) or 1)) < 0.5
        turned = rng.uniform((count, 1)) < 0.5
        tile = torch.where(turned.view(-1, 1, 1, 1), tile.T, tile)
        for number, (top, left) in enumerate(itertools.product(tops, lefts)):
            sign = torch.where(signs[:, :, number], 1.0, -1.0)[:, :, None, None]
            moves[:, :, top : top + side, left : left + side] = sign * tile
        self.points = self._allowed(moves)
        self.draws = 5 + channels

    def _allowed(self, moves: Tensor) -> Tensor:
        if self.power == 2:  # scaled onto the sphere, then clipped
            length = _wide(self.threat.length(moves)).clamp_min(1e-12)
            return (self.images + moves / length * self.threat.eps).clamp_(0, 1)
        return self.threat.project(self.images + moves, self.images)

    def _mass(self, values: Tensor, dims: int | tuple[int, ...]) -> Tensor:
        """Norm over some axes, which are kept."""
        return values.norm(p=self.power, dim=dims, keepdim=True)

    def propose(self, side: float, draws: Tensor) -> tuple[Tensor, Tensor | None]:
        count, channels, height, width = self.images.shape
        length = max(round(side), 3)
        length = min(length + (length % 2 == 0), height, width)
        across = torch.arange(length, device=draws.device)
        windows = []
        for number in (0, 2):
            top = _places(draws[:, number], height, length)[:, None] + across
            left = _places(draws[:, number + 1], width, length)[:, None] + across
            windows.append((top[:, :, None] * width + left[:, None, :]).flatten(1)[:, None].expand(-1, channels, -1))
        here, there = windows
        moves = (self.points - self.images).flatten(2)
        spent = self._mass(moves, (1, 2))
        union = torch.zeros_like(moves).scatter_(2, here, 1.0).scatter_(2, there, 1.0)
        # As in the authors' code, the mass of windows is over all channels in l2, per channel in l1.
        freed = self._mass(moves * union, (1, 2) if self.power == 2 else 2)
        old = moves.gather(2, here)
        heap = bump(length, self.power).to(moves)
        heap = torch.where(draws[:, 4, None, None] < 0.5, heap.T, heap).flatten(1)[:, None]
        new = torch.where(draws[:, 5:, None] < 0.5, heap, -heap) + old / (self._mass(old, 2) + 1e-12)
        new = new / (self._mass(new, 2) + 1e-12)
        if self.power == 2:
            spare = (self.threat.eps**2 - spent.square()).clamp_min(0)
            new = new * (spare / channels + freed.square()).sqrt()
        else:
            spare = (self.threat.eps - spent).clamp_min(0)
            new = new * (spare / channels + freed) * channels
        moves = moves.scatter(2, there, 0.0).scatter(2, here, new)
        self.proposal = self._allowed(moves.view(count, channels, height, width))
        return self.proposal, None

    def accept(self, better: Tensor) -> None:
        self.points[better] = self.proposal[better]

    def keep(self, stays: Tensor) -> None:
        self.images, self.points = self.images[stays], self.points[stays]


def bump(side: int, power: int) -> Tensor:
    """(side, side): a pyramid in the upper half and an inverted one in the lower, of norm 1.

    A pyramid is a stack of rectangles around a center, with ring n (from 1) of height n^-2, in l1 n^-4.
    """
    half = side // 2
    whole = torch.zeros(side, side)
    if half:
        whole[:half] = _pyramid(half, side, power)
    whole[half:] = -_pyramid(side - half, side, power)
    return whole / whole.norm(p=power)


def _pyramid(height: int, width: int, power: int) -> Tensor:
    middle = height // 2 + 1, width // 2 + 1
    stack = torch.zeros(height, width)
    top, left = middle[0] - 1, middle[1] - 1
    for ring in range(max(middle)):
        rows = slice(max(top - ring, 0), min(top + ring + 1, height))
        columns = slice(max(left - ring, 0), min(left + ring + 1, width))
        stack[rows, columns] += 1 / (ring + 1) ** (2 if power == 2 else 4)
    return stack / stack.norm(p=power)
