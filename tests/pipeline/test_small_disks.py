"""A run on a disk that is too small: one line, nothing half-written, and the same bytes once there is space."""

import re
import shutil
import subprocess

import pytest
from pipeline.test_pipeline import contents

from robustgen.pipeline.graph import stages
from robustgen.pipeline.scheduler import run_all
from robustgen.recipes import RECIPES
from robustgen.storage.run_folder import RunDir

PAGE = 4096
SIZES = (8, 60, 300, 1200, 1500, 1800, 2100, 2500, 2800, 3400)
"""In kB; the finished run has 2,900, and a checkpoint 1,300 while it is written."""


class Disk:
    """A file system in memory, of a size that can be changed."""

    def __init__(self, place):
        self.place = place
        place.mkdir()
        if shutil.which("mount") is None:
            pytest.skip("needs the command mount")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", self.place], check=True)

    @property
    def used(self):
        return shutil.disk_usage(self.place).used


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    yield disk
    subprocess.run(["umount", disk.place], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run leaves."""
    run, recipe = RunDir(tmp_path_factory.mktemp("run") / "whole"), RECIPES["digits-smoke"]
    run.ensure_recipe(recipe.to_json())
    run_all(recipe, run, stages(recipe, run), "cpu", 1)
    return contents(run.root)


def is_one_line_about_the_disk(err):
    found = re.fullmatch(
        r"robustgen: (?:[\w -]+: )?cannot write disk/r/\S+, which takes [\d,]+ bytes: No space left on device "
        r"\([\d,]+ bytes are free\); free some space and repeat the command, nothing is lost\n",
        err,
    )
    return found is not None


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_a_run_on_a_disk_of_any_size_goes_on_when_there_is_space(whole, disk, robustgen, size, jobs):
    if jobs == 2 and size not in SIZES[1::3]:
        pytest.skip("a few sizes are enough for workers")
    disk.resize(f"{size}k")
    code, _, err = robustgen("run", "digits-smoke", "--into", "disk/r", "--jobs", jobs)
    if size < 2800:  # what is larger may or may not suffice: checkpoints are written by the clock
        assert code == 2
    if code:
        assert code == 2 and is_one_line_about_the_disk(err), err
        assert not list(disk.place.rglob("*.part"))
    disk.resize("64m")
    code, _, err = robustgen("run", "digits-smoke", "--into", "disk/r", "--jobs", 1)
    assert code == 0, err
    assert contents(disk.place / "r") == whole


@pytest.mark.slow
def test_every_stage_may_be_the_one_that_fails(whole, disk, robustgen):
    run, recipe = RunDir(disk.place / "r"), RECIPES["digits-smoke"]
    run.ensure_recipe(recipe.to_json())
    plan = stages(recipe, run)
    for number, stage in enumerate(plan):
        disk.resize(-(-disk.used // PAGE) * PAGE + 2 * PAGE)  # room for the recipe's own files, which are replaced
        before = contents(run.root)
        code, _, err = robustgen("run", "digits-smoke", "--into", "disk/r", "--jobs", 1)
        assert code == 2 and is_one_line_about_the_disk(err), (stage.name, err)
        assert not stage.finished and not list(disk.place.rglob("*.part")), stage.name
        assert before.items() <= contents(run.root).items() or stage.name.startswith(("label", "keep"))
        disk.resize("64m")
        run_all(recipe, run, plan[: number + 1], "cpu", 1)
        assert stage.finished
    assert contents(run.root) == whole
