"""The contract of generative models, and what is known on paper of each."""

from pathlib import Path

import numpy as np
import pytest
import torch

from robustgen.config.generators import (
    AugmentedConfig,
    BigGANConfig,
    CustomConfig,
    DDPMConfig,
    ECTConfig,
    EDMConfig,
    GaussianConfig,
    StyleGAN2Config,
    VDVAEConfig,
)
from robustgen.config.sampler import SamplerConfig
from robustgen.generators import (
    GENERATORS,
    Augmented,
    Custom,
    Diffusion,
    Gaussian,
    UNet,
    build_generator,
    read_generator,
    save_generator,
)
from robustgen.generators.gaussian import mean_and_factor
from robustgen.images import DatasetInfo, ImageSet
from robustgen.randomness import rng_for
from robustgen.testing import check_generator
from robustgen.training.generator import lr_share, train_generator

SMALL = {
    "gaussian": GaussianConfig(),
    "augmented": AugmentedConfig(augment="cutmix-2"),
    "custom": CustomConfig(source=f"{Path(__file__).with_name('own.py')}:Bars"),
    "ddpm": DDPMConfig(
        conditional=True, channels=8, multipliers=(1, 2), blocks=1, attention=(4,), flip=False, total_images=30 * 30,
        batch_size=30, peak_lr=4e-3, warmup_images=0, ema_half_life_share=0.05, previews=1,
    ),
    "edm": EDMConfig(
        augment=0.0, channels=8, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.1, total_images=30 * 40,
        batch_size=30, peak_lr=2e-3, warmup_images=0,
    ),
    "ect": ECTConfig(
        augment=0.0, channels=8, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.1, total_images=30 * 20,
        batch_size=30, stages=2, peak_lr=1e-3,
    ),
    "vdvae": VDVAEConfig(
        conditional=True, width=32, latents=4, encoder="8x1,8d2,4d4,1x1", decoder="1x1,4m1,8m4,8x1", components=2,
        total_images=30 * 20, batch_size=30, peak_lr=5e-3, warmup_images=0, ema_half_life_share=0.05,
    ),
    "biggan": BigGANConfig(
        channels=16, latents=4, critic_steps=1, standing=4, total_images=30 * 10, batch_size=30, peak_lr=5e-3,
    ),
    "stylegan2": StyleGAN2Config(
        channels=16, latents=8, class_mapping=1, ada=False, total_images=30 * 10, batch_size=30, peak_lr=5e-3,
    ),
}  # fmt: skip


ENOUGH = {
    "ddpm": {"total_images": 30 * 300},
    "edm": {"total_images": 30 * 400},
    "vdvae": {"total_images": 30 * 150},
    "biggan": {"total_images": 30 * 300},
    "stylegan2": {"total_images": 30 * 250},
}
"""What a kind needs to learn to tell three classes apart."""

FAST = {"ddpm": SamplerConfig(solver="ddim", evaluations=6), "edm": SamplerConfig(solver="ipndm", evaluations=6)}
"""How the tests draw from a kind, where its own way takes long."""


def fitted(kind, images, folder, **changes):
    settings = SMALL[kind].model_copy(update=changes)
    model = build_generator(settings, images.info, rng_for(0, "initialise"))
    if isinstance(model, Gaussian | Augmented | Custom):
        model.fit(images)
        return model
    if kind == "ect":
        model.load_state_dict(trained_base(images, folder))
    model = train_generator(model, images, settings, folder, seed=0)
    model.configure_sampler(FAST.get(kind, SamplerConfig()))
    return model


BASE = {}
"""The EDM that ect starts from, trained once: every test has the same images."""


def trained_base(images, folder):
    if not BASE:
        BASE.update(fitted("edm", images, folder / "base", **ENOUGH["edm"]).state_dict())
    return BASE


@pytest.fixture(params=GENERATORS, scope="module")
def kind(request):
    return request.param


@pytest.fixture
def generator(kind, tiny_images, tmp_path):
    return fitted(kind, tiny_images, tmp_path)


def test_every_kind_passes_the_contract(generator, tiny_info):
    """Shape, range and type; equal streams, equal images; no image depends on its batch; the model stays as it is."""
    assert generator.shape == tiny_info.shape
    check_generator(generator)


