"""Stages whose rows processes share: the same bytes for any number of them. Threads stand in for the processes."""

import pickle
import queue
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from test_pipeline import SMOKE

from conftest import REPOSITORY
from robustgen.analysis import arc as arc_module
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
from robustgen.stages import score as score_stage
from robustgen.stages.evaluate import Evaluate
from robustgen.training import loop as loop_module

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

    monkeypatch.setattr(distributed, "_together", lambda work: work(Messages(mine)))
    monkeypatch.setattr(loop_module, "finishing_steps", nullcontext)  # signals are for the main thread
    for module in (distributed, certify_stage, measure_stage, quality_module, score_stage, arc_module):
        monkeypatch.setattr(module, "place", lambda: getattr(mine, "place", (0, 1)))
    for module in (distributed, certify_stage, measure_stage, score_stage):
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

    def all_gather_object(self, everything, thing):
        for rank in range(self.count):
            self.send_object_list([thing], rank, "cpu")
        for rank in range(self.count):
            held = [None]
            self.recv_object_list(held, rank, "cpu")
            everything[rank] = held[0]

    def all_reduce(self, total):
        everything = [None] * self.count
        self.all_gather_object(everything, total)
        total.copy_(sum(everything))


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.mark.parametrize("labels", ["predicted", pytest.param("condition", marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("images", [10, 2])
def test_certificates(processes, tmp_path, images):
    """Also of fewer images than processes."""
    settings = CertificationConfig(sigma=0.25, selection=20, samples=100, images=images, every=3)
    made = {}
    for count in (1, 3):
        path = tmp_path / f"{count}" / "edm.npz"
        stage = certify_stage.Certify(Source(str(RUN / "classifiers" / "edm-0")), SMOKE.data, settings, path, 0)
        said = processes(count, lambda stage=stage: stage("cpu", silent).split(" -> ")[0])
        assert len(set(said)) == 1 and Certificates.load(path).finished
        made[count] = files_of(path.parent)
    assert made[3] == made[1] and made[1].keys() == {"edm.npz"}


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


def test_an_evaluation_of_fewer_images_than_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "9")
    data = SMOKE.data.model_copy(update={"test": 8})
    classifier = Source(str(RUN / "classifiers" / "edm-0"))
    stage = Evaluate(classifier, data, SMOKE.threat, SMOKE.evaluation, tmp_path / "edm.npz", 0)
    with pytest.raises(ValueError, match=r"8 images are too few for 9 processes; use fewer \(--gpus-per-stage 1\)"):
        stage("cpu", silent)


@pytest.mark.parametrize("neighbors", [pytest.param("the same features", marks=pytest.mark.slow), "other features"])
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


@pytest.fixture
def built_one_at_a_time(monkeypatch):
    """Networks are drawn from torch's global generator, which threads share, unlike processes."""
    build, lock = arc_module._build, threading.Lock()

    def built(*how):
        with lock:
            return build(*how)

    monkeypatch.setattr(arc_module, "_build", built)


def test_discriminators_and_their_scores(processes, built_one_at_a_time, tmp_path):
    changes = ("radii=0.0,0.1", "total_images=32", "further_images=16", "batch_size=16", "steps=1", "test_steps=1")
    made = {}
    for count in (1, 3):
        folder = tmp_path / f"{count}"
        shutil.copytree(RUN / "proxies" / "edm", folder / "edm")
        stage = score_stage.Score(folder / "edm", SMOKE.data, SMOKE.threat, folder / "arc.npz", 0, changes)
        said = processes(count, lambda stage=stage: stage("cpu", silent))
        assert len(set(said)) == 1
        made[count] = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert made[3] == made[1] and {"arc.npz", "edm/discriminator.npy"} <= made[1].keys()


PROGRAM = """
import sys
from pathlib import Path

from robustgen.analysis import features
from robustgen.config.recipe import MeasureConfig
from robustgen.contracts import silent
from robustgen.recipes import RECIPES
from robustgen.runtime.cpu import configure_cpu
from robustgen.stages.measure import Measure
from robustgen.stages.score import Score

configure_cpu(1)
features.FEATURE_BLOCK = 128
proxy, labeller, into = map(Path, sys.argv[1:])
recipe = RECIPES["digits-smoke"]
Measure(proxy, labeller, recipe.data, MeasureConfig(judged=100), into / "edm.npz", 0)("cpu", silent)
arc = ("radii=0.0,0.1", "total_images=48", "further_images=16", "batch_size=16", "steps=2", "test_steps=2")
Score(proxy, recipe.data, recipe.threat, into / "arc.npz", 0, arc)("cpu", silent)
"""


@pytest.mark.slow
def test_qualities_and_discriminators_of_real_processes(tmp_path):
    """Also of discriminators: their weights, verdicts of held-out images, what they say of all generated ones."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    made = {}
    for count in (1, 2, 3):
        into = tmp_path / f"{count}"
        shutil.copytree(RUN / "proxies" / "edm", into / "edm")
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
        command = [sys.executable, *torchrun, str(program), str(into / "edm"), str(RUN / "labeller"), str(into)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        made[count] = {str(file.relative_to(into)): file.read_bytes() for file in into.rglob("*") if file.is_file()}
    assert {"edm.npz", "edm.neighbours.npz", "arc.npz", "edm/discriminator.npy"} <= made[1].keys()
    assert made[2] == made[3] == made[1]
