"""Optimal transport between real and generated images of each class: the conditional Wasserstein distance."""

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
from robustgen.records.transport import TransportRecord


@dataclass(frozen=True)
class Solved:
    """The optimal transport cost W between n and m points with uniform weights.

    lower, upper   bounds: lower <= W <= upper, up to rounding; equal if W is exact
    first, second  (n,), (m,) dual potentials: first_i + second_j <= cost_ij, and mean first + mean second = lower
    """

    lower: float
    upper: float
    first: np.ndarray
    second: np.ndarray


def exact(cost: np.ndarray) -> Solved:
    """Exact optimal transport for `cost` (n, m) with uniform weights, and its dual potentials.

    For n = m this is an assignment problem that scipy solves, about as fast as POT's network simplex; so results do not
    depend on whether POT is installed. For n != m POT is required.

    Raises:
        ValueError: n != m and POT is not installed, or POT fails.
    """
    cost = np.asarray(cost, dtype=np.float64)
    if cost.shape[0] != cost.shape[1]:
        return _by_simplex(cost)
    from scipy.optimize import linear_sum_assignment

    partner = linear_sum_assignment(cost)[1]
    paid = cost[np.arange(len(cost)), partner]
    # Dual potentials of an assignment are shortest paths: first_i = min_k (first_k + cost_(i, partner k) - paid_k).
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
            f"exact transport of {cost.shape[0]} to {cost.shape[1]} images needs POT; run pip install robustgen[pot], "
            "or use equal numbers of images"
        ) from None
    ends = [np.full(count, 1 / count) for count in cost.shape]
    value, log = ot.emd2(*ends, cost, log=True, numItermax=10_000_000)
    if log["warning"]:
        raise ValueError(
            f"POT failed to solve transport of {cost.shape[0]} to {cost.shape[1]} images ({log['warning']}); use "
            "method=sinkhorn"
        )
    second = (cost - log["u"][:, None]).min(0)
    return Solved(float(value), float(value), np.asarray(log["u"]), second)


def sinkhorn(cost: np.ndarray, *, blur: float = 0.01, iterations: int = 2000) -> Solved:
    """Bounds of the transport cost by Sinkhorn's algorithm in the log domain (Cuturi 2013, arXiv:1306.0895).

    The regularization decreases to `blur` times the mean cost. `lower` is the dual value of the potentials after they
    are made feasible; `upper` is the cost of the coupling after rounding to its marginals (Altschuler et al. 2017,
    arXiv:1705.09634). Both bounds are valid for any blur.

    Args:
        blur: final regularization; smaller is tighter and slower.
        iterations: most iterations at the final regularization; fewer if the marginals are met to 0.1 %.
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
    """Sliced lower bound of the transport cost between rows (n, D) and (m, D) in `norm`, in O(n log n).

    It is the mean over random directions u of the transport cost of the projections u.x. Directions have dual norm 1,
    so |u.(x - y)| <= |x - y|. The bound is loose, in l2 by a factor of about sqrt(D); use it to compare sets of equal
    dimension.
    """
    directions = rng.normal((projections, first.shape[1])).double()
    dual = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm]
    directions /= directions.norm(p=dual, dim=1, keepdim=True)
    total = 0.0
    for direction in directions.split(16):
        total += float(_sorted_distance(first.double() @ direction.T, second.double() @ direction.T).sum())
    return total / projections


def _sorted_distance(first: Tensor, second: Tensor) -> Tensor:
    """(P,) 1-Wasserstein distances between columns of (n, P) and (m, P): areas between their quantile functions."""
    n, m = len(first), len(second)
    first, second = first.sort(0).values, second.sort(0).values
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = torch.diff(ends, prepend=ends.new_zeros(1)).double() / (n * m)
    middles = ends - 1  # any point inside each piece, in units of 1 / (n m)
    gaps = (first[middles.div(m, rounding_mode="floor")] - second[middles.div(n, rounding_mode="floor")]).abs()
    return (gaps * widths.to(gaps.device)[:, None]).sum(0)


METHODS: dict[str, Callable[[np.ndarray], Solved]] = {"exact": exact, "sinkhorn": sinkhorn}
"""Methods that take a cost matrix; `sliced` takes images."""


@dataclass(frozen=True)
class Transport:
    """The conditional Wasserstein distance between test images and generated images.

        cwd = sum_y P(y) W(real | y, generated | y),     W = min over couplings of the mean transport distance

    In each class equally many real and generated images are used, chosen at random. Distances between finite samples
    are biased upwards. To show this bias the real images of a class are split in half, and the distance between the
    halves is compared with that between one half and equally many generated images.

    Source: arXiv:2104.09425.
    """

    method: str = "exact"
    """exact: takes minutes from 5,000 images per class on. sinkhorn: both bounds, a few percent apart; memory n * m.
    sliced: a loose lower bound, for any number of images."""
    per_class: int = 1000
    """Most images per class, real and generated each."""
    all_generated: bool = False
    """Use up to `per_class` generated images even if there are fewer real ones; with method exact this requires POT."""
    projections: int = 512
    """Random directions of method sliced."""

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
    ) -> TransportRecord:
        """Measure the distance of `subject.test` and `subject.generated`.

        Raises:
            ValueError: a class without generated images, unequal numbers without POT, or `path` is a record of
                something else.
        """
        check_subject(subject)
        about = self.about(subject, seed)
        if found := TransportRecord.resume(path, about):
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
                    f"no generated image has label {subject.info.classes[k]}, but real images do: the conditional "
                    "distance needs every class in both sets; sample more images, or use their condition labels"
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
        joined = {name: np.concatenate(classwise) for name, classwise in rows.items()}
        record = TransportRecord(
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
        """The `about` of the record of a subject."""
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
