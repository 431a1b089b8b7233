import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from robustgen.config.loading import with_defaults
from robustgen.recipes import RECIPES
from robustgen.storage.checkpoints import load_checkpoint, save_checkpoint
from robustgen.storage.files import atomic_write, differences, locked, read_json, write_json
from robustgen.storage.run_folder import RunDir
from robustgen.storage.weights import load_weights, save_weights


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file"
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        assert not path.exists()
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with atomic_write(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole" and list(path.parent.iterdir()) == [path]


def test_a_failing_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(path) as file:
        file.write(b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_swept(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".weights.123.part").write_bytes(b"half")
    (tmp_path / "a" / "weights").write_bytes(b"whole")
    with locked(tmp_path):
        assert [p.name for p in (tmp_path / "a").iterdir()] == ["weights"]


def test_two_files_of_one_folder_may_be_written_at_once(tmp_path):
    (tmp_path / ".b.npz.9.part").write_bytes(b"being written")
    with locked(tmp_path, "a.npz"):
        assert (tmp_path / ".b.npz.9.part").exists()
        with locked(tmp_path, "b.npz"):
            assert not (tmp_path / ".b.npz.9.part").exists()


def test_a_folder_in_use_is_refused_until_its_process_is_gone(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from robustgen.storage.files import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "in\n"
    with pytest.raises(ValueError, match=f"in use by process {holder.pid}"), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locked(tmp_path):
        pass


def test_a_run_folder_belongs_to_one_recipe(tmp_path):
    run = RunDir(tmp_path / "run")
    run.ensure_recipe({"train": {"beta": 6.0}, "seed": 0})
    run.ensure_recipe({"seed": 0, "train": {"beta": 6.0}})
    with pytest.raises(ValueError, match=r"train.beta: stored 6.0, requested 5.0"):
        run.ensure_recipe({"train": {"beta": 5.0}, "seed": 0})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").touch()
    with pytest.raises(ValueError, match=r"other files \(me.jpg\)"):
        RunDir(tmp_path / "photos").ensure_recipe({})


def test_a_run_resumes_under_another_description_of_its_recipe(tmp_path):
    run = RunDir(tmp_path / "r")
    run.ensure_recipe({"summary": "old words", "seed": 0})
    run.ensure_recipe({"summary": "new words", "seed": 0})
    assert read_json(run.recipe)["summary"] == "new words"
    with pytest.raises(ValueError, match="seed: stored 0, requested 1"):
        run.ensure_recipe({"summary": "new words", "seed": 1})


def test_a_run_that_an_older_version_began_goes_on(tmp_path):
    run, recipe = RunDir(tmp_path / "run"), RECIPES["digits-smoke"]
    older = recipe.to_json()
    del older["train"]["validation_attack"], older["train"]["loss"]["attack"]["mode"]
    run.ensure_recipe(older)
    run.ensure_recipe(recipe.to_json(), with_defaults)
    assert read_json(run.recipe) == recipe.to_json()
    older["train"]["loss"]["beta"] = 1.5
    write_json(run.recipe, older)
    with pytest.raises(ValueError, match=r"another recipe: train\.loss\.beta: stored 1\.5, requested 6\.0; choose"):
        run.ensure_recipe(recipe.to_json(), with_defaults)
    write_json(run.recipe, {**older, "color": "red"})
    with pytest.raises(ValueError, match='color: stored "red", not requested'):
        run.ensure_recipe(recipe.to_json(), with_defaults)


def test_differences_name_each_setting():
    found = {"a": 1, "b": {"c": [1, 2]}, "old": 0}
    assert differences(found, {"a": 1, "b": {"c": [1, 3]}, "new": 0}) == [
        "b.c: stored [1, 2], requested [1, 3]",
        "new: not stored, requested 0",
        "old: stored 0, not requested",
    ]


def test_timings_add_up_over_resumes(tmp_path):
    run = RunDir(tmp_path)
    run.add_timing("fit", 1.5)
    run.add_timing("fit", 2.0)
    assert '"fit": 3.5' in run.timings.read_text()


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_checkpoints_bring_everything_back(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(5, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "c.pt", {"step": 7}, model=model, optimizer=optimizer)
    other = network()
    other_optimiser = torch.optim.SGD(other.parameters(), lr=0.2, momentum=0.9)
    assert load_checkpoint(tmp_path / "c.pt", model=other, optimizer=other_optimiser) == {"step": 7}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert other_optimiser.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
    assert load_checkpoint(tmp_path / "none.pt", model=other) is None


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    save_checkpoint(tmp_path / "c.pt", {}, model=network())
    (tmp_path / "c.pt").write_bytes((tmp_path / "c.pt").read_bytes()[:500])
    with pytest.raises(ValueError, match="remove it to restart that stage"):
        load_checkpoint(tmp_path / "c.pt", model=network())


def test_weights_load_strictly_and_list_what_differs(tmp_path):
    save_weights(tmp_path / "w.safetensors", network())
    load_weights(network(), tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match=r"missing: 2\.bias, 2\.weight.*other shapes: 0\.weight is \(4, 3\), expected \(4, 5\)"
    ):
        load_weights(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="damaged"):
        load_weights(network(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="no weights file"):
        load_weights(network(), tmp_path / "none.safetensors")


def test_a_file_that_is_not_json_is_named(tmp_path):
    run = RunDir(tmp_path)
    write_json(run.recipe, {})
    run.recipe.write_text("{cut")
    with pytest.raises(ValueError, match=r"recipe\.json is not a JSON file"):
        run.ensure_recipe({})
