"""Commands killed many times at random moments and repeated leave the bytes of undisturbed ones."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from test_pipeline import command, contents, finish

KILLS = int(os.environ.get("ROBUSTGEN_KILLS", "100"))
"""Over all commands; a command is also repeated undisturbed after the last of them."""
RECIPE = ("--recipe", "digits-smoke")
WAYS = ("group", "parent", "worker")

COMMANDS = {
    "run": ("run", "digits-smoke", "--scale", "tiny", "--into", "out/run", "--jobs", 2),
    "fit": ("fit", "edm", *RECIPE, "--set", "generators.edm.total_images=32000", "--into", "out/edm"),
    "sample": ("sample", "in/edm", "--count", 3000, "--shard-images", 400, "--into", "out/set"),
    "train": ("train", *RECIPE, "--set", "train.schedule.total_images=16384", "--into", "out/model"),
    "evaluate": (
        "evaluate", "in/labeller", "--threat", "linf:0.1", "--suite", "aa+mt", "--images", 64,
        "--into", "out/verdicts.npz",
    ),
    "certify": ("certify", "in/labeller", "--images", 30, "--samples", 20000, "--into", "out/certificates.npz"),
    "import": ("import", "in/set.npz", "--shard-images", 2000, "--into", "out/set"),
    "merge": ("merge", "in/one", "in/two", "--shares", 1, 2, "--into", "out/set"),
    "measure": ("measure", "in/one", "--with", "in/labeller", *RECIPE, "--into", "out/quality.npz"),
}  # fmt: skip
"""In a folder with `in`; what they write lies in `out`."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """What the commands read."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    np.savez(folder / "set.npz", image=rng.integers(0, 256, (40_000, 8, 8, 1), np.uint8), label=np.arange(40_000) % 10)
    finish("fit", "edm", *RECIPE, "--into", folder / "edm")
    finish("train", "--plain", *RECIPE, "--into", folder / "labeller")
    for number, name in enumerate(("one", "two")):
        finish("sample", folder / "edm", "--count", 400, "--seed", number, "--into", folder / name)
        finish("label", folder / name, "--with", folder / "labeller", "--labels", "condition")
    return folder


def children(process):
    """Processes that a process has started; none where the system does not list them."""
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        return []


def kill(process, way):
    """SIGKILL the whole group, the parent alone, or one of its workers; the parent where there is none."""
    workers = children(process)
    if way == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif way == "worker" and workers:
        os.kill(random.choice(workers), signal.SIGKILL)
    else:
        process.kill()


def workers_end(workers):
    """Wait for the workers of a killed parent, which notice that it is gone."""
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_storm_of_kills_changes_no_byte(name, inputs, tmp_path):
    shutil.copytree(inputs, tmp_path / "in")
    began = time.monotonic()
    finish(*COMMANDS[name], cwd=tmp_path)
    whole, taken = contents(tmp_path / "out"), time.monotonic() - began
    assert whole
    moments, kills, finished = random.Random(name), 0, 0
    shutil.rmtree(tmp_path / "out")
    share = -(-KILLS // len(COMMANDS))
    for _ in range(10 * share):
        if kills >= share:
            break
        process = subprocess.Popen(
            command(*COMMANDS[name]), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(timeout=moments.uniform(0.3, 1.0) * taken)
        except subprocess.TimeoutExpired:
            workers, way = children(process), WAYS[kills % len(WAYS)]
            kill(process, way)
            process.wait(timeout=120)  # with a worker killed the parent ends by itself, with an error
            workers_end(workers)
            kills += 1
            continue
        assert process.returncode == 0
        finished += 1
        assert contents(tmp_path / "out") == whole
        shutil.rmtree(tmp_path / "out")
    finish(*COMMANDS[name], cwd=tmp_path)
    assert contents(tmp_path / "out") == whole and kills == share
    left = [path for path in (tmp_path / "out").rglob("*") if path.suffix == ".part" or path.name == "checkpoint.pt"]
    assert not left
    print(f"{name}: {kills} kills, {finished} undisturbed ends between them")
