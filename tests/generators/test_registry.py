"""A generator that a program registers itself, names of version 0.1, and opening a finished generator."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.generators import GENERATOR_CONFIGS, EDMConfig, GaussianConfig, generator_config
from robustgen.config.loading import override
from robustgen.config.recipe import Recipe
from robustgen.config.sampler import SamplerConfig
from robustgen.generators import GENERATORS, Generator, build_generator, check_sampler, open_generator, save_generator
from robustgen.images import to_bytes
from robustgen.pipeline.graph import check_recipe, stages
from robustgen.randomness import rng_for
from robustgen.recipes import RECIPES
from robustgen.recipes.scaling import scaled
from robustgen.stages.sample import Sample
from robustgen.storage.run_folder import RunDir


class StripesConfig(GeneratorConfig):
    kind: Literal["stripes"] = "stripes"
    brightness: float = 0.5


class Stripes(Generator):
    """Noise, and a bright row that says the class."""

    kind = "stripes"

    def __init__(self, shape, classes, brightness):
        super().__init__()
        self.shape, self.classes = shape, classes
        self.register_buffer("brightness", torch.tensor(brightness))

    @classmethod
    def from_config(cls, config, info, rng):
        return cls(info.shape, len(info.classes), config.brightness)

    def fit(self, images):
        return "nothing to fit"

    def sample(self, labels, rng):
        images = rng.uniform((len(labels), *self.shape)) * 0.2
        images[torch.arange(len(labels)), :, labels % self.shape[1]] += self.brightness
        return images.clamp(0, 1)


@pytest.fixture
def stripes(monkeypatch):
    monkeypatch.setitem(GENERATOR_CONFIGS, "stripes", StripesConfig)
    monkeypatch.setitem(GENERATORS, "stripes", Stripes)


def test_a_registered_generator_passes_through_a_run(stripes, tmp_path):
    tiny = scaled(RECIPES["digits-smoke"], "tiny").to_json()
    arms = {"stripes": {"proxy": "mine"}}
    content = {**tiny, "generators": {"mine": {"kind": "stripes", "brightness": 0.7}}, "arms": arms, "measure": None}
    recipe = Recipe.model_validate(content)
    assert Recipe.model_validate(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert override(recipe, ["generators.mine.brightness=0.75"]).generators["mine"].brightness == 0.75
    check_recipe(recipe)
    for stage in stages(recipe, RunDir(tmp_path)):
        if stage.name.startswith(("evaluate", "certify", "report")):
            continue
        stage.stage("cpu", lambda *_: None)
        assert stage.finished, stage.name
    images = np.load(tmp_path / "proxies" / "mine" / "images-00000.npy")
    assert images[0, 0].min() >= 178 and images[0, 1:].max() <= 51


def test_an_unknown_kind_and_settings_of_another_kind_are_named():
    with pytest.raises(ValueError, match=r"one of gaussian, ddpm, edm, .*; got kind 'gan'"):
        generator_config({"kind": "gan"})
    with pytest.raises(ValueError, match="timesteps"):
        generator_config({"kind": "edm", "timesteps": 10})


@pytest.mark.parametrize("kind", GENERATOR_CONFIGS)
def test_every_kind_refuses_settings_that_it_does_not_have(kind):
    own = {"source": f"{Path(__file__).with_name('own.py')}:Bars"} if kind == "custom" else {}
    config = GENERATOR_CONFIGS[kind](**own)
    check_sampler(config, SamplerConfig())
    for name, value, kinds in (
        ("temperature", 0.5, {"vdvae"}),
        ("guide", "./weak", set()),
        ("guidance", 2.0, set()),
        ("solver", "ipndm", GENERATORS.keys() - {"ect"}),
    ):
        if kind in kinds:
            check_sampler(config, SamplerConfig(**{name: value}))
        else:
            with pytest.raises(ValueError, match=f"{name}|guidance without a guide"):
                check_sampler(config, SamplerConfig(**{name: value}))


def test_names_of_version_0_1_are_read():
    old = {"kind": "edm", "averaging_images": 5.0, "averaging_share": None}
    assert generator_config(old) == EDMConfig(ema_half_life_images=5.0, ema_half_life_share=None)
    with pytest.raises(ValueError, match="averaging_images"):
        EDMConfig(averaging_images=5.0, ema_half_life_images=6.0)


def test_an_opened_generator_makes_the_images_of_the_sample_command(tiny_images, tmp_path):
    model = build_generator(GaussianConfig(), tiny_images.info, rng_for(0))
    model.fit(tiny_images)
    save_generator(tmp_path / "g", model, GaussianConfig(), tiny_images.info)
    Sample(tmp_path / "g", SamplerConfig(), tmp_path / "set", 3, 11)("cpu", lambda *_: None)
    made = open_generator(tmp_path / "g").sample_images(np.arange(11) % 3, seed=3, batch_size=4)
    drawn = np.load(tmp_path / "set" / "images-00000.npy")
    assert np.array_equal(to_bytes(made).permute(0, 2, 3, 1).numpy(), drawn)
    with pytest.raises(ValueError, match="temperature"):
        open_generator(tmp_path / "g", sampler=SamplerConfig(temperature=0.5))
