"""Folders that version 0.1 left still open, and its runs go on."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from robustgen.cli.settings import command_settings
from robustgen.config.training import TrainingConfig
from robustgen.generators import read_generator
from robustgen.models.saved import load_classifier
from robustgen.pipeline.scheduler import ensure_settings
from robustgen.proxy.store import ProxySet
from robustgen.randomness import rng_for
from robustgen.recipes import RECIPES
from robustgen.records.verdicts import Verdicts

OLD = Path(__file__).resolve().parent.parent / "fixtures" / "version-0.1"


def test_models_and_proxy_sets_open():
    images = torch.rand(4, 1, 8, 8)
    assert load_classifier(OLD / "run/classifiers/edm-0")(images).shape == (4, 10)
    assert load_classifier(OLD / "run/labeller")(images).shape == (4, 10)
    model, about = read_generator(OLD / "run/generators/edm")
    assert about["settings"]["kind"] == "edm"
    made = model.sample(torch.arange(4), rng_for(0, "x").each(range(4)))
    assert made.shape == (4, 1, 8, 8) and made.min() >= 0 and made.max() <= 1
    proxies = ProxySet(OLD / "run/proxies/edm")
    assert len(proxies) == 400 and proxies.has("label") and len(proxies.kept())


def test_a_finished_run_has_nothing_to_do(robustgen, tmp_path):
    shutil.copytree(OLD / "run", tmp_path / "r")
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*.npz")}
    code, out, err = robustgen("run", "r/recipe.json", "--into", "r", "--jobs", 1)
    assert code == 0, err
    assert out.count("done before") == 8 and Path("r/report.html").exists()
    assert before == {path: path.read_bytes() for path in before}


def test_an_unfinished_run_goes_on_to_the_same_verdicts(robustgen, tmp_path):
    shutil.copytree(OLD / "run", tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "evaluation")
    changes = ("--set", 'arms={"edm":{"proxy":"edm"}}', "--set", "train.models=1")
    code, out, err = robustgen("run", "digits-smoke", "--into", "r", "--jobs", 1, *changes)
    assert code == 0, err
    assert out.count("done before") == 7 and "evaluate edm: model 0" in out
    old, new = (Verdicts.load(place / "evaluation/edm.quick.npz") for place in (OLD / "run", tmp_path / "r"))
    assert np.array_equal(old.fell_to, new.fell_to) and np.array_equal(old.ids, new.ids)


def test_a_folder_of_one_command_goes_on(tmp_path):
    shutil.copy(OLD / "begun/asked.json", tmp_path / "asked.json")
    settings = command_settings("train --plain", RECIPES["digits-smoke"], None)
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert TrainingConfig.model_validate(asked["train"]) == settings.labeller
    sources = type(settings.arms["real"])()
    ensure_settings(
        tmp_path,
        {"train": settings.labeller, "data": settings.data, "threat": "linf:0.1", "proxies": sources, "seed": 0},
    )
    assert json.loads((tmp_path / "asked.json").read_text())["train"] == settings.labeller.to_json()
