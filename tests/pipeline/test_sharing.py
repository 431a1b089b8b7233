"""Stages whose rows processes share: the same bytes for any number of them. Threads stand in for the processes."""

import pickle
import queue
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_pipeline import SMOKE

from conftest import REPOSITORY
from robustgen.analysis import features as features_module
from robustgen.analysis import quality as quality_module
from robustgen.analysis.features import Features
from robustgen.config.recipe import CertificationConfig, MeasureConfig
from robustgen.config.source import Source
from robustgen.contracts import silent
from robustgen.proxy.store import ProxySet
from robustgen.records.certificates import Certificates
from robustgen.runtime import distributed
from robustgen.stages import certify as certify_stage
from robustgen.stages import label as label_stage
from robustgen.stages import measure as measure_stage

RUN = REPOSITORY / "tests" / "fixtures" / "version-0.1" / "run"


@pytest.fixture
def processes(monkeypatch):
    """Runs a call in as many threads, each of which takes itself for a process of its rank."""
    mine = threading.local()

    def run(count, call):
        barrier = threading.Barrier(count, timeout=60)
        ways = defaultdict(queue.Queue)

        def as_process(rank):
            mine.place, mine.wait, mine.ways = (rank, count), barrier.wait, ways
            try:
                return call()
            except BaseException:
                barrier.abort()
                raise

        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(as_process, range(count)))

    monkeypatch.setattr(distributed, "_wait_for_first", lambda dist: None)
    monkeypatch.setattr(distributed, "_together", lambda work: work(Messages(mine)))
    for module in (distributed, certify_stage, measure_stage, quality_module):
        monkeypatch.setattr(module, "place", lambda: getattr(mine, "place", (0, 1)))
    for module in (distributed, certify_stage, measure_stage):
        monkeypatch.setattr(module, "wait_for_all", lambda: mine.wait())
    return run


class Messages:
    """What torch.distributed sends among processes, for threads."""

    def __init__(self, mine):
        (self.rank, self.count), self.ways = mine.place, mine.ways

    def send_object_list(self, things, to, device):
        self.ways[self.rank, to].put(pickle.dumps(things))

    def recv_object_list(self, things, source, device):
        things[:] = pickle.loads(self.ways[source, self.rank].get(timeout=60))

    def broadcast_object_list(self, things, source, device):
        if self.rank != source:
            self.recv_object_list(things, source, device)
            return
        for rank in set(range(self.count)) - {source}:
            self.send_object_list(things, rank, device)


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.mark.parametrize("labels", ["predicted", "condition"])
def test_labels(processes, tmp_path, labels):
    made = {}
    for count in (1, 2, 3, 7):
        folder = tmp_path / f"{count}"
        shutil.copytree(RUN / "proxies" / "edm", folder)
        for name in ("label", "second", "margin", "confidence"):
            (folder / f"{name}.npy").unlink()
        (folder / "labelling-0-of-5").mkdir()  # left by another number of processes
        said = processes(count, lambda at=folder: label_stage.Label(at, RUN / "labeller", labels)("cpu", silent))
        assert len(set(said)) == 1 and len(ProxySet(folder).column("label")) == len(ProxySet(folder))
        assert not list(folder.glob("labelling-0-of-[237]*"))
        made[count] = files_of(folder)
    assert made[2] == made[3] == made[7] == made[1]


def test_certificates(processes, tmp_path):
    settings = CertificationConfig(sigma=0.25, selection=20, samples=100, images=10, every=3)
    made = {}
    for count in (1, 2, 3):
        path = tmp_path / f"{count}" / "edm.npz"
        stage = certify_stage.Certify(Source(str(RUN / "classifiers" / "edm-0")), SMOKE.data, settings, path, 0)
        said = processes(count, lambda stage=stage: stage("cpu", silent).split(" -> ")[0])
        assert len(set(said)) == 1 and Certificates.load(path).finished
        made[count] = files_of(path.parent)
    assert made[2] == made[3] == made[1] and made[1].keys() == {"edm.npz"}


def test_what_one_process_began_is_not_taken_for_finished(processes, tmp_path):
    settings = CertificationConfig(sigma=0.25, selection=20, samples=100, images=4)
    path = tmp_path / "edm.npz"
    stage = certify_stage.Certify(Source(str(RUN / "classifiers" / "edm-0")), SMOKE.data, settings, path, 0)
    begun = stage.certificates("cpu", silent)
    begun.spent[2] = 0
    begun.save(path)
    with pytest.raises(ValueError, match=r"was begun by one process; let one finish it \(--gpus-per-stage 1\)"):
        processes(2, lambda: stage("cpu", silent))
    assert processes(1, lambda: stage("cpu", silent)) and Certificates.load(path).finished


@pytest.mark.parametrize("neighbors", ["the same features", "other features"])
def test_qualities(processes, tmp_path, monkeypatch, neighbors):
    """Blocks of 128 images, of which processes get different numbers, and features for neighbors that are projected."""
    monkeypatch.setattr(features_module, "FEATURE_BLOCK", 128)
    if neighbors == "other features":
        monkeypatch.setattr(features_module, "features_at_hand", with_pixels(features_module.features_at_hand))
    made = {}
    for count in (1, 2, 3):
        path = tmp_path / f"{count}" / "edm.npz"
        stage = measure_stage.Measure(
            RUN / "proxies" / "edm", RUN / "labeller", SMOKE.data, MeasureConfig(judged=100), path, 0
        )
        said = processes(count, lambda stage=stage: stage("cpu", silent))
        assert len(set(said)) == 1
        made[count] = files_of(path.parent)
    assert made[2] == made[3] == made[1] and len(made[1]) == 2


def with_pixels(find):
    """As `find`, with pixels as the features for neighbors."""

    def found(model, shape, device):
        pixels = Features("pixels", torch.nn.Flatten(), "0", shape[0] * shape[1] * shape[2])
        return find(model, shape, device)[0], pixels

    return found


PROGRAM = """
import sys
from pathlib import Path

from robustgen.analysis import features
from robustgen.config.recipe import MeasureConfig
from robustgen.contracts import silent
from robustgen.recipes import RECIPES
from robustgen.runtime.cpu import configure_cpu
from robustgen.stages.measure import Measure

configure_cpu(1)
features.FEATURE_BLOCK = 128
run, path = map(Path, sys.argv[1:])
data = RECIPES["digits-smoke"].data
Measure(run / "proxies" / "edm", run / "labeller", data, MeasureConfig(judged=100), path, 0)("cpu", silent)
"""


@pytest.mark.slow
def test_qualities_of_real_processes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    made = {}
    for count in (1, 2, 3):
        path = tmp_path / f"{count}" / "edm.npz"
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
        command = [sys.executable, *torchrun, str(program), str(RUN), str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        made[count] = files_of(path.parent)
    assert made[2] == made[3] == made[1] and len(made[1]) == 2
