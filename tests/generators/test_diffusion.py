"""Guidance, weights and consistency tuning of diffusion models, on denoisers known exactly."""

import pytest
import torch
from torch import nn

from robustgen.config.generators import ECTConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.generators import ConsistencyModel, Diffusion
from robustgen.generators.unet import NO_LABEL
from robustgen.randomness import rng_for

SHAPE = (1, 4, 4)


class Constant(Diffusion):
    """Every noisy image of class k comes from one clean image, of brightness `levels[k]`; of no class from another."""

    def __init__(self, levels, unlabelled=0.0, **settings):
        super().__init__(nn.Identity(), SHAPE, len(levels), **settings)
        self.levels = torch.tensor([*levels, unlabelled])  # NO_LABEL is -1: the last

    def denoise(self, x, sigma, labels, augmentation=None):
        return self.levels[labels].view(-1, 1, 1, 1).expand_as(x)


def brightness(model, label=0):
    return model.sample(torch.tensor([label]), rng_for(0).each([0])).mean().item() * 2 - 1


def test_guidance_leads_away_from_the_weaker_model():
    """Denoisers that always say 0.2 and 0.1, led with w = 3: 0.1 + 3 (0.2 - 0.1) = 0.4."""
    model = Constant([0.2, 0.5])
    assert brightness(model) == pytest.approx(0.2, abs=1e-6)
    said = model.configure_sampler(SamplerConfig(guidance=3.0, guide="weak"), Constant([0.1, 0.1]))
    assert brightness(model) == pytest.approx(0.4, abs=1e-6)
    assert said == {"solver": "heun", "evaluations": 35, "guidance": 3.0, "guide": "weak"}
    model.configure_sampler(SamplerConfig())
    assert brightness(model) == pytest.approx(0.2, abs=1e-6)


def test_guidance_without_a_guide_leads_away_from_images_of_no_class():
    model = Constant([0.2, 0.5], unlabelled=-0.1, label_dropout=0.1)
    assert model.configure_sampler(SamplerConfig(guidance=1.5))["guide"] == "without the class"
    assert brightness(model) == pytest.approx(-0.1 + 1.5 * 0.3, abs=1e-6)
    assert brightness(model, 1) == pytest.approx(-0.1 + 1.5 * 0.6, abs=1e-6)
    model.configure_sampler(SamplerConfig(guidance=0.0))
    assert brightness(model, 1) == pytest.approx(-0.1, abs=1e-6)


def test_guidance_that_cannot_be_is_refused():
    model = Constant([0.2, 0.5])
    with pytest.raises(ValueError, match="label_dropout above 0"):
        model.configure_sampler(SamplerConfig(guidance=2.0))
    with pytest.raises(ValueError, match="guide x is not a diffusion model of the same shape and classes"):
        model.configure_sampler(SamplerConfig(guidance=2.0, guide="x"), Constant([0.1, 0.1, 0.1]))
    with pytest.raises(ValueError, match=r"guide \(x\) changes nothing for a guidance of 1"):
        model.configure_sampler(SamplerConfig(guide="x"), Constant([0.1, 0.1]))
    with pytest.raises(ValueError, match=r"temperature \(0.5\) changes nothing for edm"):
        model.configure_sampler(SamplerConfig(temperature=0.5))


def test_a_guide_is_no_part_of_the_model():
    model = Constant([0.2])
    model.configure_sampler(SamplerConfig(guidance=2.0, guide="x"), Diffusion(nn.Linear(2, 2), SHAPE, 1))
    assert not model.state_dict() and not list(model.parameters())


class Nought(nn.Module):
    def forward(self, x, noise, labels):
        return torch.zeros_like(x)


def test_min_snr_caps_the_weight_of_little_noise():
    """An untrained network's loss is 1 at every noise level; the cap makes it g s^2 / d^2 where that is below 1."""
    data = (0.5 * torch.randn(4000, *SHAPE, generator=torch.Generator().manual_seed(0)) + 1) / 2
    labels = torch.zeros(4000, dtype=torch.int64)
    for sigma, share in ((0.1, 5 * 0.1**2 / 0.25), (1.0, 1.0)):
        model = Diffusion(Nought(), SHAPE, 1, log_mean=float(torch.tensor(sigma).log()), log_std=0.0, min_snr=5.0)
        assert model.loss(data, labels, rng_for(0)).item() == pytest.approx(share, rel=0.03)


def test_labels_are_dropped_as_often_as_told():
    seen = []

    class Spy(Diffusion):
        def denoise(self, x, sigma, labels, augmentation=None):
            seen.append(labels)
            return x

    images, labels = torch.zeros(4000, *SHAPE), torch.ones(4000, dtype=torch.int64)
    Spy(nn.Identity(), SHAPE, 2, label_dropout=0.25).loss(images, labels, rng_for(0))
    assert (seen[0] == NO_LABEL).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert ((seen[0] == NO_LABEL) | (seen[0] == 1)).all()


