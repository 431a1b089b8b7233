"""The commands of a quarter of an hour on a GPU, at a tiny scale on a CPU."""

import json
import os
import subprocess
import sys
import tarfile

import pytest

from conftest import REPOSITORY, real_data
from robustgen.recipes import RECIPES

SCRIPT = REPOSITORY / "examples" / "cifar10_5k_gpu.sh"


def test_rates_are_measured_and_kept_with_the_machine(tmp_path):
    line = [sys.executable, str(REPOSITORY / "benchmarks" / "rates.py"), "--tiny", "--into", str(tmp_path / "r.json")]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["device"] and {"commit", "torch", "robustgen"} <= found["environment"].keys()
    rows = found["rows"]
    assert not [row for row in rows if "failed" in row]
    kinds = {"matrix product", "copy", "trades-10", "edm step", "edm sampling", "attack"}
    assert {row["what"] for row in rows} == kinds
    rates = [row[name] for row in rows for name in row if name.endswith("/s") or name.startswith("passes/s")]
    assert len(rates) >= len(rows) and min(rates) > 0
    trades = next(row for row in rows if row["what"] == "trades-10")
    assert trades["images/s"] == pytest.approx(1e3 * trades["batch"] / trades["ms"], rel=0.01)
    late = subprocess.run([*line, "--seconds", "0"], capture_output=True, text=True, check=True)
    assert late.stdout.count("left out 0 s had passed") == len(rows)


def test_both_sizes_of_the_recipe_have_the_same_arms_on_the_same_images():
    cpu, gpu = RECIPES["cifar10-5k-cpu"], RECIPES["cifar10-5k"]
    assert cpu.arms == gpu.arms and cpu.data == gpu.data and cpu.threat == gpu.threat
    assert cpu.data.train == 5000 and cpu.data.validation == 1000 and cpu.data.test >= 2000
    for recipe in (cpu, gpu):
        budgets = {recipe.training(arm).schedule for arm in recipe.arms}
        assert len(budgets) == 1 and recipe.arms["all"].train_images == "all"


@pytest.mark.slow
def test_the_script_runs_in_commands_that_are_cut_off(tmp_path):
    """Five minutes on an idle core: rates, a run that is stopped, and the rest of it."""
    pieces = tmp_path / "pieces"
    unpack = [sys.executable, str(REPOSITORY / "benchmarks" / "unpack_cifar10.py")]
    subprocess.run([*unpack, str(real_data("cifar10_train.npz")), "--cut", "2", "--into", str(pieces)], check=True)
    (pieces / "test.npz").symlink_to(real_data("cifar10_test_0_7999.npz"))
    places = {"PIECES": pieces, "RESULTS": tmp_path / "out", "RUN": tmp_path / "run", "DATA": tmp_path / "data"}
    setting = {**os.environ, "TINY": "1", "PYTHON": sys.executable, **{name: str(at) for name, at in places.items()}}

    def command(step, **more):
        line = ["bash", str(SCRIPT), step]
        return subprocess.run(line, capture_output=True, text=True, env={**setting, **more})

    measured = command("rates")
    assert measured.returncode == 0 and (tmp_path / "out" / "rates.json").exists(), measured.stdout + measured.stderr
    stopped = command("run", SECONDS_LEFT="40")
    assert stopped.returncode and (tmp_path / "out" / "records.tar.gz").exists(), stopped.stdout + stopped.stderr
    rest = command("run", SECONDS_LEFT="3600")
    assert rest.returncode == 0 and "done before" in rest.stdout, rest.stdout + rest.stderr
    with tarfile.open(tmp_path / "out" / "records.tar.gz") as kept:
        names = kept.getnames()
    assert {"./recipe.json", "./report.html", "./evaluation/all.quick.npz"} <= set(names)
    assert not [name for name in names if name.endswith((".safetensors", ".npy"))]
