"""The very deep VAE: its likelihood, divergences and layouts on paper, and steps that are left out."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from robustgen.config.generators import VDVAEConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.generators import VDVAE, build_generator
from robustgen.generators.logistics import draw, log_likelihood, numbers_per_pixel
from robustgen.generators.vdvae import gaussian_kl
from robustgen.generators.vdvae_layout import Place, decoder_places, encoder_places
from robustgen.images import DatasetInfo
from robustgen.randomness import rng_for
from robustgen.training.generator import train_generator

CIFAR = DatasetInfo("cifar10", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3)
INFO = DatasetInfo("x", ("a", "b", "c"), (1, 8, 8), (0.3,), (0.4,))
SMALL = VDVAEConfig(
    width=16, latents=4, encoder="8x1,8d2,4d4,1x1", decoder="1x1,4m1,8m4,8x1", components=2, total_images=30 * 8,
    batch_size=30, peak_lr=5e-3, warmup_images=0, previews=0,
)  # fmt: skip
EVERY = torch.arange(256) / 127.5 - 1


def mixture(colours, components, count=1, scale=2.0, seed=0):
    """Random numbers of mixtures, a pixel each."""
    numbers = torch.randn(
        1, numbers_per_pixel(colours, components), 1, 1, generator=torch.Generator().manual_seed(seed)
    )
    return (scale * numbers).expand(count, -1, -1, -1)


@pytest.mark.parametrize("scale", [0.3, 2.0, 8.0])
@pytest.mark.parametrize("components", [1, 10])
def test_the_256_values_have_all_the_probability(components, scale):
    found = log_likelihood(EVERY.view(256, 1, 1, 1), mixture(1, components, 256, scale)).exp()
    assert float(found.sum()) == pytest.approx(1, abs=2e-5)


def test_all_pairs_of_two_colours_have_all_the_probability():
    pairs = torch.cartesian_prod(EVERY, EVERY).view(-1, 2, 1, 1)
    assert float(log_likelihood(pairs, mixture(2, 3, len(pairs))).exp().sum()) == pytest.approx(1, abs=1e-4)


def test_a_probability_is_a_difference_of_logistic_functions():
    """Also where float32 could not tell the difference: 30 scales from the mean."""
    mean, log_scale = 0.25, -3.5
    values = EVERY[1:255].double()
    above, below = ((values + side / 255 - mean) * math.exp(-log_scale) for side in (1, -1))
    wanted = torch.where(values < mean, above.sigmoid() - below.sigmoid(), (-below).sigmoid() - (-above).sigmoid())
    numbers = torch.tensor([0.0, mean, log_scale]).view(1, 3, 1, 1).expand(254, -1, -1, -1)
    found = log_likelihood(EVERY[1:255].view(254, 1, 1, 1), numbers)
    torch.testing.assert_close(found, wanted.log().float(), rtol=1e-5, atol=2e-5)
    assert float(found.min()) < -25


def test_three_colours_take_the_published_hundred_numbers():
    assert numbers_per_pixel(3, 10) == 100 and numbers_per_pixel(1, 10) == 30


def test_what_is_drawn_has_the_probabilities():
    """Also that blue follows red and green: each colour's mean is moved by those before."""
    numbers = torch.tensor([0.0, 0.1, -0.2, 0.0, -4.0, -4.0, -4.0, 0.9, -0.6, 0.4]).view(1, 10, 1, 1)
    made = draw(numbers.expand(20_000, -1, -1, -1), 3, rng_for(0).each(range(20_000))).flatten(1).double()
    red, green, blue = np.tanh([0.9, -0.6, 0.4])
    mean = [0.1, -0.2 + red * 0.1, 0.0]
    mean[2] = green * mean[0] + blue * mean[1]
    np.testing.assert_allclose(made.mean(0), mean, atol=2e-3)
    covariance = made.T.cov()
    variance = (math.pi * math.exp(-4)) ** 2 / 3
    assert float(covariance[0, 0]) == pytest.approx(variance, rel=0.05)
    assert float(covariance[0, 1]) == pytest.approx(red * variance, rel=0.1)
    assert float(covariance[0, 2]) == pytest.approx((green + blue * red) * variance, abs=0.1 * variance)


