"""Every setting takes effect or is refused; models are judged by what they were trained for."""

import json
import shutil
from pathlib import Path

import pytest

import robustgen.cli as command_line
import robustgen.stages
from robustgen.cli.settings import USED_SETTINGS, command_settings
from robustgen.config.recipe import CertificationConfig, MeasureConfig
from robustgen.recipes import RECIPES
from robustgen.stages.targets import trained_for
from robustgen.storage.files import write_json

WHOLE = RECIPES["digits"].model_copy(update={"certification": CertificationConfig(), "measure": MeasureConfig()})


def leaves(content, prefix=""):
    """All settable names of a recipe with their values."""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def another(name, value):
    """Values that differ from this one, of which at least one is allowed."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value / 2, 2 * value, 0.5, 2, 1]
    known = {
        "norm": "l2", "kind": None, "name": "mnist", "path": "there", "which": "kept", "suite": "quick", "base": "x",
        "precision": "bfloat16", "batch_norms": "all", "generated_order": "replacement", "smooth": "all",
        "decay": "step", "optimizer": "steepest", "start": "normal", "mode": "eval", "statistics": "both",
        "aim": "targets", "validation_attack": "steepest-margin", "augment": "cutmix", "architecture": "wrn-28-10",
        "standard": "folder", "loss": "adversarial",
    }  # fmt: skip
    if value is None:
        return [1, 0.5, "there"]
    if isinstance(value, list):
        return ["1,2,1", "3"]
    return [known.get(name.rpartition(".")[2], "x")]


@pytest.mark.parametrize("command", USED_SETTINGS)
def test_every_setting_takes_effect_or_is_refused(command):
    taken = 0
    for name, value in leaves(WHOLE.to_json()):
        used = any(name == use or name.startswith(f"{use}.") for use in USED_SETTINGS[command])
        if not used:
            with pytest.raises(ValueError, match=f"{command} does not use {name}"):
                command_settings(command, WHOLE, [f"{name}={json.dumps(value)}"])
            continue
        outcomes = set()
        for other in another(name, value):
            try:
                outcomes.add("changed" if command_settings(command, WHOLE, [f"{name}={other}"]) != WHOLE else "same")
            except ValueError as error:
                assert "does not use" not in str(error), name
                outcomes.add("refused")
        assert "changed" in outcomes or outcomes == {"refused"}, name
        taken += "changed" in outcomes
    assert taken >= 3


def test_a_command_checks_only_what_it_uses():
    """Without validation images early stopping is impossible, which is no matter of fit."""
    assert command_settings("fit", WHOLE, ["data.validation=0"]).data.validation == 0


def test_train_plain_takes_settings_under_the_name_train(robustgen):
    line = ("train", "--plain", "--into", "x", "--dry-run")
    assert robustgen(*line, "--set", "train.schedule.peak_lr=0.5")[0] == 0
    code, _, err = robustgen(*line, "--set", "train.schedule.peak_lr=-1")
    assert code == 2 and "labeller.schedule.peak_lr" in err
    code, _, err = robustgen("train", "--into", "x", "--dry-run", "--set", "labeller.momentum=0.5")
    assert code == 2 and "train does not use labeller.momentum" in err


def test_what_a_model_was_trained_for_is_found_beside_it(tmp_path):
    folder = tmp_path / "run" / "classifiers" / "real-0"
    write_json(folder / "model.json", {"dataset": "digits", "threat": "linf:0.1"})
    assert str(trained_for(str(folder)).threat) == "linf:0.1" and "model.json" in trained_for(str(folder)).where
    write_json(tmp_path / "run" / "recipe.json", RECIPES["digits-smoke"].to_json())
    origin = trained_for(str(folder))
    assert origin.data == RECIPES["digits-smoke"].data and origin.where.endswith("recipe.json")
    write_json(folder / "asked.json", {"data": {"name": "digits", "test": 33}})
    origin = trained_for(str(folder))
    assert origin.data.test == 33 and origin.where.endswith("asked.json")
    hub = trained_for("hub:Wang2023Better_WRN-28-10")
    assert hub.data.name == "cifar10" and str(hub.threat) == "linf:8/255"
    assert trained_for("net.py:make").data is None


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))

def small(): return Net(64)
def large(): return Net(3 * 32 * 32)
"""


