"""BigGAN and StyleGAN2: sizes that are published, layers and losses solved on paper, and resuming."""

import math

import numpy as np
import pytest
import torch

from robustgen.config.generators import BigGANConfig, StyleGAN2Config
from robustgen.generators import BigGAN, StyleGAN2, biggan, build_generator, stylegan2
from robustgen.images import DatasetInfo
from robustgen.randomness import rng_for
from robustgen.training.generator import train_generator

CIFAR = (3, 32, 32)
TINY = {
    "biggan": BigGANConfig(channels=8, latents=4, critic_steps=2, standing=2, total_images=12 * 8, batch_size=12),
    "stylegan2": StyleGAN2Config(
        channels=8, latents=8, class_mapping=1, ada_target=0.0, ada_images=100.0, total_images=12 * 24, batch_size=12
    ),
}  # fmt: skip


def millions(network):
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2)


@pytest.fixture(autouse=True)
def steered():
    with rng_for(0).seeding_torch():
        yield


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_at_the_cifar_setting_networks_have_the_published_sizes():
    with torch.device("meta"):
        assert millions(BigGAN(CIFAR, 10)) == 4.30
        assert millions(biggan.BigGANDiscriminator(CIFAR, 10)) == 4.21
        assert millions(StyleGAN2(CIFAR, 10)) == 20.22
        assert millions(stylegan2.StyleGAN2Discriminator(CIFAR, 10)) == 23.09


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 32, 32), (1, 64, 64)])
@pytest.mark.parametrize("kind", TINY)
def test_images_of_each_size_are_made_and_judged(kind, shape):
    info = DatasetInfo("x", ("a", "b"), shape, (0.0,) * shape[0], (1.0,) * shape[0])
    model = build_generator(TINY[kind], info, rng_for(0))
    training_spec = model.training_spec(TINY[kind], rng_for(1))
    images, labels = torch.rand(4, *shape), torch.tensor([0, 1, 1, 0])
    for term in training_spec.loss_terms.values():
        value = term.loss(images, labels, rng_for(2), 0.0)
        assert value.shape == () and torch.isfinite(value)
        learnt = torch.autograd.grad(
            value, training_spec.optimizations[term.optimization].parameters, allow_unused=True
        )
        assert all(gradient is None or torch.isfinite(gradient).all() for gradient in learnt)
    made = model.eval().sample(labels, rng_for(0).each(range(4)))
    assert made.shape == images.shape and made.min() >= 0 and made.max() <= 1


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("shape", [(1, 8, 16), (3, 28, 28), (3, 4, 4), (3, 128, 128)])
def test_other_sizes_are_refused(kind, shape):
    info = DatasetInfo("x", ("a", "b"), shape, (0.0,) * shape[0], (1.0,) * shape[0])
    with pytest.raises(ValueError, match=f"not {shape[1]}x{shape[2]}"):
        build_generator(TINY[kind], info, rng_for(0))


@pytest.mark.parametrize("kind", TINY)
def test_killed_and_repeated_training_makes_the_same_weights(kind, tiny_images, tmp_path, monkeypatch):
    """All steps at once, and three quarters of them, then the rest by one that has the checkpoint alone."""
    settings = TINY[kind]

    class Killed(Exception):
        pass

    def train(folder, stop=None):
        def progress(done, total, unit, note=""):
            if stop is not None and done >= stop:
                raise Killed

        model = build_generator(settings, tiny_images.info, rng_for(0))
        return train_generator(model, tiny_images, settings, folder, seed=0, progress=progress)

    monkeypatch.setattr("robustgen.training.loop.SaveInterval.due", lambda self: True)
    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):  # when the strength of the augmentation is no longer 0
        train(tmp_path / "killed", settings.total_images * 3 // 4 + settings.batch_size)
    assert (tmp_path / "killed" / "checkpoint.pt").exists()
    again = train(tmp_path / "killed")
    for (name, one), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    with np.load(tmp_path / "whole" / "history.npz") as one, np.load(tmp_path / "killed" / "history.npz") as other:
        assert all(np.array_equal(one[key], other[key]) for key in one.files)


# BigGAN


@pytest.mark.parametrize("made", [(biggan._Conv, 6, 10, 3), (biggan._Linear, 30, 20), (biggan._Embedding, 10, 12)])
def test_the_largest_singular_value_becomes_one(made):
    layer = made[0](*made[1:]).requires_grad_(False)
    for _ in range(300):
        weight = biggan.spectrally_normalized(layer)
    assert torch.linalg.matrix_norm(weight.flatten(1), 2) == pytest.approx(1, abs=1e-3)
    layer.eval()
    before = layer.u.clone()
    assert torch.equal(biggan.spectrally_normalized(layer), biggan.spectrally_normalized(layer)) and torch.equal(
        layer.u, before
    )


def test_normalised_weights_have_the_gradient_of_a_quotient():
    """With u and v singular vectors, d(W / s) = dW / s - W (u^T dW v) / s^2: no gain from growing W itself."""
    layer = biggan._Linear(5, 4).double()
    for _ in range(500):
        biggan.spectrally_normalized(layer)
    scale = torch.ones((), dtype=torch.double, requires_grad=True)
    weight = layer.weight.detach()
    del layer.weight
    layer.weight = weight * scale
    (gradient,) = torch.autograd.grad((biggan.spectrally_normalized(layer) * draws(4, 5).double()).sum(), scale)
    assert gradient == pytest.approx(0, abs=1e-9)


def test_hinge_on_paper():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, -0.5, 1.0])
    assert biggan.hinge(real, fake) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 0.5 + 2) / 3)
    assert biggan.hinge(torch.full((4,), 1.0), torch.full((4,), -1.0)) == 0