def test_components_are_drawn_by_their_weights():
    numbers = torch.tensor([math.log(3), 0.0, -0.5, 0.5, -7.0, -7.0]).view(1, 6, 1, 1)
    made = draw(numbers.expand(8000, -1, -1, -1), 1, rng_for(0).each(range(8000)))
    assert float((made < 0).float().mean()) == pytest.approx(0.75, abs=0.02)


def test_divergences_of_gaussians_are_the_known_ones():
    mean, log_scale, other, log_other = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).double()
    wanted = kl_divergence(Normal(mean, log_scale.exp()), Normal(other, log_other.exp()))
    torch.testing.assert_close(gaussian_kl(mean, log_scale, other, log_other), wanted)
    assert gaussian_kl(mean, log_scale, mean, log_scale).abs().max() < 1e-12


def test_the_published_network():
    """33 and 43 blocks; 7.5 million parameters encode, 10.3 tell the posteriors, 21.35 generate."""
    with torch.device("meta"):
        model = build_generator(VDVAEConfig(), CIFAR, rng_for(0))
    assert len(model.encoder) == 33 and len(model.decoder) == 43
    parts = Counter()
    for name, parameter in model.named_parameters():
        part = (
            "posterior" if ".posterior." in name else "encode" if name.startswith(("encoder", "stem")) else "generate"
        )
        parts[part] += parameter.numel()
    millions = {part: round(count / 1e6, 2) for part, count in parts.items()}
    assert millions == {"encode": 7.5, "posterior": 10.3, "generate": 21.35}
    assert sum(parts.values()) == 39_145_700


def test_layouts_say_where_blocks_work():
    assert encoder_places("8x2,8d2,4x1", 8) == [Place(8), Place(8), Place(8, factor=2), Place(4)]
    places = decoder_places("4x1,8m4", encoder_places("8x2,8d2,4x1", 8), 8)
    assert places == [Place(4), Place(8, source=4)]


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        ("8y1", "8x1", "'8y1' .* is neither SIZExBLOCKS nor SIZEdNUMBER"),
        ("8x1,4x1", "4x1,8m4", "block of size 4 where the image is of size 8"),
        ("16x1", "16x1", "block of size 16 where the image is of size 8"),
        ("8d3", "1x1,8m1", "cannot average size 8 down by 3"),
        ("8d8", "1x1,4m1,8m4", "block of size 4, which the encoder lacks"),
        ("8d2,4d4", "1x1,8m4", "adds size 4 to size 8"),
        ("8d8", "1x1,8x1", "comes to size 8 without adding a smaller one"),
        ("8d8", "1x1", "ends at size 1; the images are of size 8"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(encoder, decoder, message):
    settings = SMALL.model_copy(update={"encoder": encoder, "decoder": decoder})
    with pytest.raises(ValueError, match=message):
        VDVAE((1, 8, 8), 3, settings)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square images only, not 8x4"):
        VDVAE((1, 8, 4), 3, SMALL)


def shaken(seed=0, **changes):
    """A network whose priors say something."""
    model = build_generator(SMALL.model_copy(update=changes), INFO, rng_for(seed))
    with rng_for(seed, "noise").seeding_torch(), torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_the_bound_is_likelihood_plus_divergences():
    """An untrained network's priors are standard normal; bits are nats over values and ln 2."""
    model, images, labels = shaken(), torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)
    images = (images * 255).round() / 255
    numbers, kl = model.decode(labels, rng_for(0), model.encode(images))
    nats = model.nats(images, labels, rng_for(0))
    torch.testing.assert_close(nats, kl - log_likelihood(images * 2 - 1, numbers))
    assert (kl > 0).all() and numbers.shape == (5, numbers_per_pixel(1, 2), 8, 8)
    torch.testing.assert_close(model.bits_per_dim(images, labels, rng_for(0)), nats.detach() / 64 / math.log(2))
    torch.testing.assert_close(model.loss(images, labels, rng_for(0)), nats.mean() / 64)


