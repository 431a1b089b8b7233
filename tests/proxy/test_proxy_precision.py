"""Proxy sets sampled and labeled in bfloat16: what is recorded, what stays, and how far results are from float32."""

import json

import numpy as np
import pytest
import torch

from robustgen.config.generators import EDMConfig, GaussianConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.generators import build_generator, open_generator, read_generator, save_generator
from robustgen.models import build_model
from robustgen.models.saved import save_classifier
from robustgen.proxy.sampling import sample_batch
from robustgen.proxy.store import ProxySet
from robustgen.randomness import rng_for
from robustgen.stages.label import Label
from robustgen.stages.sample import Sample

SAMPLER = SamplerConfig(solver="euler", evaluations=3)


@pytest.fixture
def edm(tmp_path, tiny_info):
    """The folder of an EDM whose weights are drawn."""
    config = EDMConfig(**EDMConfig.SHORTEST_RUN, channels=16, multipliers=(1, 1), blocks=1, attention=(4,), augment=0.0)
    model = build_generator(config, tiny_info, rng_for(0))
    model.network.out.weight.data.copy_(rng_for(1).normal(model.network.out.weight.shape) / 8)  # it starts near 0
    save_generator(tmp_path / "edm", model, config, tiny_info, seed=0)
    return tmp_path / "edm"


@pytest.fixture
def labeler(tmp_path, tiny_info):
    model = build_model("wrn-10-1", tiny_info, rng_for(0))
    model.logits.weight.data.copy_(rng_for(1).normal(model.logits.weight.shape))  # it starts at 0
    save_classifier(tmp_path / "labeler", model, "wrn-10-1", tiny_info, threat=None, sigma=None, seed=0, step=1)
    return tmp_path / "labeler"


def sampled(generator, folder, precision, count=70):
    sampler = SAMPLER if "edm" in generator.name else SamplerConfig()
    Sample(generator, sampler.model_copy(update={"precision": precision}), folder, 0, count)("cpu", quiet)
    return ProxySet(folder)


def quiet(*words):
    pass


def test_images_in_bfloat16_are_near_those_in_float32(edm, tmp_path):
    sets = {name: sampled(edm, tmp_path / name, name) for name in ("float32", "bfloat16")}
    assert "precision" not in sets["float32"].manifest["generator"]
    assert sets["bfloat16"].manifest["generator"]["precision"] == "bfloat16"
    one, two = (proxies.images(np.arange(70)).astype(int) for proxies in sets.values())
    assert 0 < np.abs(one - two).mean() < 2  # of 255


def test_an_unfinished_set_is_not_continued_in_another_precision(edm, tmp_path):
    sampled(edm, tmp_path / "p", "float32")
    with pytest.raises(ValueError, match=r"created with different settings: generator\.precision"):
        sampled(edm, tmp_path / "p", "bfloat16")


def test_image_i_does_not_depend_on_the_batch_in_bfloat16(edm):
    model, _ = read_generator(edm)
    model.configure_sampler(SAMPLER)
    whole = sample_batch(model, np.arange(48), 0, "cpu", "bfloat16")
    parts = [sample_batch(model, np.arange(48)[some], 0, "cpu", "bfloat16") for some in (slice(0, 7), slice(7, 48))]
    assert torch.equal(torch.cat(parts), whole)


def test_auto_is_recorded_and_kept(edm, labeler, tmp_path, monkeypatch):
    monkeypatch.setattr("robustgen.runtime.precision.has_bfloat16_units", lambda device: True)
    monkeypatch.setattr("robustgen.runtime.precision.FEWEST", 1)

    def time_both(work, device, clock):
        work("float32"), work("bfloat16")
        return {"float32": 2.0, "bfloat16": 1.0}

    monkeypatch.setattr("robustgen.runtime.precision._timed", time_both)
    proxies = sampled(edm, tmp_path / "p", "auto")
    assert proxies.manifest["generator"]["precision"] == "bfloat16"
    assert json.loads((tmp_path / "p" / "precision.json").read_text())["precision"] == "bfloat16"
    Label(tmp_path / "p", labeler, precision="auto")("cpu", quiet)
    assert ProxySet(tmp_path / "p").manifest["columns"]["label"]["precision"] == "bfloat16"
    assert json.loads((tmp_path / "p" / "label-precision.json").read_text())["precision"] == "bfloat16"

    def never(*args):
        raise AssertionError("timed again")

    monkeypatch.setattr("robustgen.runtime.precision._timed", never)
    assert sampled(edm, tmp_path / "p", "auto").manifest == ProxySet(tmp_path / "p").manifest


def test_generators_that_are_not_trained_by_steps_stay_in_float32(tiny_images, tiny_info, tmp_path):
    model = build_generator(GaussianConfig(), tiny_info, rng_for(0))
    model.fit(tiny_images)
    save_generator(tmp_path / "gaussian", model, GaussianConfig(), tiny_info, seed=0)
    sets = [sampled(tmp_path / "gaussian", tmp_path / name, name) for name in ("float32", "bfloat16", "auto")]
    assert len({proxies.manifest["shards"][0]["sha256"] for proxies in sets}) == 1
    assert all("precision" not in proxies.manifest["generator"] for proxies in sets)


def test_labels_in_bfloat16_are_float32s_but_for_near_ties(edm, labeler, tmp_path):
    columns = {}
    for precision in ("float32", "bfloat16"):
        proxies = sampled(edm, tmp_path / precision, "float32")
        Label(proxies.folder, labeler, precision=precision)("cpu", quiet)
        proxies = ProxySet(proxies.folder)
        assert proxies.manifest["columns"]["label"].get("precision", "float32") == precision
        columns[precision] = {name: np.array(proxies.column(name)) for name in ("label", "margin", "confidence")}
    one, two = columns["float32"], columns["bfloat16"]
    assert one["confidence"].dtype == two["confidence"].dtype == np.float32
    difference = np.abs(one["confidence"] - two["confidence"])
    assert 0 < difference.max() < 0.05
    changed = one["label"] != two["label"]
    assert (one["margin"][changed] < 0.1).all()


def test_in_python_the_precision_of_sampling_is_autocasts(edm):
    with pytest.raises(ValueError, match="precision auto is for proxy sets only"):
        open_generator(edm, sampler=SamplerConfig(precision="auto"))


def test_unknown_precisions_are_one_line(edm, labeler, tmp_path, robustgen):
    code, _, error = robustgen("sample", edm, "--count", 10, "--into", tmp_path / "p", "--precision", "float16")
    assert code == 2 and "'auto', 'float32' or 'bfloat16'" in error and error.count("\n") == 1
    code, _, error = robustgen("label", tmp_path / "p", "--with", labeler, "--precision", "half")
    assert code == 2 and "unknown precision 'half'; known: auto, float32, bfloat16" in error