def test_an_image_depends_on_its_label_and_stream_alone(generator):
    labels = torch.arange(50) % 3
    streams = rng_for(0, "sample").each(range(50))
    whole = generator.sample(labels, streams.at(0))
    assert torch.equal(generator.sample(labels, streams.at(0)), whole)
    for size in (1, 7, 16, 33):
        rows = torch.arange(11, min(50, 11 + size))
        part = generator.sample(labels[rows], streams.at(0).rows(rows))
        assert torch.equal(part, whole[rows]), size
    assert not torch.equal(generator.sample((labels + 1) % 3, streams.at(0)), whole)
    assert len({image.numpy().tobytes() for image in whole}) == 50


def test_a_saved_generator_makes_the_same_images(generator, kind, tiny_info, tmp_path):
    save_generator(tmp_path / "g", generator, SMALL[kind], tiny_info)
    again, about = read_generator(tmp_path / "g")
    again.configure_sampler(FAST.get(kind, SamplerConfig()))
    labels, streams = torch.arange(9) % 3, rng_for(1).each(range(9))
    torch.testing.assert_close(again.sample(labels, streams.at(0)), generator.sample(labels, streams.at(0)))
    assert about["classes"] == list(tiny_info.classes)
    with pytest.raises(ValueError, match="no finished generator"):
        read_generator(tmp_path / "none")


def test_asked_classes_come_out(kind, tiny_images, tmp_path):
    """Bright rows tell the three classes apart; every generator must have learnt that much."""
    model = fitted(kind, tiny_images, tmp_path, **ENOUGH.get(kind, {}))
    labels = torch.arange(60) % 3
    images = model.sample(labels, rng_for(0).each(range(60)))
    thirds = torch.stack([images[:, 0, 2 + 2 * k : 4 + 2 * k].mean((1, 2)) for k in range(3)], 1)
    assert (thirds.argmax(1) == labels).float().mean() > 0.95


def test_broken_off_and_taken_up_equals_unbroken(kind, tiny_images, tmp_path, monkeypatch):
    if kind in ("gaussian", "augmented", "custom"):
        pytest.skip("fitted at once")
    monkeypatch.setattr("robustgen.storage.files.SaveInterval.due", lambda self: True)
    settings = SMALL[kind].model_copy(update={"total_images": 30 * 6, "previews": 0})

    def run(folder, stop=None):
        def progress(done, *_):
            if done == stop:
                raise KeyboardInterrupt

        model = build_generator(settings, tiny_images.info, rng_for(0, "initialise"))
        return train_generator(model, tiny_images, settings, folder, seed=0, progress=progress)

    whole = run(tmp_path / "whole")
    for stop in (30, 120, None):
        try:
            broken = run(tmp_path / "broken", stop)
        except KeyboardInterrupt:
            continue
    states = whole.state_dict(), broken.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (tmp_path / "broken" / "history.npz").read_bytes() == (tmp_path / "whole" / "history.npz").read_bytes()


@pytest.mark.parametrize("count", [20, 200])  # fewer and more images than the 27 pixels
def test_mean_and_factor_are_those_of_the_data(count):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 27), dtype=np.uint8)
    mean, factor = mean_and_factor(pixels, chunk=64)
    np.testing.assert_allclose(mean, pixels.mean(0) / 255)
    np.testing.assert_allclose(factor.T @ factor, np.cov(pixels.T / 255.0), atol=1e-12)


def test_gaussian_samples_have_the_fitted_moments():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(4, 4)) * 8
    pixels = np.clip(128 + rng.normal(size=(600, 4)) @ spread, 0, 255).astype(np.uint8).reshape(600, 2, 2, 1)
    info = DatasetInfo("x", ("a", "b"), (1, 2, 2), (0.5,), (0.1,))
    images = ImageSet(pixels, np.arange(600) % 2, info)
    model = Gaussian((1, 2, 2), 2)
    model.fit(images)
    made = model.sample(torch.zeros(40_000, dtype=torch.int64), rng_for(0).each(range(40_000))).flatten(1).double()
    real = torch.from_numpy(pixels[::2].reshape(-1, 4) / 255.0)
    torch.testing.assert_close(made.mean(0), real.mean(0), atol=2e-3, rtol=0)
    torch.testing.assert_close(made.T.cov(), real.T.cov(), atol=3e-4, rtol=0)