def test_the_discriminator_steps_leave_the_generators_weights_alone(tiny_info):
    model = build_generator(TINY["biggan"], tiny_info, rng_for(0))
    training_spec = model.training_spec(TINY["biggan"], rng_for(1))
    term = training_spec.loss_terms["discriminator"]
    assert term.repeats == 2 and term.optimization == "discriminator"
    term.loss(torch.rand(6, 1, 8, 8), torch.arange(6) % 3, rng_for(0), 0.0).backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in training_spec.optimizations["discriminator"].parameters)


def test_a_class_changes_images_by_its_own_gain_and_bias(tiny_info):
    norm = biggan._ClassNorm(2, 3).eval()
    norm.gain.weight.data = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    norm.bias.weight.data = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, -3.0]])
    x = torch.ones(3, 2, 1, 1)
    expected = torch.tensor([[1.0, 1.0], [2.0, 3.0], [4.0, -2.0]])
    torch.testing.assert_close(norm(x, torch.arange(3))[:, :, 0, 0], expected, atol=1e-4, rtol=1e-4)


def test_standing_statistics_are_those_of_fresh_batches(tiny_info):
    model = build_generator(TINY["biggan"], tiny_info, rng_for(0))
    model.blocks[0].norm_0.norm.running_mean.fill_(100.0)
    model.measure_statistics(8, 64, rng_for(5))
    z, labels = rng_for(6).normal((4096, 4)), torch.arange(4096) % 3
    seen = model.first(z).view(-1, 8, 4, 4).transpose(0, 1).flatten(1)
    norm = model.blocks[0].norm_0.norm
    torch.testing.assert_close(norm.running_mean, seen.mean(1).detach(), atol=0.1, rtol=0)
    torch.testing.assert_close(norm.running_var, seen.var(1).detach(), atol=0.1, rtol=0.2)
    assert norm.momentum == 0.1 and len(labels) == len(z)


# StyleGAN2


def test_a_modulated_convolution_makes_deviation_1_whatever_the_styles():
    x, weight = draws(8, 32, 20, 20), draws(24, 32, 3, 3, seed=1) * 7
    styles = draws(8, 32, seed=2) + 1
    y = stylegan2.modulated(x, styles, weight)[:, :, 1:-1, 1:-1]
    assert y.std() == pytest.approx(1, abs=0.02)
    assert y.std((2, 3)).sub(1).abs().max() < 0.3
    scaled = stylegan2.modulated(x, styles * 1000, weight)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(scaled, y, atol=1e-4, rtol=1e-4)
    assert stylegan2.modulated(x, styles, weight, doubles=True).shape == (8, 24, 40, 40)


def test_scaling_input_and_output_is_a_convolution_of_each_images_own():
    x, weight, styles = draws(3, 4, 6, 6), draws(5, 4, 3, 3, seed=1), draws(3, 4, seed=2)
    for i in range(3):
        own = weight * styles[i, None, :, None, None]
        plain = torch.nn.functional.conv2d(x[i : i + 1], own, padding=1)
        own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected = torch.nn.functional.conv2d(x[i : i + 1], own, padding=1)
        torch.testing.assert_close(stylegan2.modulated(x, styles, weight)[i : i + 1], expected)
        torch.testing.assert_close(stylegan2.modulated(x, styles, weight, demodulate=False)[i : i + 1], plain)


def test_smoothing_keeps_level_images_level():
    x = torch.full((2, 3, 8, 8), 0.7)
    torch.testing.assert_close(stylegan2._doubled(x)[:, :, 1:-1, 1:-1], torch.full((2, 3, 14, 14), 0.7))
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    inner = torch.arange(16) / 2 - 0.25  # a pixel becomes two, a quarter to both sides
    torch.testing.assert_close(stylegan2._doubled(ramp)[0, 0, 7, 1:-1], inner[1:-1])
    smooth = stylegan2._smoothed(torch.ones(1, 2, 6, 6), padding=2)
    torch.testing.assert_close(smooth[:, :, 2:-2, 2:-2], torch.ones(1, 2, 3, 3))


