"""Solvers of the probability-flow equation dx/dsigma = (x - D(x; sigma)) / sigma, from much noise to none.

A solver takes a denoiser `D(x, sigma)`, a state x at sigmas[0], and falling sigmas that end with 0; it returns the
state at 0. One evaluation is one call of D on the whole batch. States are float64; D sees float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

Denoiser = Callable[[Tensor, float], Tensor]


def karras_sigmas(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> list[float]:
    """`steps` noise levels evenly spaced in sigma^(1/rho), and 0 (arXiv:2206.00364, eq. 5)."""
    if steps == 1:
        return [sigma_max, 0.0]
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(first + i / (steps - 1) * (last - first)) ** rho for i in range(steps)] + [0.0]


def log_sigmas(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> list[float]:
    """`steps` noise levels evenly spaced in log sigma, and 0: the "logSNR" grid of arXiv:2206.00927.

    Between 10 of EDM's levels the steps in ln sigma grow from 0.63 to 2.32; here all are 1.18.
    """
    if steps == 1:
        return [sigma_max, 0.0]
    return [sigma_max * (sigma_min / sigma_max) ** (i / (steps - 1)) for i in range(steps)] + [0.0]


def euler(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    """First order; one evaluation a step (DDIM)."""
    for now, then in pairwise(sigmas):
        x = x + (then - now) * (x - denoise(x, now)) / now
    return x


def heun(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    """Second order; two evaluations a step, one in the last (arXiv:2206.00364, Algorithm 1)."""
    for now, then in pairwise(sigmas):
        slope = (x - denoise(x, now)) / now
        ahead = x + (then - now) * slope
        if then > 0:
            slope = (slope + (ahead - denoise(ahead, then)) / then) / 2
            ahead = x + (then - now) * slope
        x = ahead
    return x


_ADAMS_BASHFORTH = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def ipndm(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    """iPNDM of up to four steps: Adams-Bashforth weights on past slopes, lower orders first (arXiv:2204.13902)."""
    logit_differences: list[Tensor] = []
    for now, then in pairwise(sigmas):
        logit_differences = [(x - denoise(x, now)) / now, *logit_differences[:3]]
        mean = sum(
            weight * slope
            for weight, slope in zip(_ADAMS_BASHFORTH[len(logit_differences) - 1], logit_differences, strict=True)
        )
        x = x + (then - now) * mean
    return x


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    """DPM-Solver++(2M): second order in log sigma on past denoised images (arXiv:2211.01095)."""
    before: Tensor | None = None
    last_h = 0.0
    for now, then in pairwise(sigmas):
        denoised = denoise(x, now)
        if then == 0:
            return denoised
        h = math.log(now / then)
        if before is None:
            target = denoised
        else:
            ratio = last_h / h
            target = (1 + 1 / (2 * ratio)) * denoised - before / (2 * ratio)
        x = (then / now) * x + (1 - then / now) * target
        before, last_h = denoised, h
    return x


def dpmpp_3m(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    """DPM-Solver++(3M): third order in log sigma on past denoised images (arXiv:2211.01095).

    The steps are those of `_exponential_step` on the last three; orders 1 and 2 come first. The authors' code takes
    half the second difference that Taylor's formula asks for, and stays of second order; here it is whole.
    """
    known: list[tuple[float, Tensor]] = []
    for now, then in pairwise(sigmas):
        known = [(now, denoise(x, now)), *known[:2]]
        x = _exponential_step(x, now, then, known)
    return x


def unipc_3(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    """UniPC-3 (B2): predictor of order 3 in log sigma, corrector of order 4, one evaluation a step (arXiv:2302.04867).

    A step predicts x' at the next sigma as DPM-Solver++(3M) does; D(x') there serves the next step, and takes this one
    again as a fourth point. The last step is not corrected: that would cost an evaluation. Orders 1 and 2 come first.
    """
    known: list[tuple[float, Tensor]] = []
    start, before = x, sigmas[0]
    for now, then in pairwise(sigmas):
        found = (now, denoise(x, now))
        if known:
            x = _exponential_step(start, before, now, [*known, found])
        known = [found, *known[:2]]
        start, before = x, now
        x = _exponential_step(start, now, then, known)
    return x


def _exponential_step(x: Tensor, now: float, then: float, known: list[tuple[float, Tensor]]) -> Tensor:
    """Integrate d(x / sigma) = D d(1 / sigma) from now to then, for a polynomial D(log sigma) through known points.

    `known` holds (sigma, D), that at `now` first. With h = ln(now / then) and r_k = ln(now / sigma_k) / h,

        x' = (then / now) x + (1 - then / now) D_0 + sum over k > 0 of u_k (D_k - D_0) / r_k
        sum over k of u_k r_k^(j-1) = c_j, j = 1 ... K;   c_0 = 1 - then / now,   c_j = 1 - j c_(j-1) / h

    One other point is weighed u_1 = c_0 / 2, as in both papers: exact to the same order. At sigma 0, x' = D_0.
    """
    first, *others = known
    if then == 0:
        return first[1]
    h = math.log(now / then)
    moments = [-math.expm1(-h)]
    x = (then / now) * x + moments[0] * first[1]
    if not others:
        return x
    ratios = [math.log(now / sigma) / h for sigma, _ in others]
    if len(others) == 1:
        weights = [moments[0] / 2]
    else:
        for j in range(1, len(others) + 1):
            moments.append(1 - j * moments[-1] / h)
        weights = np.linalg.solve(np.vander(ratios, increasing=True).T, moments[1:]).tolist()
    for weight, ratio, (_, denoised) in zip(weights, ratios, others, strict=True):
        x = x + (weight / ratio) * (denoised - first[1])
    return x


def deis(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    """DEIS-tAB3: exact weights for a cubic in sigma through four slopes, lower orders first (arXiv:2204.13902).

        x' = x + sum over j of d_j * integral from now to then of prod over k != j of (s - s_k) / (s_j - s_k) ds

    d = (x - D) / sigma at the noise levels s met so far. EDM's time is sigma, so that this is the paper's rhoAB3 too.
    """
    known: list[tuple[float, Tensor]] = []
    for now, then in pairwise(sigmas):
        known = [(now, (x - denoise(x, now)) / now), *known[:3]]
        weights = _mean_of_lagrange([sigma for sigma, _ in known], now, then)
        x = x + (then - now) * sum(weight * slope for weight, (_, slope) in zip(weights, known, strict=True))
    return x


def _mean_of_lagrange(points: list[float], start: float, end: float) -> list[float]:
    """Mean over [start, end] of the Lagrange polynomials of up to four points: exact, by Gauss's two nodes."""
    nodes = [(start + end) / 2 + side * (end - start) / math.sqrt(12) for side in (-1, 1)]
    return [
        sum(math.prod((node - other) / (point - other) for other in points if other != point) for node in nodes) / 2
        for point in points
    ]