def test_augmented_images_are_training_images_augmented(tiny_images, tmp_path):
    """Without an augmentation they are training images of the class; each of them comes."""
    settings = AugmentedConfig(augment="none")
    model = build_generator(settings, tiny_images.info, rng_for(0))
    assert model.fit(tiny_images) == f"{len(tiny_images)} images kept"
    own = {(image.tobytes(), int(label)) for image, label in zip(tiny_images.images, tiny_images.labels, strict=True)}
    labels = torch.arange(2000) % 3
    drawn = (255 * model.sample(labels, rng_for(0).each(range(2000)))).round().byte().permute(0, 2, 3, 1).numpy()
    assert {(image.tobytes(), int(label)) for image, label in zip(drawn, labels, strict=True)} == own


def test_an_augmented_image_is_its_own_in_company(tiny_images):
    """CutMix of a window of 2: at least all but 4 pixels are those of a training image of the class."""
    model = fitted("augmented", tiny_images, None)
    labels = torch.arange(60) % 3
    drawn = model.sample(labels, rng_for(0).each(range(60)))
    changed = 0
    for image, label in zip(drawn, labels.tolist(), strict=True):
        real = torch.from_numpy(tiny_images.images[tiny_images.labels == label]).permute(0, 3, 1, 2) / 255
        least = int((real - image).abs().gt(1e-6).any(1).flatten(1).sum(1).min())
        assert least <= 4
        changed += least > 0
    assert changed > 30


def test_augmented_needs_an_image_of_each_class(tiny_images):
    some = ImageSet(tiny_images.images[:5], np.zeros(5, dtype=tiny_images.labels.dtype), tiny_images.info)
    with pytest.raises(ValueError, match="no training image of class"):
        build_generator(AugmentedConfig(), some.info, rng_for(0)).fit(some)


def test_gaussian_needs_two_images_of_each_class(tiny_images, tiny_info):
    with pytest.raises(ValueError, match="class c has 1"):
        Gaussian(tiny_info.shape, 3).fit(tiny_images.take(np.array([0, 1, 2, 3, 4])))


class Zero(torch.nn.Module):
    def forward(self, x, noise, labels):
        return torch.zeros_like(x)


def test_preconditioning_has_edms_limits():
    model = Diffusion(Zero(), (1, 4, 4), 3)
    x = torch.randn(5, 1, 4, 4)
    labels = torch.zeros(5, dtype=torch.int64)
    torch.testing.assert_close(model.denoise(x, torch.full((5,), 1e-6), labels), x)  # without noise: the image
    assert model.denoise(x, torch.full((5,), 1e6), labels).abs().max() < 1e-9  # all noise: nothing of it
    torch.testing.assert_close(model.denoise(x, torch.full((5,), 0.5), labels), x / 2)


def test_the_weighted_loss_starts_at_one_for_every_noise_level():
    """On data of deviation sigma_data an untrained network (output 0) has an expected loss of 1 per element."""
    model = Diffusion(Zero(), (1, 16, 16), 3)
    data = (0.5 * torch.randn(4000, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 1) / 2
    for log_sigma in (-3.0, -1.2, 1.0):
        model.log_mean, model.log_std = log_sigma, 0.0
        value = model.loss(data, torch.zeros(4000, dtype=torch.int64), rng_for(0))
        assert value.item() == pytest.approx(1.0, abs=0.01)


def test_the_untrained_network_starts_there_too(tiny_info):
    model = build_generator(SMALL["edm"], tiny_info, rng_for(0))
    data = (0.5 * torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 1) / 2
    value = model.loss(data, torch.arange(500) % 3, rng_for(0))
    assert value.item() == pytest.approx(1.0, abs=0.05)


def test_the_default_network_is_edms():
    with torch.device("meta"):
        network = UNet((3, 32, 32), 10)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 1) == 55.7  # 55.74 million with the augmentation's 9 inputs


def test_learning_rates_rise_stay_and_fall():
    settings = EDMConfig(total_images=1000, batch_size=10, warmup_images=100, cooldown=0.2)
    shares = [lr_share(seen, settings) for seen in (0, 40, 90, 500, 800, 900, 990)]
    assert shares == pytest.approx([0.1, 0.5, 1.0, 1.0, 1.0, 0.5, 0.05])
    assert lr_share(0, settings.model_copy(update={"warmup_images": 0})) == 1.0


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        UNet((1, 10, 10), 3, channels=8, multipliers=(1, 1, 1))
