"""Texts of other libraries, and long lists, as they reach the user."""

import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image

from robustgen.config.recipe import DataConfig
from robustgen.datasets import load_splits
from robustgen.datasets.npz import write_npz
from robustgen.runtime.errors import describe_error
from robustgen.storage.checkpoints import load_checkpoint
from robustgen.storage.files import differences, first_line
from robustgen.storage.weights import read_weights
from robustgen.units import show_class, show_names


class Thing:
    """What a file of weights must not hold."""


def saved(content):
    def write(path):
        torch.save(content, path)

    return write


def cut(path):
    torch.save({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:600])


def damaged(path):
    torch.save({"a": torch.zeros(100)}, path)
    content = path.read_bytes()
    path.write_bytes(content[:300] + bytes(50) + content[350:])


CASES = {
    "object": (saved(Thing()), r"it holds code or objects, [\w.]*Thing; save model\.state_dict\(\) instead"),
    "model": (saved(torch.nn.Linear(2, 2)), r"it holds code or objects, torch\.nn\.modules\.linear\.Linear; save"),
    "garbage": (lambda path: path.write_bytes(b"garbage" * 100), "torch.save did not write it"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "cut": (cut, "it is cut off"),
    "damaged": (damaged, "its content is damaged"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Thing())), "it is a pickle of other objects, or damaged"),
    "page": (lambda path: path.write_text("<!DOCTYPE html><p>not found"), "it is a web page"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "a pointer of Git LFS"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("read", [read_weights, load_checkpoint])
def test_torchs_advice_to_run_the_code_in_a_file_is_not_passed_on(tmp_path, name, read):
    write, reason = CASES[name]
    path = tmp_path / "w.pt"
    write(path)
    if read is read_weights and name in ("object", "model"):  # other objects are left out; networks give their tensors
        if name == "model":
            assert read(path).keys() == {"weight", "bias"}
            return
        reason = r"holds test_error_texts\.Thing, expected tensors by name"
    with pytest.raises(ValueError, match=reason) as caught:
        read(path)
    text = str(caught.value)
    assert str(path) in text and len(text) < 300 and text.isprintable(), text
    assert not re.search(r"weights_only|PyTorch|torch\.load|trust|miniz", text), text


def test_codes_for_terminals_are_taken_out():
    error = ValueError("\x1b[1mbold\x1b[0m and \x1b[38;5;9mred\x1b[0m\nmore")
    assert first_line(error) == "bold and red" and describe_error(error) == "bold and red more"
    assert first_line(ValueError("\n\n")) == "ValueError"


def test_many_names_are_five_and_a_count():
    names = [f"n{k}" for k in range(200)]
    assert show_names(names) == "n0, n1, n2, n3, n4 and 195 more" and show_names(names[:5]) == "n0, n1, n2, n3, n4"
    assert show_names([]) == "" and show_class("10") == "class 10" and show_class("class 10") == "class 10"
    (line,) = differences({"classes": names}, {"classes": names[::-1]})
    assert line == (
        'classes: stored ["n0", "n1", "n2", "n3", "n4", ... 200 in all], '
        'requested ["n199", "n198", "n197", "n196", "n195", ... 200 in all]'
    )


def test_classes_without_images_are_a_few_names(tmp_path):
    rng = np.random.default_rng(0)
    write_npz(tmp_path / "a.npz", rng.integers(0, 255, (400, 8, 8, 1), dtype=np.uint8), np.arange(400) % 200)
    with pytest.raises(ValueError, match=r"no training images of 190 classes \(\S+, \S+, \S+, \S+, \S+ and 185 more\)"):
        load_splits(DataConfig(name="npz", path=str(tmp_path / "a.npz"), train=10, validation=0, test=10))
    with pytest.raises(ValueError, match=r"no training images of class 199; set data\.train higher"):
        load_splits(DataConfig(name="npz", path=str(tmp_path / "a.npz"), train=199, validation=0, test=10))


def test_folders_with_other_classes_name_what_differs(tmp_path):
    for part, first in (("train", 0), ("test", 1)):
        names = [f"class {k}" for k in range(first, first + 30)]
        for name in names:
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / part / name / "a.png")
    with pytest.raises(ValueError, match="only the first has class 0, only the second class 30") as caught:
        load_splits(DataConfig(name="folder", path=str(tmp_path), train=30, validation=0))
    assert len(str(caught.value)) < 400
    (tmp_path / "test" / "class 30").rename(tmp_path / "test" / "class 0")
    with pytest.raises(ValueError, match=r"no training images of class (class )?\d+") as caught:
        load_splits(DataConfig(name="folder", path=str(tmp_path), train=29, validation=1))
    assert "class class" not in str(caught.value)