SOLVERS: dict[str, Callable[[Denoiser, Tensor, list[float]], Tensor]] = {
    "euler": euler,
    "heun": heun,
    "ipndm": ipndm,
    "dpmpp-2m": dpmpp_2m,
    "dpmpp-3m": dpmpp_3m,
    "unipc-3": unipc_3,
    "deis": deis,
}

_ON_LOG_SIGMAS = {"dpmpp-3m", "unipc-3"}
"""Quadratics in log sigma do not extrapolate far, and EDM's grid leaps at its end: see `log_sigmas`."""


@dataclass(frozen=True)
class Sampler:
    """Which solver, with how many evaluations of the network for an image; each solver on the noise levels it suits."""

    solver: str = "heun"
    evaluations: int = 35
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}; known: {', '.join(SOLVERS)}")
        if self.evaluations < 1 or (self.solver == "heun" and self.evaluations % 2 == 0):
            raise ValueError(
                f"{self.solver} cannot make {self.evaluations} evaluations"
                + ("; Heun makes 2 a step and 1 in the last: 9, 17, 35, ..." if self.solver == "heun" else "")
            )

    @property
    def sigmas(self) -> list[float]:
        steps = (self.evaluations + 1) // 2 if self.solver == "heun" else self.evaluations
        grid = log_sigmas if self.solver in _ON_LOG_SIGMAS else karras_sigmas
        return grid(steps, self.sigma_min, self.sigma_max)

    def __call__(self, denoise: Denoiser, noise: Tensor) -> Tensor:
        """From standard normal noise to an image of the denoiser's range, float32."""
        sigmas = self.sigmas
        final = SOLVERS[self.solver](
            lambda x, sigma: denoise(x.float(), sigma).double(), noise.double() * sigmas[0], sigmas
        )
        return final.float()
