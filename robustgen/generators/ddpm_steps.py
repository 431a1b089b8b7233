"""The discrete chains of DDPM and DDIM: noise schedules, timesteps that are visited, and the weights of a step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def alphas_bar(timesteps: int, betas: str) -> np.ndarray:
    """abar (T,), float64, falling: how much of the image's variance is left at each time.

        x_t = sqrt(abar_t) x + sqrt(1 - abar_t) e,     abar_t = product over s <= t of 1 - beta_s

    betas: "linear" from 1e-4 to 0.02 (arXiv:2006.11239), or "cosine": those of abar = cos^2 of (t / T + 0.008) / 1.008
    quarter turns, at most 0.999 (arXiv:2102.09672).
    """
    if betas == "linear":
        steps = np.linspace(1e-4, 0.02, timesteps)
    else:
        turns = (np.arange(timesteps + 1) / timesteps + 0.008) / 1.008
        wanted = np.cos(turns * math.pi / 2) ** 2
        steps = np.minimum(1 - wanted[1:] / wanted[:-1], 0.999)
    return np.cumprod(1 - steps)


@dataclass(frozen=True)
class StepWeights:
    """What a step from one time to an earlier one does: x' = clean * D + noisy * x + deviation * z, z normal."""

    clean: float
    noisy: float
    deviation: float


@dataclass(frozen=True)
class ReverseProcess:
    """A way to sample down the chain.

    eta          share of the posterior's standard deviation that is sampled as fresh noise: 1 is DDPM, 0 is DDIM
    fixed_large  draw with variance beta, larger than the posterior's: better on CIFAR-10, as published
    quadratic    times are denser where there is little noise; else evenly spaced
    evaluations  the default number; every timestep when not given
    about        a short description
    """

    eta: float
    about: str
    fixed_large: bool = False
    quadratic: bool = False
    evaluations: int | None = None

    def times(self, timesteps: int, evaluations: int) -> list[int]:
        """`evaluations` timesteps falling from T - 1 to 0: (T - 1) i / (n - 1), or with the share squared, rounded.

        Where squares lie nearer than whole numbers, times follow each other one by one. One evaluation is at T - 1.
        (The DDIM authors' code leaves out the end of much noise: it begins at T - T / n, or at 0.8 T for squares.)
        """
        if evaluations == 1:
            return [timesteps - 1]
        shares = [(i / (evaluations - 1)) ** (2 if self.quadratic else 1) for i in range(evaluations)]
        return [max(i, round((timesteps - 1) * share)) for i, share in enumerate(shares)][::-1]

    def weights(self, now: float, then: float) -> StepWeights:
        """Of a step from abar `now` to the larger abar `then`; at 1, the end, x' is D.

            x' = sqrt(then) D + sqrt(1 - then - s^2) (x - sqrt(now) D) / sqrt(1 - now) + deviation z
            s = eta sqrt((1 - then) / (1 - now) (1 - now / then))

        deviation is s, or sqrt(1 - now / then) with `fixed_large`. With eta 1 mean and s are the posterior's of
        x' given x and D (arXiv:2010.02502, eq. 12 and 16).
        """
        beta = 1 - now / then
        spread = self.eta * math.sqrt((1 - then) / (1 - now) * beta)
        noisy = math.sqrt(max(0.0, 1 - then - spread**2) / (1 - now))
        deviation = 0.0 if then == 1 else math.sqrt(beta) if self.fixed_large else spread
        return StepWeights(math.sqrt(then) - noisy * math.sqrt(now), noisy, deviation)


REVERSE_PROCESSES = {
    "ancestral": ReverseProcess(1.0, "DDPM's chain, drawn with variance beta (fixedlarge)", fixed_large=True),
    "ancestral-small": ReverseProcess(1.0, "DDPM's chain, drawn with the posterior's variance (fixedsmall)"),
    "ddim": ReverseProcess(0.0, "without noise on the way, times evenly spaced", evaluations=50),
    "ddim-quadratic": ReverseProcess(
        0.0, "without noise on the way, times denser at the end", quadratic=True, evaluations=50
    ),
}