def test_latents_come_from_the_posterior_of_seen_images_and_else_from_the_prior():
    step = shaken().decoder[-1]
    drawn = []
    step.project.register_forward_hook(lambda layer, inputs, output: drawn.append(inputs[0].detach()))
    generator = torch.Generator().manual_seed(0)
    x, seen = (torch.randn(1, 16, 8, 8, generator=generator).expand(2000, -1, -1, -1) for _ in range(2))
    with torch.no_grad():
        step(x, seen, rng_for(0), 1.0)
        step(x, None, rng_for(0), 0.5)
        posterior = step.posterior(torch.cat([x[:1], seen[:1]], dim=1))[0]
        prior = step.prior(x[:1])[0]
    for found, numbers, factor in ((drawn[0], posterior, 1.0), (drawn[1], prior, 0.5)):
        scale = factor * numbers[4:8].exp()
        assert ((found.mean(0) - numbers[:4]).abs() < 0.13 * scale).all()  # 5.8 standard errors
        torch.testing.assert_close(found.std(0), scale, rtol=0.1, atol=0)
    assert not torch.allclose(prior[:8], posterior, atol=0.1)


def test_branches_start_small():
    """The last convolution of each residual block by sqrt(1 / blocks) of its side, the prior's at nothing."""
    model = build_generator(SMALL, INFO, rng_for(0))
    last = [step.residual.convs[-1].weight for step in model.decoder] + [step.project.weight for step in model.decoder]
    last += [block.convs[-1].weight for block in model.encoder]
    for weight, depth in zip(last, [4] * 8 + [len(model.encoder)] * len(model.encoder), strict=True):
        usual = 1 / math.sqrt(weight[0].numel())
        assert float(weight.detach().abs().max()) == pytest.approx(usual / math.sqrt(depth), rel=0.15)
    assert all(step.prior.convs[-1].weight.abs().max() == 0 for step in model.decoder)


def test_temperature_scales_the_latents_deviation():
    """At nearly 0 latents are the priors' means, whatever the stream; at 1 the manifest says 1."""
    model, labels = shaken(), torch.zeros(4, dtype=torch.int64)

    def numbers(temperature, seed):
        return model.decode(labels, rng_for(seed), temperature=temperature)[0].detach()

    torch.testing.assert_close(numbers(1e-6, 0), numbers(1e-6, 1), atol=1e-3, rtol=0)
    spreads = [float((numbers(t, 0) - numbers(1e-6, 0)).std()) for t in (0.05, 0.1, 1.0)]
    assert spreads[1] == pytest.approx(2 * spreads[0], rel=0.1) and spreads[2] > 3 * spreads[1]
    assert model.configure_sampler(SamplerConfig(temperature=0.8)) == {"temperature": 0.8, "conditional": False}
    cool = model.sample(labels, rng_for(0).each(range(4)))
    model.configure_sampler(SamplerConfig())
    assert not torch.equal(model.sample(labels, rng_for(0).each(range(4))), cool)
    with pytest.raises(ValueError, match="guidance"):
        model.configure_sampler(SamplerConfig(guidance=2.0))


def test_without_classes_labels_are_ignored():
    for conditional in (False, True):
        model = shaken(conditional=conditional)
        one, other = (model.sample(torch.full((6,), k), rng_for(0).each(range(6))) for k in (0, 2))
        assert torch.equal(one, other) != conditional


def test_half_precision_is_for_the_convolutions_alone():
    model, images, labels = shaken(), torch.rand(32, 1, 8, 8), torch.zeros(32, dtype=torch.int64)
    with torch.no_grad():
        whole = model.loss(images, labels, rng_for(0))
        with torch.autocast("cpu", torch.bfloat16):
            half = model.loss(images, labels, rng_for(0))
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(whole), rel=0.02)


def test_steps_that_would_throw_it_back_are_left_out_and_counted(tiny_images, tmp_path):
    model = build_generator(SMALL, INFO, rng_for(0))
    calls = []

    def loss(images, labels, rng):
        calls.append([parameter.detach().clone() for parameter in model.parameters()])
        factor = {2: float("nan"), 5: 1e6}.get(len(calls) - 1, 1.0)
        return VDVAE.loss(model, images, labels, rng) * factor

    model.loss = loss
    train_generator(model, tiny_images, SMALL, tmp_path, seed=0)
    history = np.load(tmp_path / "history.npz")
    assert history["skipped"].tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert np.isfinite(history["loss"]).all()
    for step in range(7):
        same = all(torch.equal(a, b) for a, b in zip(calls[step], calls[step + 1], strict=True))
        assert same == (step in (2, 5)), step
