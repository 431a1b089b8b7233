"""Generators that a user wrote: their contract, what is refused in one line, and a whole run with them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robustgen.config.generators import CustomConfig, DDPMConfig, GaussianConfig
from robustgen.config.recipe import DataConfig, Recipe
from robustgen.config.sampler import SamplerConfig
from robustgen.generators import (
    build_generator,
    check_sampler,
    open_generator,
    read_generator,
    save_diffusers,
    save_generator,
)
from robustgen.generators.custom import Custom
from robustgen.images import DatasetInfo
from robustgen.pipeline.graph import check_recipe, stages
from robustgen.randomness import rng_for
from robustgen.recipes import RECIPES
from robustgen.recipes.scaling import scaled
from robustgen.stages.fit import Fit
from robustgen.stages.sample import Sample
from robustgen.storage.files import Note
from robustgen.storage.run_folder import RunDir
from robustgen.testing import check_generator

OWN = Path(__file__).with_name("own.py")
SPEC = importlib.util.spec_from_file_location("own", OWN)
own = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(own)
SHAPE = (1, 8, 8)


@pytest.mark.parametrize("made", [own.one_by_one, own.by_streams, own.Bars(3, SHAPE)], ids=["seed", "rng", "seeds"])
def test_each_way_to_write_one_passes_the_contract(made):
    check_generator(made, SHAPE, classes=3)


def test_bytes_are_pixels_and_an_image_comes_from_its_own_seed():
    model = Custom(own.one_by_one, SHAPE, 3)
    made = model.sample_images([0, 2], seed=4) * 255
    seeds = rng_for(4, "sample").each(range(2)).integers(2**31 - 1, (2,)).tolist()
    wanted = np.concatenate([own.one_by_one([k], seed) for k, seed in zip((0, 2), seeds, strict=True)])
    assert np.array_equal(made.round().byte().numpy(), wanted)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("channels_behind", r"expected images of shape \(1, 1, 8, 8\), got \(1, 8, 8, 1\); move the channels"),
        ("signed", r"expected images in \[0, 1\], got values from -0.9 to -0.9; clamp them, or return \(images \+ 1\)"),
        ("bytes_as_floats", r"expected images in \[0, 1\], got values from 200 to 200"),
        ("not_numbers", r"expected images in \[0, 1\], got values from nan to nan"),
        ("integers", r"expected images of uint8, or floating point in \[0, 1\], got torch.int64"),
        ("text", "expected images as a tensor or an array, got str"),
        ("broken", "fails: RuntimeError: no weights"),
        ("nothing", r"expected arguments \(labels, seed\), got \(labels\)"),
        ("global_noise", "the same labels and seeds gave other images"),
        ("of_the_batch", "image 2 differs where it is made alone"),
        ("absent", "no function 'absent'; known: Bars"),
        ("maker", r"expected a function of \(labels, seed\), or an nn.Module with a method sample.*got Linear"),
        ("maker(fail=True)", "fails: KeyError: 'weights.pt'"),
        ("maker(1)", "expected arguments by name with plain values"),
    ],
)
def test_what_is_not_a_generator_is_one_line(name, message, tmp_path):
    config = CustomConfig(source=f"{OWN}:{name}")
    data = DataConfig(name="digits", train=20, validation=10, test=10)
    with pytest.raises(ValueError, match=message) as raised:
        Fit(config, data, tmp_path / "g", 0)("cpu", lambda *_: None)
    assert "\n" not in str(raised.value) and not (tmp_path / "g" / "generator.json").exists()


@pytest.mark.parametrize("source", ["gen", "timm:resnet18", "hf:model", "none.py:make", "no.such.module:make"])
def test_a_wrong_source_is_found_before_anything_is_made(source):
    with pytest.raises(ValueError, match=r"source: expected FILE\.py:NAME|there is no file|cannot import"):
        check_sampler(CustomConfig(source=source), SamplerConfig())


@pytest.mark.parametrize("made", [own.global_noise, own.of_the_batch, own.signed, own.broken])
def test_the_contract_suite_finds_what_is_broken(made):
    with pytest.raises(AssertionError):
        check_generator(made, SHAPE)


def test_an_own_network_is_kept_with_its_code_and_weights(tmp_path):
    """The copy of the code is used, and a note says that the file has changed since."""
    file = tmp_path / "gen.py"
    file.write_text(OWN.read_text())
    config = CustomConfig(source=f"{file}:Bars(dark=0.5)")
    data = DataConfig(name="digits", train=20, validation=10, test=10)
    said = Fit(config, data, tmp_path / "g", 0)("cpu", lambda *_: None)
    assert said.endswith("four images checked")
    before = open_generator(tmp_path / "g").sample_images([3, 1, 4])
    file.write_text("def nothing(): pass")
    with pytest.warns(Note, match="has changed since"):
        after = open_generator(tmp_path / "g").sample_images([3, 1, 4])
    assert torch.equal(before, after)
    file.write_text(OWN.read_text())
    model, about = read_generator(tmp_path / "g")
    with torch.no_grad():
        model.network.rows.zero_()
    save_generator(tmp_path / "g", model, config, DatasetInfo("digits", tuple(about["classes"]), SHAPE, (0.0,), (1.0,)))
    assert open_generator(tmp_path / "g").sample_images([3]).max() <= 0.3


def run(recipe, folder):
    check_recipe(recipe)
    for stage in stages(recipe, RunDir(folder)):
        if not stage.name.startswith(("evaluate", "certify", "report")):
            stage.stage("cpu", lambda *_: None)
            assert stage.finished, stage.name


def test_own_code_and_a_finished_folder_pass_through_a_run(tmp_path):
    """Kept, sampled, labeled, measured and trained with like the built-in ones."""
    tiny = scaled(RECIPES["digits-smoke"], "tiny")
    Fit(GaussianConfig(), tiny.data, tmp_path / "finished", 0)("cpu", lambda *_: None)
    generators = {
        "mine": {"kind": "custom", "source": f"{OWN}:one_by_one(level=60)", "conditional": False},
        "taken": {"kind": "custom", "source": str(tmp_path / "finished")},
    }
    arms = {name: {"proxy": name} for name in generators}
    recipe = Recipe.model_validate({**tiny.to_json(), "generators": generators, "arms": arms})
    assert Recipe.model_validate(json.loads(json.dumps(recipe.to_json()))) == recipe
    run(recipe, tmp_path / "run")
    images = np.load(tmp_path / "run" / "proxies" / "mine" / "images-00000.npy")
    assert images.max() < 60 + 90 and images[0].max() < 60
    manifest = json.loads((tmp_path / "run" / "proxies" / "mine" / "manifest.json").read_text())
    assert manifest["generator"]["conditional"] is False and "one_by_one" in manifest["generator"]["source"]
    Sample(tmp_path / "finished", SamplerConfig(), tmp_path / "own", recipe.seed, 10)("cpu", lambda *_: None)
    taken = np.load(tmp_path / "run" / "proxies" / "taken" / "images-00000.npy")
    assert np.array_equal(taken[:10], np.load(tmp_path / "own" / "images-00000.npy")[:10])
    assert (tmp_path / "run" / "quality").exists() or recipe.measure is None


def test_a_folder_of_other_images_is_refused(tmp_path, tiny_images):
    model = build_generator(GaussianConfig(), tiny_images.info, rng_for(0))
    model.fit(tiny_images)
    save_generator(tmp_path / "three", model, GaussianConfig(), tiny_images.info)
    config = CustomConfig(source=str(tmp_path / "three"))
    with pytest.raises(ValueError, match=r"makes images of shape \(1, 8, 8\) of 3 classes; digits has .* 10 classes"):
        Fit(config, DataConfig(name="digits", train=20, validation=10, test=10), tmp_path / "g", 0)("cpu", print)


def test_a_diffusers_folder_is_taken_as_it_is(tmp_path):
    info = DatasetInfo("digits", tuple("0123456789"), SHAPE, (0.0,), (1.0,))
    config = DDPMConfig(channels=8, multipliers=(1, 2), blocks=1, attention=())
    save_diffusers(tmp_path / "theirs", build_generator(config, info, rng_for(0)))
    data = DataConfig(name="digits", train=20, validation=10, test=10)
    Fit(CustomConfig(source=str(tmp_path / "theirs")), data, tmp_path / "g", 0)("cpu", lambda *_: None)
    model, about = read_generator(tmp_path / "g")
    assert about["taken_from"] == str(tmp_path / "theirs") and model.classes == 10


def test_nothing_of_the_sampler_can_be_set(tmp_path):
    with pytest.raises(ValueError, match="temperature"):
        check_sampler(CustomConfig(source=f"{OWN}:by_streams"), SamplerConfig(temperature=0.5))
