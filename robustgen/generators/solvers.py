"""Solvers of the probability-flow equation dx/dsigma = (x - D(x; sigma)) / sigma, from much noise to none.

A solver takes a denoiser `D(x, sigma)`, a state x at sigmas[0], and falling sigmas that end with 0; it returns the
state at 0. One evaluation is one call of D on the whole batch. States are float64; D sees float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

Denoiser = Callable[[Tensor, float], Tensor]


def karras_sigmas(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> list[float]:
    """`steps` noise levels evenly spaced in sigma^(1/rho), and 0 (arXiv:2206.00364, eq. 5)."""
    if steps == 1:
        return [sigma_max, 0.0]
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(first + i / (steps - 1) * (last - first)) ** rho for i in range(steps)] + [0.0]


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
    slopes: list[Tensor] = []
    for now, then in pairwise(sigmas):
        slopes = [(x - denoise(x, now)) / now, *slopes[:3]]
        mean = sum(weight * slope for weight, slope in zip(_ADAMS_BASHFORTH[len(slopes) - 1], slopes, strict=True))
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


SOLVERS: dict[str, Callable[[Denoiser, Tensor, list[float]], Tensor]] = {
    "euler": euler,
    "heun": heun,
    "ipndm": ipndm,
    "dpmpp-2m": dpmpp_2m,
}


@dataclass(frozen=True)
class Sampler:
    """Which solver, with how many evaluations of the network for an image."""

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
        return karras_sigmas(steps, self.sigma_min, self.sigma_max)

    def __call__(self, denoise: Denoiser, noise: Tensor) -> Tensor:
        """From standard normal noise to an image of the denoiser's range, float32."""
        sigmas = self.sigmas
        final = SOLVERS[self.solver](
            lambda x, sigma: denoise(x.float(), sigma).double(), noise.double() * sigmas[0], sigmas
        )
        return final.float()
