"""A run on several devices of one machine; the CPU stands in for two of them, whose processes speak by gloo."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from unittest.mock import Mock

import pytest
from test_pipeline import SMOKE, contents

from robustgen.pipeline.devices import divided, find_devices
from robustgen.pipeline.graph import stages
from robustgen.pipeline.launchers import local
from robustgen.recipes import RECIPES
from robustgen.runtime.errors import StageFailed
from robustgen.storage.run_folder import RunDir

PLAN = stages(SMOKE, RunDir("nowhere"))


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setenv("ROBUSTGEN_DEVICES", "cpu:2")


def start(folder, *options, **more):
    words = [sys.executable, "-m", "robustgen", "run", "digits-smoke", "--into", str(folder), *options]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def finish(folder, *options):
    process = start(folder, *options)
    said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return said[0]


def test_without_several_devices_a_run_is_as_before(monkeypatch):
    monkeypatch.delenv("ROBUSTGEN_DEVICES", raising=False)
    assert find_devices("cpu", PLAN) is None and find_devices("cuda:1", PLAN) is None
    monkeypatch.setenv("ROBUSTGEN_DEVICES", "cpu:1")
    assert find_devices("cpu", PLAN) is None


def test_devices_are_divided_among_models_at_a_time(monkeypatch):
    for count, share in ((2, 1), (12, 2), (23, 2), (24, 4), (64, 8)):  # two models of each of three arms
        assert divided(PLAN, count)["train edm-1"] == share
    assert divided(PLAN, 64)["fit edm"] == 64 and "report" not in divided(PLAN, 64)
    monkeypatch.setenv("ROBUSTGEN_DEVICES", "cpu:8")
    assert set(find_devices("cpu", PLAN, 4, 2).shares.values()) == {2}
    assert find_devices("cpu", PLAN, 4).names == ("cpu",) * 4
    assert set(find_devices("cpu", PLAN).shares.values()) == {1}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("simulated", "options", "said"),
    [
        ("", ("--gpus", "4"), "--gpus 4: this machine has no GPU (ROBUSTGEN_DEVICES=cpu:4 starts 4 processes on the"),
        slow("cpu:2", ("--gpus", "4"), "--gpus 4: this machine has 2 simulated devices"),
        slow("cpu:2", ("--gpus-per-stage", "3"), "--gpus-per-stage 3: the run has 2 simulated devices"),
        slow("", ("--gpus-per-stage", "2"), "--gpus-per-stage 2: the run has no GPU"),
        slow("two", (), "ROBUSTGEN_DEVICES=two: expected cpu:N, such as cpu:2"),
    ],
)
def test_more_devices_than_there_are(robustgen, monkeypatch, simulated, options, said):
    monkeypatch.setenv("ROBUSTGEN_DEVICES", simulated)
    code, _, error = robustgen("run", "digits-smoke", "--device", "cpu", *options)
    assert code == 2 and said in error and error.count("\n") == 1
    assert not list(Path.cwd().iterdir())


def test_the_dry_run_says_which_devices(robustgen, two):
    _, out, _ = robustgen("run", "digits-smoke", "--dry-run", "--device", "cpu", "--gpus-per-stage", "2")
    assert "on cpu, 2 simulated devices, 2 for a stage that can share them" in out


def test_what_processes_share():
    shared = {stage.name for stage in PLAN if stage.shared}
    assert {"labeller", "fit edm", "sample edm", "train edm-1", "evaluate real"} <= shared
    generators = RECIPES["digits-generators"]
    kinds = {stage.kind for stage in stages(generators, RunDir("nowhere")) if stage.shared}
    assert kinds >= {"measure", "label", "arc"}
    (arc,) = (stage.stage.analysis for stage in stages(generators, RunDir("nowhere")) if stage.name == "arc edm")
    assert arc.shared and not replace(arc, analysis="transport").shared
    assert not shared & {"data", "fit gaussian", "keep edm", "report"}


def spawned(parent):
    """Process ids of the Python processes that a process has started; empty where the system has no /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if above == parent and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue
    return found


@pytest.mark.slow
def test_two_devices_make_the_same_bytes_as_the_cores(tmp_path, two):
    finish(tmp_path / "two")
    finish(tmp_path / "one", "--gpus", "1")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_stages_whose_processes_share_their_work(tmp_path, two):
    """Of the same networks they make the same images, labels and verdicts; one that dies takes its stage with it."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    finish(whole, "--gpus-per-stage", "2")
    shutil.copytree(whole, again)
    for name in ("proxies", "evaluation", "report.html"):
        path = again / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    finish(again, "--gpus", "1")
    assert contents(again) == contents(whole)

    shutil.rmtree(again / "classifiers" / "real-0")
    shutil.rmtree(again / "classifiers" / "edm-1")
    (again / "evaluation" / "real.quick.done").unlink()
    process = start(again, "--gpus-per-stage", "2")
    lines, killed = [], False
    for line in process.stdout:
        lines.append(line)
        if line.startswith("train real-0: started"):
            deadline = time.monotonic() + 120
            while not killed and time.monotonic() < deadline:
                ranks = [rank for worker in spawned(process.pid) for rank in spawned(worker)]
                if ranks and (again / "classifiers" / "real-0").exists():
                    os.kill(max(ranks), signal.SIGKILL)
                    killed = True
                time.sleep(0.05)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 2 and killed
    assert re.match(r"robustgen: train real-0: process [01] was killed \(signal 9.*\n$", error), error
    assert any(line.startswith("train edm-1: best") for line in lines), lines
    assert not (again / "classifiers" / "real-0" / "model.json").exists()
    finish(again, "--gpus-per-stage", "2")
    assert (again / "report.html").exists()


def test_all_stages_that_failed_are_named(monkeypatch, tmp_path):
    class Failing(local._Worker):
        """A worker, without a process, whose stages fail."""

        def __init__(self, recipe, run, device):
            self.device, self.lent, self.stage, self.helpers = device, False, None, []
            self.connection, self.answers = Pipe()
            self.process = Mock()

        def start(self, stage, helpers):
            super().start(stage, helpers)
            self.answers.send(("failed", stage, f"no {stage}", "details", False))

    monkeypatch.setattr(local, "_Worker", Failing)
    nodes = [replace(PLAN[0], name=name, needs=(), output=tmp_path / "x") for name in ("train a-0", "train b-0")]
    nodes.append(replace(PLAN[0], name="report", needs=("train a-0", "train b-0"), output=tmp_path / "x"))
    names = ("cuda:0", "cuda:1")
    with pytest.raises(StageFailed, match=r"train a-0: no train a-0; also failed: train b-0$") as failed:
        local.run_stages(SMOKE, RunDir(tmp_path), nodes, names, Mock(), others_finish=True)
    assert failed.value.details == "details"


def test_a_worker_of_a_gpu_survives_a_stage_that_needs_no_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    local._free_gpu("cuda:0")
