"""Verdicts say which image of the source each of them is about."""

from pathlib import Path

import numpy as np
import pytest
import torch

from robustgen.config.recipe import DataConfig
from robustgen.datasets import load_splits, load_test
from robustgen.datasets.npz import write_npz
from robustgen.evaluation.cascade import evaluate
from robustgen.images import DatasetInfo, ImageSet
from robustgen.models.saved import load_classifier
from robustgen.records.verdicts import Verdicts
from robustgen.stages.evaluate import merge_parts
from robustgen.storage.arrays import load_arrays
from robustgen.threat import ThreatModel

OLD = Path(__file__).resolve().parent.parent / "fixtures" / "version-0.1" / "run"
NET = "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"


def images_of(count):
    """Images whose first pixel is their row number."""
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images, np.arange(count) % 10


def test_rows_follow_every_choice():
    images, labels = images_of(50)
    whole = ImageSet(images, labels, DatasetInfo("x", tuple("0123456789"), (1, 8, 8), (0.5,), (0.5,)))
    assert whole.rows is None and whole.source_rows.tolist() == list(range(50))
    some = whole.take(np.array([9, 3, 27])).take(np.array([2, 0]))
    assert some.source_rows.tolist() == [27, 9] == some.images[:, 0, 0, 0].tolist()


@pytest.fixture
def folder(robustgen, tmp_path):
    images, labels = images_of(60)
    write_npz(tmp_path / "mine.npz", images, labels)
    (tmp_path / "net.py").write_text(NET)
    return robustgen


def evaluated(robustgen, model, *words, into="v.npz"):
    code, _, err = robustgen("evaluate", model, "--threat", "linf:0.1", "--suite", "quick", "--into", into, *words)
    assert code == 0, err
    return Verdicts.load(Path(into))


def test_a_file_of_test_images_gives_its_first_and_their_rows(folder):
    """The file has no test set beside it: the whole of it is for testing, and nothing is drawn."""
    labels = images_of(60)[1]
    for words in (("--images", 12), ("--set", "data.test=12")):
        verdicts = evaluated(folder, "net.py:make", "--data", "npz=mine.npz", *words, into=f"{words[1]}.npz")
        assert verdicts.rows.tolist() == list(range(12)) and np.array_equal(verdicts.labels, labels[:12])
    code, _, err = folder("evaluate", "net.py:make", "--data", "npz=mine.npz", "--threat", "linf:0.1", "--images", 61)
    assert code == 2 and "data.test asks for 61 images, npz has 60 to test on" in err


def test_what_a_classifier_was_trained_on_is_not_taken_for_test_images(folder, tmp_path):
    """Naming the very file of its training by --data still gives the images that were set aside."""
    data = DataConfig(name="npz", path="mine.npz", train=20, validation=10, test=15)
    code, _, err = folder(
        "train", "--plain", "--into", "m", "--data", "npz=mine.npz", "--recipe", "digits-smoke",
        *(word for name in ("train=20", "validation=10", "test=15") for word in ("--set", f"data.{name}")),
        "--set", "labeller.schedule.total_images=64",
    )  # fmt: skip
    assert code == 0, err
    aside = load_splits(data).test.source_rows
    assert evaluated(folder, "m").rows.tolist() == aside.tolist()
    assert (
        evaluated(folder, "m", "--data", "npz=mine.npz", "--images", 15, into="w.npz").rows.tolist() == aside.tolist()
    )


def test_drawn_images_keep_the_rows_of_their_source(folder):
    data = DataConfig(name="digits", test=30, validation=10)
    test = load_test(data)
    assert sorted(test.source_rows.tolist()) != list(range(30))
    everything = load_test(DataConfig(name="digits"))
    assert np.array_equal(everything.images[test.source_rows], test.images)
    assert np.array_equal(load_splits(data).test.source_rows, test.source_rows)
    verdicts = evaluated(folder, "net.py:make", "--data", "digits", "--images", 30)
    assert np.array_equal(verdicts.rows, test.source_rows)


def test_rows_lie_in_the_file_only_where_they_say_something(tmp_path):
    images, labels = images_of(12)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    model, targets = load_classifier(OLD / "labeller"), torch.from_numpy(labels)
    threat = ThreatModel("linf", 0.1)
    evaluate(model, pixels, targets, threat, "quick", path=tmp_path / "plain.npz")
    evaluate(model, pixels, targets, threat, "quick", path=tmp_path / "same.npz", rows=np.arange(12))
    assert (tmp_path / "plain.npz").read_bytes() == (tmp_path / "same.npz").read_bytes()
    assert "rows" not in load_arrays(tmp_path / "plain.npz")
    rows = np.arange(12)[::-1]
    verdicts = evaluate(model, pixels, targets, threat, "quick", path=tmp_path / "plain.npz", rows=rows)
    assert np.array_equal(verdicts.rows, rows) and np.array_equal(Verdicts.load(tmp_path / "plain.npz").rows, rows)
    with pytest.raises(ValueError, match="one row number for each of 12 images, got 3"):
        evaluate(model, pixels, targets, threat, "quick", rows=np.arange(3))


def test_parts_of_processes_come_together_in_order(tmp_path):
    images, labels = images_of(13)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    model, rows = load_classifier(OLD / "labeller"), np.arange(100, 113)
    parts = []
    for rank in range(2):
        parts.append(tmp_path / f"{rank}.npz")
        some = slice(rank, None, 2)
        evaluate(
            model, pixels[some], torch.from_numpy(labels[some]), ThreatModel("linf", 0.1), "quick",
            path=parts[-1], rows=rows[some],
        )  # fmt: skip
    merge_parts(tmp_path / "whole.npz", parts)
    assert np.array_equal(Verdicts.load(tmp_path / "whole.npz").rows, rows)


def test_verdicts_of_version_0_1_open():
    verdicts = Verdicts.load(OLD / "evaluation" / "edm.quick.npz")
    assert verdicts.rows.tolist() == list(range(len(verdicts)))