def test_layers_start_with_outputs_of_deviation_1():
    x = draws(2000, 64)
    assert stylegan2._Linear(64, 50)(x).std().item() == pytest.approx(1, abs=0.05)
    for lr in (1.0, 0.01):  # a leaky ReLU with its gain keeps the mean square
        y = stylegan2._Linear(64, 50, leaky=True, lr=lr)(x)
        assert y.square().mean().item() == pytest.approx(1.04, abs=0.1)
    y = stylegan2._Conv(32, 40, 3)(draws(8, 32, 12, 12))[:, :, 1:-1, 1:-1]
    assert y.square().mean().item() == pytest.approx(1.04, abs=0.1)


def test_r1_of_a_linear_discriminator_is_half_its_square():
    weight = draws(1, 3, 8, 8)
    value = stylegan2.gradient_penalty(lambda x: (x * weight).sum((1, 2, 3)), torch.rand(5, 3, 8, 8))
    assert value.item() == pytest.approx(weight.square().sum().item() / 2, rel=1e-5)


def test_the_penalty_is_weighted_for_the_steps_that_it_skips(tiny_info):
    fit = TINY["stylegan2"].model_copy(update={"ada": False, "r1": 3.0})
    model = build_generator(fit, tiny_info, rng_for(0))
    training_spec = model.training_spec(fit, rng_for(1))
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    term = training_spec.loss_terms["r1"]
    plain = stylegan2.gradient_penalty(lambda x: training_spec.extra_state["discriminator"](x, labels), images * 2 - 1)
    assert term.every == 16 and term.loss(images, labels, rng_for(0), 0.0).item() == pytest.approx(48 * plain.item())
    adams = [optimization.optimizer.defaults for optimization in training_spec.optimizations.values()]
    assert [(adam["lr"], adam["betas"]) for adam in adams] == [
        (fit.peak_lr * 0.8, (0.0, 0.99**0.8)),
        (fit.peak_lr * 16 / 17, (0.0, 0.99 ** (16 / 17))),
    ]
    without = model.training_spec(fit.model_copy(update={"r1": 0.0}), rng_for(1))
    assert "r1" not in without.loss_terms


def test_logistic_losses_on_paper():
    zero = torch.zeros(3)
    assert stylegan2.logistic(zero, zero).item() == pytest.approx(2 * math.log(2))
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -3.0])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    expected += (math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(-3))) / 2
    assert stylegan2.logistic(real, fake).item() == pytest.approx(expected)


def test_the_deviation_of_groups_is_appended():
    """Images n, n + 2, ... of 64 are compared: two groups of 32, one level, the other half 0 and half 2."""
    x = torch.zeros(64, 3, 4, 4)
    x[1::4] = 2.0  # the odd images are the second group; every second of them is 2
    y = stylegan2.with_group_deviation(x)
    assert y.shape == (64, 4, 4, 4) and torch.equal(y[:, :3], x)
    torch.testing.assert_close(y[0::2, 3], torch.full((32, 4, 4), 1e-4))
    torch.testing.assert_close(y[1::2, 3], torch.ones(32, 4, 4))
    with pytest.raises(ValueError, match="at most 32 images"):
        stylegan2.with_group_deviation(torch.zeros(40, 3, 4, 4))


def test_batches_that_do_not_fall_into_groups_are_refused_before_training(tiny_info):
    fit = TINY["stylegan2"].model_copy(update={"batch_size": 48})
    with pytest.raises(ValueError, match="not of 48"):
        build_generator(fit, tiny_info, rng_for(0)).training_spec(fit, rng_for(0))


def test_strength_rises_only_while_real_images_are_told_apart(tiny_info):
    """Adaptation is fed by the discriminator's own step."""
    fit = TINY["stylegan2"]
    model = build_generator(fit, tiny_info, rng_for(0))
    training_spec = model.training_spec(fit, rng_for(1))
    adaptation, judge = training_spec.extra_state["adaptation"], training_spec.extra_state["discriminator"]
    images, labels = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    for sign, expected in ((1, 48 / 100), (-1, 0.0)):
        # A discriminator whose answers all have one sign: the same vector of features and of classes.
        for name, weight in judge.named_parameters():
            if name.startswith(("out", "mapping.0", "class_in")):
                weight.data.zero_()
        judge.out.bias.data.fill_(float(sign))
        judge.mapping[0].bias.data.fill_(100.0)
        for step in range(4):
            training_spec.loss_terms["discriminator"].loss(images, labels, rng_for(step), 0.0)
            training_spec.after_step(12)
        assert adaptation.strength.item() == pytest.approx(expected)
