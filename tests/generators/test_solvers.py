"""Solvers on distributions whose denoiser is known exactly."""

import math
from itertools import pairwise

import pytest
import torch

from robustgen.generators.solvers import SOLVERS, Sampler, karras_sigmas


def gaussian_denoiser(mean, scale):
    """D(x; s) of N(mean, scale^2): the posterior mean."""
    return lambda x, sigma: (scale**2 * x + sigma**2 * mean) / (scale**2 + sigma**2)


def mixture_denoiser(means, scales, weights):
    """D(x; s) of a mixture of Gaussians in one dimension: posterior means, weighed by responsibilities."""

    def denoise(x, sigma):
        variances = scales**2 + sigma**2
        logs = weights.log() - 0.5 * variances.log() - (x[:, None] - means) ** 2 / (2 * variances)
        parts = (scales**2 * x[:, None] + sigma**2 * means) / variances
        return (logs.softmax(1) * parts).sum(1)

    return denoise


MEANS = torch.tensor([-1.0, 0.8], dtype=torch.float64)
SCALES = torch.tensor([0.3, 0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([0.4, 0.6], dtype=torch.float64)
MIXTURE = mixture_denoiser(MEANS, SCALES, WEIGHTS)


def power_grid(steps, first=10.0, last=0.05):
    """Noise levels as EDM spaces them, ending above 0: where the exact solution is smooth."""
    return karras_sigmas(steps + 1, last, first)[:-1]


@pytest.fixture(params=SOLVERS)
def solver(request):
    return request.param


def test_follows_the_exact_flow_of_a_gaussian(solver):
    x = torch.linspace(-30, 30, 7, dtype=torch.float64)
    sigmas = power_grid(400)
    found = SOLVERS[solver](gaussian_denoiser(0.3, 0.5), x, sigmas)
    torch.testing.assert_close(found, gaussian_flow(x, sigmas), rtol=0, atol={"euler": 0.1}.get(solver, 3e-3))


def ramped_grid(steps):
    """`power_grid`, its first interval cut into steps that double: a first-order start then costs next to nothing."""
    first, second, *rest = power_grid(steps)
    halvings = 2 * int(math.log2(steps))
    return [first, *(first - (first - second) / 2**k for k in range(halvings, -1, -1)), *rest]


def gaussian_flow(x, sigmas):
    mean, scale = 0.3, 0.5
    return mean + (x - mean) * math.sqrt((scale**2 + sigmas[-1] ** 2) / (scale**2 + sigmas[0] ** 2))


def mixture_flow(x, sigmas):
    """In one dimension the flow keeps each point's share of the mass below it: found by bisection, without a solver."""

    def share_below(x, sigma):
        return (WEIGHTS * torch.special.ndtr((x[:, None] - MEANS) / (SCALES**2 + sigma**2).sqrt())).sum(1)

    wanted = share_below(x, sigmas[0])
    low, high = torch.full_like(x, -10), torch.full_like(x, 10)
    for _ in range(60):
        middle = (low + high) / 2
        above = share_below(middle, sigmas[-1]) > wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


FLOWS = {"gaussian": (gaussian_denoiser(0.3, 0.5), gaussian_flow), "mixture": (MIXTURE, mixture_flow)}
ORDERS = {"euler": 1, "heun": 2, "ipndm": 2, "dpmpp-2m": 2, "dpmpp-3m": 3, "unipc-3": 4, "deis": 4}
"""Global orders once started. iPNDM's fixed weights suit even steps alone, and EDM's grid is not even."""


def measured_order(solver, data, grid):
    """Halving the steps divides the error by 2^order."""
    denoise, flow = FLOWS[data]
    x = torch.linspace(-12, 12, 41, dtype=torch.float64)
    errors = [
        float((SOLVERS[solver](denoise, x, sigmas) - flow(x, sigmas)).abs().max())
        for sigmas in (grid(80), grid(160), grid(320))
    ]
    return math.log2(errors[0] / errors[-1]) / 2


@pytest.mark.parametrize("data", FLOWS)
def test_converges_at_its_order(solver, data):
    assert measured_order(solver, data, ramped_grid) == pytest.approx(ORDERS[solver], abs=0.3)


@pytest.mark.parametrize("data", FLOWS)
def test_keeps_second_order_from_a_first_order_start(solver, data):
    assert measured_order(solver, data, power_grid) > min(2, ORDERS[solver]) - 0.15


def states(solver, denoise, sigmas):
    """x at every noise level at which the solver evaluates, from 1 at the first."""
    seen = []

    def watched(x, sigma):
        seen.append(float(x))
        return denoise(x, sigma)

    SOLVERS[solver](watched, torch.ones((), dtype=torch.float64), sigmas)
    return seen


EVEN = [10.0 - i for i in range(9)]


@pytest.mark.parametrize(("solver", "sigmas"), [("ipndm", EVEN), ("deis", EVEN), ("deis", power_grid(8))])
@pytest.mark.parametrize("degree", range(5))
def test_adams_steps_are_exact_for_one_degree_more_each_up_to_cubics(solver, sigmas, degree):
    """With D = x - sigma^(degree + 1) the slope is sigma^degree, whatever x is: orders 1, 2, 3, then 4."""
    seen = states(solver, lambda x, sigma: x - sigma ** (degree + 1), sigmas)
    for step, (before, after) in enumerate(pairwise(seen)):
        change = (sigmas[step + 1] ** (degree + 1) - sigmas[step] ** (degree + 1)) / (degree + 1)
        assert (after - before == pytest.approx(change, rel=1e-9)) == (degree <= min(step, 3)), step


@pytest.mark.parametrize("degree", range(4))
def test_dpmpp_3m_is_exact_for_quadratics_in_log_sigma(degree):
    """With D = l^degree at l = -ln(sigma), x / sigma grows by the integral of e^l l^degree."""
    sigmas = power_grid(8)
    seen = states("dpmpp-3m", lambda x, sigma: 0 * x + (-math.log(sigma)) ** degree, sigmas)

    def integral(sigma):
        logs = -math.log(sigma)
        signed = [(-1) ** k * math.perm(degree, k) * logs ** (degree - k) for k in range(degree + 1)]
        return sum(signed) / sigma

    for step in range(2, 7):
        grown = seen[step + 1] / sigmas[step + 1] - seen[step] / sigmas[step]
        exact = integral(sigmas[step + 1]) - integral(sigmas[step])
        assert (grown == pytest.approx(exact, rel=1e-9)) == (degree <= 2), step


def test_solvers_in_log_sigma_start_alike():
    """The first step of each is Euler's in log sigma, the second of dpmpp-3m is that of dpmpp-2m."""
    second, third, corrected = (
        states(solver, lambda x, sigma: x / (1 + x * x + sigma), power_grid(8))
        for solver in ("dpmpp-2m", "dpmpp-3m", "unipc-3")
    )
    assert third[:3] == pytest.approx(second[:3], rel=1e-12) and third[3] != pytest.approx(second[3], rel=1e-4)
    assert corrected[:2] == pytest.approx(second[:2], rel=1e-12)


def test_makes_as_many_evaluations_as_it_says(solver):
    for evaluations in (1, 2, 3, 4, 9, 10, 35):
        if solver == "heun" and evaluations % 2 == 0:
            continue
        calls = []

        def denoise(x, sigma, calls=calls):
            calls.append(sigma)
            return x * 0.5

        Sampler(solver, evaluations)(denoise, torch.zeros(2, 1, 4, 4))
        assert len(calls) == evaluations
        assert calls == sorted(calls, reverse=True) or solver == "heun"


def test_an_image_depends_on_its_noise_alone(solver):
    noise = torch.randn(9, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = noise.clone()

    def sample(noise):
        return Sampler(solver, 9)(lambda x, sigma: x / (1 + x * x + sigma * sigma), noise)

    whole = sample(noise)
    assert whole.dtype == torch.float32 and torch.isfinite(whole).all()
    assert torch.equal(sample(noise), whole) and torch.equal(noise, before)
    for rows in (slice(0, 1), slice(3, 7), slice(8, 9)):
        assert torch.equal(sample(noise[rows]), whole[rows])


def test_ends_on_the_denoised_image(solver):
    """At noise level 0 the state is D of the last step: a denoiser that knows one image gives that image."""
    image = torch.rand(3, 1, 4, 4)
    found = Sampler(solver, 9)(lambda x, sigma: image, torch.randn(3, 1, 4, 4))
    torch.testing.assert_close(found, image, rtol=1e-5, atol=1e-5)


def test_noise_levels_are_edms():
    sigmas = karras_sigmas(18)
    assert sigmas[0] == pytest.approx(80) and sigmas[-2] == pytest.approx(0.002) and sigmas[-1] == 0
    assert sigmas == sorted(sigmas, reverse=True) and len(sigmas) == 19
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    assert karras_sigmas(3)[1] == pytest.approx(middle)


def test_solvers_in_log_sigma_of_third_order_take_even_steps_there():
    sigmas = Sampler("unipc-3", 5).sigmas
    assert sigmas == Sampler("dpmpp-3m", 5).sigmas == pytest.approx([80, 80 / 200**0.5, 0.4, 0.4 / 200**0.5, 0.002, 0])
    assert Sampler("unipc-3", 1).sigmas == [80, 0]
    assert Sampler("deis", 5).sigmas == Sampler("ipndm", 5).sigmas == karras_sigmas(5)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="known: euler, heun, ipndm, dpmpp-2m, dpmpp-3m, unipc-3, deis"):
        Sampler("rk4", 10)
    with pytest.raises(ValueError, match="9, 17, 35"):
        Sampler("heun", 10)
    for solver in SOLVERS:
        with pytest.raises(ValueError, match=f"{solver} cannot make 0 evaluations"):
            Sampler(solver, 0)
