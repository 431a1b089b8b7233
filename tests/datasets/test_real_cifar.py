"""Real CIFAR-10 images, where they are at hand."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from conftest import REPOSITORY, real_data
from robustgen.config.recipe import DataConfig
from robustgen.datasets import load_splits
from robustgen.datasets.cifar import load

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from unpack_cifar10 import cut, read_packed

TOOL = REPOSITORY / "benchmarks" / "unpack_cifar10.py"


def unpack(folder, *options):
    train, test = real_data("cifar10_train.npz"), real_data("cifar10_test_0_7999.npz")
    line = [sys.executable, str(TOOL), str(train), str(test), "--into", str(folder), *options]
    subprocess.run(line, check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_real_images_survive_both_official_formats(tmp_path, kind):
    images, labels = read_packed(real_data("cifar10_test_0_7999.npz"), 500)
    unpack(tmp_path, "--format", kind, "--train", "1000", "--test", "500")
    train, test = load(tmp_path)
    assert len(train) == 1000 and np.array_equal(test.images, images) and np.array_equal(test.labels, labels)
    # The first test images of CIFAR-10: cat, ship, ship, airplane, frog.
    assert [test.info.classes[k] for k in test.labels[:5]] == ["cat", "ship", "ship", "airplane", "frog"]
    assert test.info.mean == pytest.approx(tuple(train.images.reshape(-1, 3).mean(0) / 255), abs=0.02)
    splits = load_splits(DataConfig(name="cifar10", path=str(tmp_path), train=200, validation=100, test=300))
    assert np.bincount(splits.train.labels).tolist() == [20] * 10 and len(splits.validation) == 100
    assert np.array_equal(splits.test.images, images[:300])


def test_pieces_of_a_packed_file_hold_its_images_in_order(tmp_path):
    whole = real_data("cifar10_test_0_7999.npz")
    pieces = [read_packed(piece) for piece in cut(whole, 3, tmp_path)]
    assert [piece.name for piece in sorted(tmp_path.iterdir())] == ["train-0.npz", "train-1.npz", "train-2.npz"]
    images, labels = read_packed(whole)
    assert np.array_equal(np.concatenate([one for one, _ in pieces]), images)
    assert np.array_equal(np.concatenate([one for _, one in pieces]), labels)


@pytest.mark.slow
def test_the_whole_training_set_is_the_official_one():
    images, labels = read_packed(real_data("cifar10_train.npz"))
    assert hashlib.sha256(images.tobytes()).hexdigest().startswith("10d94edc57bf6b03")
    assert np.bincount(labels).tolist() == [5000] * 10


@pytest.mark.slow
def test_cifar10_mini_runs_the_whole_chain(tmp_path):
    """A quarter of an hour on two cores."""
    unpack(tmp_path / "data")
    line = ["run", "cifar10-mini", "--data", f"cifar10={tmp_path / 'data'}", "--into", str(tmp_path / "r")]
    done = subprocess.run([sys.executable, "-m", "robustgen", *line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "real + edm" in done.stdout
    print(done.stdout)