def test_models_from_elsewhere_are_judged_on_what_the_user_says(robustgen, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    code, out, err = robustgen("evaluate", "net.py:small", "--suite", "quick")
    assert code == 2 and "needs --data NAME[=PATH] (see: robustgen list datasets) and --threat NORM:EPS" in err
    line = ("evaluate", "net.py:small", "--data", "digits", "--threat", "linf:0.1", "--suite", "quick", "--images", 8)
    code, out, err = robustgen(*line)
    assert code == 0, err
    assert out.splitlines()[0] == "evaluate net.py:small: digits (the command line), linf:0.1 (the command line)"
    code, out, err = robustgen("certify", "net.py:small", "--data", "digits", "--samples", 100, "--images", 2)
    assert code == 0 and out.splitlines()[0] == "certify net.py:small: digits (the command line)", err
    code, _, err = robustgen("publish", "net.py:small", "--to", "torch-export", "--into", "x.pt2")
    assert code == 2 and "publish needs --data" in err


def test_verdicts_are_named_after_the_suite_that_was_used(robustgen, tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    line = ("evaluate", "net.py:small", "--data", "digits", "--threat", "linf:0.1", "--images", 8)
    code, _, err = robustgen(*line, "--set", "evaluation.suite=quick")
    assert code == 0, err
    assert [path.name for path in (tmp_path / "evaluations").glob("*.npz")] == ["small.quick.npz"]


def test_the_file_of_a_result_gets_its_ending(robustgen, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    line = ("evaluate", "net.py:small", "--data", "digits", "--threat", "linf:0.1", "--suite", "quick", "--images", 8)
    assert robustgen(*line, "--into", "v/1.0")[0] == 0 and Path("v/1.0.npz").exists() and not Path("v/1.0").exists()
    code, out, _ = robustgen("certify", *line[1:4], "--samples", 100, "--images", 2, "--into", "v/radii")
    assert code == 0 and Path("v/radii.npz").exists() and "-> v/radii.npz" in out
    code, _, err = robustgen(*line, "--into", "v")
    assert code == 2 and "--into needs a file for the result, such as v/result.npz; v is a folder" in err


@pytest.mark.parametrize("command", ["evaluate", "certify"])
def test_a_model_that_does_not_take_the_images_is_one_line(robustgen, tmp_path, command):
    (tmp_path / "net.py").write_text(NET)
    threat = ("--threat", "linf:0.1") if command == "evaluate" else ()
    code, _, err = robustgen(command, "net.py:large", "--data", "digits", *threat)
    assert code == 2 and err.count("\n") == 1 and "Traceback" not in err
    assert "net.py:large does not accept these images: for input (2, 1, 8, 8) in [0, 1] it raised: mat1" in err


def test_help_groups_all_commands_and_cuts_no_description(robustgen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = robustgen("--help")[1].partition("Make generated images:")[2]
    for verb in command_line.VERBS:
        (line,) = [line for line in out.splitlines() if line.startswith(f"  {verb} ")]
        assert len(line) <= 80 and (not line.endswith("...") or verb == "measure")
    registered = {c.name or c.callback.__name__ for c in command_line.app.registered_commands}
    assert registered == set(command_line.VERBS)


def test_one_command_is_one_file_of_the_command_line_and_one_stage():
    files = {path.stem.removesuffix("_") for path in Path(command_line.__file__).parent.glob("*.py")}
    verbs = {verb.replace("-", "_") for verb in command_line.VERBS}
    assert verbs <= files
    stages = {path.stem.removesuffix("_") for path in Path(robustgen.stages.__file__).parent.glob("*.py")}
    without = {"run", "plan", "compare", "watch", "stop", "list", "show"}
    assert verbs - without <= stages


def test_a_folder_begun_by_an_older_version_goes_on(robustgen, tmp_path):
    """Its settings are completed by what has come since, and renamed."""
    line = ("train", "--plain", "--into", "l", "--set", "train.schedule.total_images=64", "--recipe", "digits-smoke")
    code, _, err = robustgen(*line)
    assert code == 0, err
    asked = json.loads(Path("l/asked.json").read_text())
    older = json.loads(json.dumps(asked))
    del older["train"]["validation_attack"], older["data"]["resize"]
    shutil.copy("l/asked.json", "now.json")
    write_json(Path("l/asked.json"), older)
    code, out, err = robustgen(*line)
    assert code == 0 and "done before" in out, err
    assert json.loads(Path("l/asked.json").read_text()) == asked
    code, _, err = robustgen(*line, "--seed", 3)
    assert code == 2 and "seed: stored 0, requested 3" in err