def consistency(**settings):
    model = ConsistencyModel(Nought(), SHAPE, 1, log_mean=-1.1, log_std=2.0)
    model.ratio, model.stages = settings.get("ratio", 2.0), settings.get("stages", 8)
    return model


def test_noise_levels_that_are_compared_come_closer_by_the_ratio_at_each_stage():
    model, t = consistency(), torch.tensor([0.01, 0.3, 1.0, 5.0, 40.0])
    for stage in range(3, 8):
        wide, narrow = t - model.earlier(t, stage), t - model.earlier(t, stage + 1)
        inside = model.earlier(t, stage) > 0
        torch.testing.assert_close(narrow[inside] * 2, wide[inside], rtol=1e-3, atol=0)
    assert (model.earlier(t, 0) <= t).all() and (model.earlier(t, 0) >= 0).all()
    assert (model.earlier(t, 0)[:3] == 0).all()  # at first clean images are the target


def test_what_is_consistent_already_has_no_tuning_loss():
    """All data is one image: the exact denoiser says it at every noise level."""

    class Known(ConsistencyModel):
        def denoise(self, x, sigma, labels, augmentation=None):
            return torch.full_like(x, 0.4)

    model = Known(nn.Identity(), SHAPE, 1, log_mean=-1.1, log_std=2.0)
    images, labels = torch.full((64, *SHAPE), 0.7), torch.zeros(64, dtype=torch.int64)
    assert model.tuning_loss(images, labels, rng_for(0), 0.9).item() == pytest.approx(0.0, abs=1e-5)
    assert model.tuning_loss(images - 0.1, labels, rng_for(0), 0.0).item() > 0.01  # that says another image


def test_the_tuning_loss_is_the_papers():
    """D(x; s) = x s + 1: |D(x + t e; t) - D(x + r e; r)| / (t - r) by hand."""

    class Line(ConsistencyModel):
        def denoise(self, x, sigma, labels, augmentation=None):
            return x * sigma.view(-1, 1, 1, 1) + 1

    model = Line(nn.Identity(), SHAPE, 1, log_mean=0.5, log_std=0.1)
    images, labels = torch.rand(8, *SHAPE), torch.zeros(8, dtype=torch.int64)
    rng = rng_for(0)
    t = (rng.normal((8,)) * 0.1 + 0.5).exp()
    noise, r = rng.normal((8, *SHAPE)), model.earlier(t, 6)
    assert (r > 0).all()
    wide, narrow = t.view(-1, 1, 1, 1), r.view(-1, 1, 1, 1)
    clean = images * 2 - 1
    gap = (clean + wide * noise) * wide - (clean + narrow * noise) * narrow
    by_hand = (gap.flatten(1).norm(dim=1) / (t - r)).mean()
    torch.testing.assert_close(model.tuning_loss(images, labels, rng_for(0), 0.8), by_hand)


def test_one_or_two_evaluations_are_made():
    calls = []

    class Counting(ConsistencyModel):
        def denoise(self, x, sigma, labels, augmentation=None):
            calls.append((float(sigma[0]), float(x.std())))
            return torch.zeros_like(x)

    model = Counting(nn.Identity(), (1, 32, 32), 1)
    labels = torch.zeros(16, dtype=torch.int64)
    model.configure_sampler(SamplerConfig(evaluations=1))
    model.sample(labels, rng_for(0).each(range(16)))
    assert [sigma for sigma, _ in calls] == [80.0] and calls[0][1] == pytest.approx(80, rel=0.05)
    calls.clear()
    assert model.configure_sampler(SamplerConfig()) == {"evaluations": 2}
    model.sample(labels, rng_for(0).each(range(16)))
    assert calls[1] == (pytest.approx(0.821), pytest.approx(0.821, rel=0.05))
    with pytest.raises(ValueError, match="in 1 or 2 evaluations, not in 3"):
        model.configure_sampler(SamplerConfig(evaluations=3))
    with pytest.raises(ValueError, match=r"solver \(ipndm\) changes nothing for ect"):
        model.configure_sampler(SamplerConfig(solver="ipndm"))


def test_a_lesson_brings_the_settings_of_the_fit():
    model = ConsistencyModel(nn.Conv2d(1, 1, 1), SHAPE, 1)
    training_spec = model.training_spec(ECTConfig(ratio=256, stages=1, total_images=128, peak_lr=1e-4), rng_for(0))
    assert isinstance(training_spec.optimizations["network"].optimizer, torch.optim.RAdam)
    assert (model.ratio, model.stages) == (256, 1)
