"""Stages whose rows processes share: the same bytes for any number of them. Threads stand in for the processes."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_pipeline import SMOKE

from conftest import REPOSITORY
from robustgen.config.recipe import CertificationConfig
from robustgen.config.source import Source
from robustgen.contracts import silent
from robustgen.proxy.store import ProxySet
from robustgen.records.certificates import Certificates
from robustgen.runtime import distributed
from robustgen.stages import certify as certify_stage
from robustgen.stages import label as label_stage

RUN = REPOSITORY / "tests" / "fixtures" / "version-0.1" / "run"


@pytest.fixture
def processes(monkeypatch):
    """Runs a call in as many threads, each of which takes itself for a process of its rank."""
    mine = threading.local()

    def run(count, call):
        barrier = threading.Barrier(count, timeout=60)

        def as_process(rank):
            mine.place, mine.wait = (rank, count), barrier.wait
            try:
                return call()
            except BaseException:
                barrier.abort()
                raise

        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(as_process, range(count)))

    for module in (distributed, certify_stage):
        monkeypatch.setattr(module, "place", lambda: getattr(mine, "place", (0, 1)))
        monkeypatch.setattr(module, "wait_for_all", lambda: mine.wait())
    return run


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
