"""Optimal transport between real and generated images of a class: the conditional Wasserstein distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustgen.analysis.contracts import ProxySubject
from robustgen.analysis.subjects import check_subject, digest, pairwise_distances, to_floats
from robustgen.contracts import Progress, silent
from robustgen.randomness import Rng, rng_for
from robustgen.records.record import About
from robustgen.records.transport import Transport as Record


@dataclass(frozen=True)
class Solved:
    """An optimal transport cost W of n onto m points, uniform weights.

    lower, upper   lower <= W <= upper, up to rounding; equal where it is exact
    first, second  (n,), (m,) prices with first_i + second_j <= cost_ij; mean first + mean second = lower
    """

    lower: float
    upper: float
    first: np.ndarray
    second: np.ndarray


def exact(cost: np.ndarray) -> Solved:
    """The cost of the optimal coupling of uniform weights on both sides of `cost` (n, m), and its prices.

    Equal sides are an assignment, for which scipy is enough (with the prices about as fast as POT's network simplex, so
    a result does not depend on whether POT is there); unequal ones need POT.

    Raises:
        ValueError: unequal sides without POT.
    """
    cost = np.asarray(cost, dtype=np.float64)
    if cost.shape[0] != cost.shape[1]:
        return _by_simplex(cost)
    from scipy.optimize import linear_sum_assignment

    partner = linear_sum_assignment(cost)[1]
    paid = cost[np.arange(len(cost)), partner]
    # Prices from the assignment are shortest paths: first_i = min_k (first_k + cost_(i, partner k) - paid_k).
    saved = cost[:, partner] - paid
    first = np.zeros(len(cost))
    for _ in range(len(cost)):
        shorter = np.minimum(first, (saved + first).min(1))
        if np.array_equal(shorter, first):
            break
        first = shorter
    second = np.empty_like(first)
    second[partner] = paid - first
    value = float(paid.mean())
    return Solved(value, value, first, second)


def _by_simplex(cost: np.ndarray) -> Solved:
    try:
        import ot
    except ImportError:
        raise ValueError(
            f"exact transport of {cost.shape[0]} onto {cost.shape[1]} images needs POT: pip install robustgen[pot]; "
            "or take as many of both"
        ) from None
    ends = [np.full(count, 1 / count) for count in cost.shape]
    value, log = ot.emd2(*ends, cost, log=True, numItermax=10_000_000)
    if log["warning"]:
        raise ValueError(
            f"POT did not solve transport of {cost.shape[0]} onto {cost.shape[1]} images: {log['warning']}"
        )
    second = (cost - log["u"][:, None]).min(0)
    return Solved(float(value), float(value), np.asarray(log["u"]), second)


def sinkhorn(cost: np.ndarray, *, blur: float = 0.01, iterations: int = 2000) -> Solved:
    """Both ends of the transport cost, by entropic regularisation (Cuturi 2013, arXiv:1306.0895), in the log domain.

    The regularisation falls to `blur` times the mean cost. `lower` is the value of the prices after each takes all that
    the other leaves (so they are allowed), `upper` the cost of the coupling rounded to its margins (Altschuler et al.
    2017, arXiv:1705.09634): W lies between whatever the blur.

    Args:
        blur: smaller is tighter and slower.
        iterations: at the last regularisation, at most; fewer where the margins are met to 0.1 %.
    """
    costs = torch.from_numpy(np.asarray(cost, dtype=np.float64))
    n, m = costs.shape
    first, second = torch.zeros(n, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    scale = max(float(costs.mean()), 1e-30)
    log_n, log_m = float(np.log(n)), float(np.log(m))
    strength = float(costs.max()) or 1.0
    while True:
        strength = max(strength / 2, blur * scale)
        last = strength == blur * scale
        for step in range(iterations if last else 10):
            first = -strength * (torch.logsumexp((second - costs) / strength, 1) - log_m)
            second = -strength * (torch.logsumexp((first[:, None] - costs) / strength, 0) - log_n)
            if last and step % 20 == 19:
                rows = torch.logsumexp((first[:, None] + second - costs) / strength, 1) - log_m
                if float((rows.exp() - 1).abs().mean()) < 1e-3:
                    break
        if last:
            break
    plan = ((first[:, None] + second - costs) / strength).exp() / (n * m)
    plan *= (1 / n / plan.sum(1, keepdim=True)).clamp_max(1)
    plan *= (1 / m / plan.sum(0, keepdim=True)).clamp_max(1)
    lacks = (1 / n - plan.sum(1)).clamp_min(0), (1 / m - plan.sum(0)).clamp_min(0)
    upper = float((plan * costs).sum())
    if float(lacks[0].sum()) > 0:
        upper += float(lacks[0] @ costs @ lacks[1] / lacks[0].sum())
    second = (costs - first[:, None]).amin(0)
    first = (costs - second).amin(1)
    return Solved(float(first.mean() + second.mean()), upper, first.numpy(), second.numpy())


def sliced(first: Tensor, second: Tensor, norm: str, projections: int, rng: Rng) -> float:
    """A lower end of the transport cost of rows (n, D) onto rows (m, D) in `norm`, in n log n.

    The mean over random directions u of the transport cost of u.x, with u of length 1 in the dual norm: then
    |u.(x - y)| <= |x - y|. Of the same order in all dimensions up to a constant: a random u sees about
    1 / sqrt(D) of a move in l2, so this end is far below; it compares sets of equal dimension.
    """
    directions = rng.normal((projections, first.shape[1])).double()
    dual = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm]
    directions /= directions.norm(p=dual, dim=1, keepdim=True)
    total = 0.0
    for direction in directions.split(16):
        total += float(_sorted_distance(first.double() @ direction.T, second.double() @ direction.T).sum())
    return total / projections


def _sorted_distance(first: Tensor, second: Tensor) -> Tensor:
    """(P,) 1-Wasserstein distance of the columns of (n, P) and (m, P): the area between their quantile functions."""
    n, m = len(first), len(second)
    first, second = first.sort(0).values, second.sort(0).values
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = torch.diff(ends, prepend=ends.new_zeros(1)).double() / (n * m)
    middles = ends - 1  # of each piece, in units of 1 / (n m), any point inside will do
    gaps = (first[middles.div(m, rounding_mode="floor")] - second[middles.div(n, rounding_mode="floor")]).abs()
    return (gaps * widths.to(gaps.device)[:, None]).sum(0)


METHODS: dict[str, Callable[[np.ndarray], Solved]] = {"exact": exact, "sinkhorn": sinkhorn}
"""Those that take a matrix of costs; `sliced` takes images."""


@dataclass(frozen=True)
class Transport:
    """The conditional Wasserstein distance between test images and generated images.

        cwd = sum_y P(y) W(real | y, generated | y),     W = min over couplings of the mean distance moved

    Labels are the real ones, and those of the generated images. In each class as many generated as real images are
    taken (chosen at random), so that the distance can be compared with that among real images, which samples of this
    size have too: the real images of a class are split in half, and each half's distance to the other, and to as many
    generated images, is found.

    Source: arXiv:2104.09425.
    """

    method: str = "exact"
    """exact: minutes from 5,000 images of a class on. sinkhorn: both ends, a few per cent apart; memory n * m. sliced:
    the lower end alone, for any number."""
    per_class: int = 1000
    """At most so many images of a class, real and generated each."""
    all_generated: bool = False
    """Take up to `per_class` generated images though there are fewer real ones; unequal numbers need POT if exact."""
    projections: int = 512
    """Of sliced."""

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, "sliced"):
            raise ValueError(f"unknown method {self.method!r}; known: {', '.join(METHODS)}, sliced")
        for name in ("per_class", "projections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def __call__(
        self,
        subject: ProxySubject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> Record:
        """Measure the distance of `subject.test` and `subject.generated`.

        Raises:
            ValueError: a class without generated images, unequal numbers without POT, or `path` holds something else.
        """
        check_subject(subject)
        about = self.about(subject, seed)
        if found := Record.resume(path, about):
            return found
        classes = len(subject.info.classes)
        real_labels, generated_labels = (
            labels.cpu().numpy().astype(np.int64) for labels in (subject.test_labels, subject.generated_labels)
        )
        shares, theirs = (_shares(labels, classes) for labels in (real_labels, generated_labels))
        per_class = {name: np.full(classes, np.nan) for name in ("lower", "upper", "among_real", "at_half")}
        rows: dict[str, list[np.ndarray]] = {"real": [], "generated": [], "first": [], "second": []}
        present = np.flatnonzero(shares)
        for k in present:
            rng = rng_for(seed, "transport", int(k), device=subject.test.device)
            real = _some(real_labels, int(k), self.per_class, rng.at("real"))
            wanted = self.per_class if self.all_generated else len(real)
            generated = _some(generated_labels, int(k), wanted, rng.at("generated"))
            if not len(generated):
                raise ValueError(
                    f"no generated image has label {subject.info.classes[k]}, which real images have: the conditional "
                    "distance needs every class on both sides; sample more, or label them by the class asked for"
                )
            if not self.all_generated:
                real = real[: len(generated)]
            sides = [_rows(subject.test, real), _rows(subject.generated, generated)]
            whole = self._solve(sides[0], sides[1], subject.threat.norm, rng)
            per_class["lower"][k], per_class["upper"][k] = whole.lower, whole.upper
            half = len(real) // 2
            if half and len(generated) >= half:
                for name, other in (("among_real", sides[0][half : 2 * half]), ("at_half", sides[1][:half])):
                    solved = self._solve(sides[0][:half], other, subject.threat.norm, rng)
                    per_class[name][k] = solved.lower if self.method == "sliced" else solved.upper
            for name, values in zip(rows, (real, generated, whole.first, whole.second), strict=True):
                rows[name].append(values)
            progress(int(np.searchsorted(present, k)) + 1, len(present), "classes")
        joined = {name: np.concatenate(parts) for name, parts in rows.items()}
        record = Record(
            about=about,
            shares=shares,
            generated_shares=theirs,
            real=joined["real"],
            generated=joined["generated"],
            real_label=real_labels[joined["real"]],
            generated_label=generated_labels[joined["generated"]],
            real_potential=joined["first"],
            generated_potential=joined["second"],
            **per_class,
        )
        if path is not None:
            record.save(path)
        return record

    def about(self, subject: ProxySubject, seed: int) -> About:
        """What the record of a subject is of."""
        inputs = digest(subject.test, subject.test_labels, subject.generated, subject.generated_labels)
        return About(repr(self), subject.threat.norm, seed, inputs)

    def _solve(self, real: Tensor, generated: Tensor, norm: str, rng: Rng) -> Solved:
        if self.method == "sliced":
            lower = sliced(real, generated, norm, self.projections, rng.at("directions"))
            return Solved(lower, np.nan, np.full(len(real), np.nan), np.full(len(generated), np.nan))
        return METHODS[self.method](pairwise_distances(real, generated, norm).cpu().numpy())


def _shares(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(labels, minlength=classes) / len(labels)


def _some(labels: np.ndarray, label: int, count: int, rng: Rng) -> np.ndarray:
    """Positions of at most `count` images of a class, in random order."""
    rows = np.flatnonzero(labels == label)
    return rows[rng.permutation(len(rows))[:count]]


def _rows(images: Tensor, index: np.ndarray) -> Tensor:
    return to_floats(images[torch.from_numpy(index).to(images.device)]).flatten(1)
