"""Every preset builds, for the images it is made for; the smallest train and draw."""

import pytest
import torch

from robustgen.config.generators import GENERATOR_CONFIGS
from robustgen.config.recipe import DataConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.datasets import load_splits
from robustgen.generators import Augmented, build_generator, read_generator, save_generator
from robustgen.generators.gaussian import Gaussian
from robustgen.images import DatasetInfo
from robustgen.randomness import rng_for
from robustgen.recipes.presets import PRESETS, find_preset
from robustgen.training.generator import train_generator

CLASSES = tuple("0123456789")
SMALL = DatasetInfo("digits", CLASSES, (1, 8, 8), (0.3,), (0.4,))
LARGE = DatasetInfo("cifar10", CLASSES, (3, 32, 32), (0.5,) * 3, (0.25,) * 3)
NAMES = ("smoke", "cpu-tiny", "gpu-20min", "gpu-60min", "paper")


def test_every_kind_has_every_preset():
    assert PRESETS.keys() <= GENERATOR_CONFIGS.keys()
    for kind, presets in PRESETS.items():
        assert tuple(presets) == NAMES
        assert all(settings.kind == kind for settings in presets.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", PRESETS)
def test_presets_build(kind, name):
    info = SMALL if name in ("smoke", "cpu-tiny") else LARGE
    with torch.device("meta"):
        model = build_generator(find_preset(kind, name), info, rng_for(0))
    assert (model.shape, model.classes) == (info.shape, 10)


def test_unknown_presets_are_answered_with_the_known():
    with pytest.raises(ValueError, match="unknown kind of generator 'gan'; known: gaussian, ddpm, edm"):
        find_preset("gan", "smoke")
    with pytest.raises(ValueError, match="unknown preset 'huge' of edm; known: smoke, cpu-tiny"):
        find_preset("edm", "huge")


@pytest.mark.parametrize("kind", PRESETS)
def test_the_smallest_start_to_learn_the_digits(kind, tmp_path):
    images = load_splits(DataConfig(name="digits", train=100, validation=10, test=100)).train
    settings = find_preset(kind, "smoke")
    model = build_generator(settings, images.info, rng_for(0))
    if isinstance(model, Gaussian | Augmented):
        model.fit(images)
    else:
        settings = settings.model_copy(update={"total_images": 3 * settings.batch_size})
        model = train_generator(model, images, settings, tmp_path, seed=0)
    save_generator(tmp_path / "g", model, settings, images.info)
    again, _ = read_generator(tmp_path / "g")
    again.configure_sampler(SamplerConfig(evaluations=2) if kind in ("ddpm", "ect") else SamplerConfig())
    labels, streams = torch.arange(20) % 10, rng_for(0).each(range(20))
    made = again.sample(labels, streams)
    assert made.shape == (20, 1, 8, 8) and torch.isfinite(made).all()
