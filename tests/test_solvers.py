"""Solvers on distributions whose denoiser is known exactly."""

import math

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


MIXTURE = mixture_denoiser(
    torch.tensor([-1.0, 0.8], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
    torch.tensor([0.4, 0.6], dtype=torch.float64),
)


def power_grid(steps, first=10.0, last=0.05):
    """Noise levels as EDM spaces them, ending above 0: where the exact solution is smooth."""
    return karras_sigmas(steps + 1, last, first)[:-1]


@pytest.fixture(params=SOLVERS)
def solver(request):
    return request.param


def test_follows_the_exact_flow_of_a_gaussian(solver):
    mean, scale = 0.3, 0.5
    x = torch.linspace(-30, 30, 7, dtype=torch.float64)
    sigmas = power_grid(400)
    found = SOLVERS[solver](gaussian_denoiser(mean, scale), x, sigmas)
    shrink = math.sqrt((scale**2 + sigmas[-1] ** 2) / (scale**2 + sigmas[0] ** 2))
    torch.testing.assert_close(found, mean + (x - mean) * shrink, rtol=0, atol={"euler": 0.1}.get(solver, 3e-3))


ORDERS = {"euler": 1.0, "heun": 2.0, "ipndm": 2.0, "dpmpp-2m": 2.0}


def test_converges_at_its_order_on_a_mixture(solver):
    """Halving the steps multiplies the error by 2^order; measured against a very fine solution."""
    x = torch.linspace(-12, 12, 41, dtype=torch.float64)
    exact = SOLVERS["heun"](MIXTURE, x, power_grid(20_000))
    errors = [float((SOLVERS[solver](MIXTURE, x, power_grid(n)) - exact).abs().max()) for n in (40, 80, 160, 320)]
    order = math.log2(errors[0] / errors[-1]) / 3
    assert order > ORDERS[solver] - 0.15, (solver, errors)


def test_makes_as_many_evaluations_as_it_says(solver):
    for evaluations in (1, 9, 35):
        calls = []

        def denoise(x, sigma, calls=calls):
            calls.append(sigma)
            return x * 0.5

        Sampler(solver, evaluations)(denoise, torch.zeros(2, 1, 4, 4))
        assert len(calls) == evaluations
        assert calls == sorted(calls, reverse=True) or solver == "heun"


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


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="known: euler, heun, ipndm, dpmpp-2m"):
        Sampler("rk4", 10)
    with pytest.raises(ValueError, match="9, 17, 35"):
        Sampler("heun", 10)
