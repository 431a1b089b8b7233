"""Shared by all tests: threads, real data where it is at hand, classifiers solved on paper."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from torch import Tensor

from robustgen import cli
from robustgen.images import DatasetInfo, ImageSet
from robustgen.storage.files import Note
from robustgen.testing import Halfspace

torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_DATA = Path(os.environ.get("ROBUSTGEN_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: archives hold the time, and every process must collect the same names."""
    return argname if isinstance(val, bytes) else None


def real_data(name: str) -> Path:
    """A file of the real test data, or a skip that says what is missing."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"needs {name}: set ROBUSTGEN_TEST_DATA to the folder that holds it")
    return path


def quietly(call, *arguments):
    """The result of a call, and its notes; it must give no other warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call(*arguments)
    assert all(issubclass(warning.category, Note) and "\n" not in str(warning.message) for warning in caught)
    return result, [str(warning.message) for warning in caught]


@pytest.fixture(params=["linf", "l2", "l1"])
def halfspace_setting(request: pytest.FixtureRequest) -> tuple[Halfspace, Tensor, Tensor, str]:
    """(model, images around the centre of the box, the model's own labels, norm)"""
    model = Halfspace()
    generator = torch.Generator().manual_seed(1)
    images = 0.5 + 0.1 * torch.randn(64, 3, 2, 2, generator=generator).clamp(-2, 2)
    return model, images, model(images).argmax(1), request.param


@pytest.fixture
def tiny_info() -> DatasetInfo:
    return DatasetInfo("tiny", ("a", "b", "c"), (1, 8, 8), (0.3,), (0.4,))


@pytest.fixture
def tiny_images(tiny_info: DatasetInfo) -> ImageSet:
    """30 images of 8x8 in three classes that differ by which third of the rows is bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    images = rng.integers(0, 60, (30, 8, 8, 1))
    for i, label in enumerate(labels):
        images[i, 2 + 2 * label : 4 + 2 * label] += 150
    return ImageSet(images.astype(np.uint8), labels.astype(np.int64), tiny_info)


@pytest.fixture
def robustgen(monkeypatch, capsys, tmp_path):
    """Runs the command line in this process, in an empty folder: (exit code, output, error output)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["robustgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run
