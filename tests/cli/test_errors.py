"""What a command says when it fails: one line, and a traceback only for who asks for it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from robustgen.datasets.npz import write_npz
from robustgen.models.saved import load_classifier
from robustgen.models.sources import check_accepts
from robustgen.pipeline import scheduler
from robustgen.runtime.errors import StageFailed

OLD = Path(__file__).resolve().parent.parent / "fixtures" / "version-0.1" / "run"

NET = """
import torch
from torch import nn

class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        raise KeyError("no head\\nfor these")

class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return {"scores": self.layer(x.flatten(1))}

class Branches(Scores):
    def forward(self, x):
        return self.layer(x.flatten(1)) if x.sum() > 1 else -self.layer(x.flatten(1))

class Identity(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, slope):
        raise KeyError("no backward\\nfor these")

class Forward(Scores):
    def forward(self, x):
        return self.layer(Identity.apply(x).flatten(1))

class Overwrites(Scores):
    def forward(self, x):
        return self.layer(x.clone().flatten(1) if not x.requires_grad else x.sub_(0.5).flatten(1))

class Votes(Scores):
    def forward(self, x):
        return (self.layer(x.flatten(1)) > 0).long()
"""


@pytest.fixture
def colored(robustgen, tmp_path):
    """A proxy set of images in color, which a classifier of digits does not take."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    write_npz(tmp_path / "c.npz", images, np.arange(40) % 10)
    code, _, err = robustgen("import", "c.npz", "--into", "colored")
    assert code == 0, err
    shutil.copytree(OLD / "labeller", tmp_path / "labeller")
    (tmp_path / "net.py").write_text(NET)
    return robustgen


def is_one_line(err):
    return err.startswith("robustgen: ") and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    "line",
    [
        ("label", "colored", "--with", "labeller"),
        ("measure", "colored", "--with", "labeller", "--data", "npz=c.npz", "--set", "data.test=10",
         "--set", "data.train=20", "--set", "data.validation=0"),
        ("analyse", "transport", "colored", "--with", "labeller", "--data", "npz=c.npz", "--set", "data.test=10",
         "--set", "data.train=20", "--set", "data.validation=0"),
        ("train", "--into", "m", "--data", "npz=c.npz", "--set", "data.test=10", "--set", "data.train=20",
         "--set", "data.validation=0", "--set", "train.loss=hat", "--set", "train.helper.standard=labeller",
         "--set", "train.early_stopping=false", "--recipe", "digits-smoke"),
    ],
    ids=lambda line: line[0],
)  # fmt: skip
def test_a_classifier_that_does_not_take_a_proxy_sets_images_is_one_line(colored, line):
    code, _, err = colored(*line)
    assert code == 2 and is_one_line(err), err
    assert "labeller does not accept these images: for input (2, 3, 8, 8) in [0, 1] it raised: " in err


@pytest.mark.parametrize(
    "line",
    [
        ("evaluate", "--threat", "linf:0.1"),
        ("certify",),
        ("publish", "--to", "torch-export", "--into", "x.pt2"),
    ],
    ids=lambda line: line[0],
)
@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("Raises", "does not accept these images: for input (2, 1, 8, 8) in [0, 1] it raised: KeyError: 'no head"),
        ("Scores", "expected logits (N, K) as a tensor"),
    ],
)
def test_whatever_a_foreign_model_does_is_one_line(colored, line, function, said):
    code, _, err = colored(line[0], f"net.py:{function}", "--data", "digits", *line[1:])
    assert code == 2 and is_one_line(err) and said in err, err


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("Forward", "for input (2, 1, 8, 8) in [0, 1] that requires a gradient, its forward or backward pass raised: "
                    "KeyError: 'no backward"),
        ("Overwrites", "backward pass raised: a leaf Variable that requires grad is being used in an in-place"),
        ("Votes", "must return logits as floats; it returned torch.int64"),
    ],
)  # fmt: skip
def test_a_foreign_model_that_only_predicts_is_certified_but_not_attacked(colored, function, said):
    where = (f"net.py:{function}", "--data", "digits")
    code, _, err = colored("evaluate", *where, "--threat", "linf:0.1")
    assert code == 2 and is_one_line(err) and f"net.py:{function}" in err and said in err, err
    small = ("--set", "certification.selection=2", "--samples", 20, "--images", 2)
    code, _, err = colored("certify", *where, *small)
    assert code == 0, err


@pytest.mark.parametrize("function", ["Raises", "Forward"])
def test_a_foreign_network_that_fails_in_training_is_one_line(colored, function):
    own = f"train.architecture=net.py:{function}"
    settings = ("--recipe", "digits-smoke", "--set", own, "--set", "train.real_share=1")
    code, _, err = colored("train", "--into", "m", *settings)
    assert code == 2 and is_one_line(err) and f"net.py:{function}" in err and "for input (2, 1, 8, 8)" in err, err


def test_a_foreign_network_that_cannot_be_attacked_is_trained_plainly(colored):
    settings = ("--set", "labeller.schedule.total_images=64", "--set", "labeller.architecture=net.py:Forward")
    code, _, err = colored("train", "--plain", "--into", "m", "--recipe", "digits-smoke", *settings)
    assert code == 0, err
    code, _, err = colored("analyse", "step-sweep", "m", "--recipe", "digits-smoke", "--images", 8)
    assert code == 2 and is_one_line(err) and "m cannot be attacked: for input (2, 1, 8, 8)" in err, err


def test_a_program_that_torch_cannot_export_is_one_line(colored):
    code, _, err = colored("publish", "net.py:Branches", "--data", "digits", "--to", "torch-export", "--into", "x.pt2")
    assert code == 2 and is_one_line(err) and "torch cannot export net.py:Branches" in err, err
    assert len(err) < 600 and not Path("x.pt2").exists()


def test_proxy_sets_of_other_images_than_the_data_are_one_line(colored):
    code, _, err = colored("score", "colored", "--recipe", "digits-smoke")
    assert code == 2 and is_one_line(err)
    assert "colored holds images of shape (3, 8, 8), the data set digits (1, 8, 8)" in err


def test_a_full_memory_is_not_the_models_fault(monkeypatch):
    import torch

    def full(images):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        check_accepts(full, "net", torch.zeros(2, 1, 8, 8))
    assert check_accepts(load_classifier(OLD / "labeller"), "labeller", torch.zeros(2, 1, 8, 8)) is None


@pytest.fixture
def broken(robustgen, monkeypatch):
    """A command line in which the command list has a bug."""

    def crash(*arguments, **options):
        raise KeyError("x")

    monkeypatch.setattr("robustgen.cli.inventory.known", crash)
    return robustgen


BUG = re.compile(
    r"robustgen: KeyError: 'x'; this looks like a bug of robustgen: please report it, with what "
    r"`robustgen --traceback COMMAND` prints; everything finished is kept\n"
)


def test_a_bug_is_one_line_that_says_how_to_see_more(broken):
    code, _, err = broken("list", "recipes")
    assert code == 1 and BUG.fullmatch(err), err


def test_the_traceback_is_there_for_who_asks(broken, monkeypatch):
    code, _, err = broken("--traceback", "list", "recipes")
    assert (
        code == 1
        and err.startswith("Traceback (most recent call last)")
        and BUG.fullmatch(err[err.index("robustgen: ") :])
    )
    code, _, err = broken("list", "recipes")
    assert "Traceback" not in err, "the option lasts for one command"
    monkeypatch.setenv("ROBUSTGEN_TRACEBACK", "1")
    assert "Traceback" in broken("list", "recipes")[2]
    code, _, err = broken("show", "nothing")
    assert code == 2 and "Traceback" in err and "unknown recipe" in err.splitlines()[-1]
    monkeypatch.setenv("ROBUSTGEN_TRACEBACK", "0")
    assert "Traceback" not in broken("show", "nothing")[2]


@pytest.mark.parametrize("ours", [True, False])
def test_the_traceback_of_a_worker_is_shown_likewise(robustgen, monkeypatch, ours):
    def fails(*arguments):
        raise StageFailed("fit edm: KeyError: 'x'", "Traceback of the worker", ours)

    monkeypatch.setattr(scheduler, "run_all", fails)
    code, _, err = robustgen("run", "digits-smoke", "--into", "a")
    assert code == (1 if ours else 2) and is_one_line(err) and ("bug" in err) == ours
    code, _, err = robustgen("--traceback", "run", "digits-smoke", "--into", "a")
    assert code == (1 if ours else 2) and "Traceback of the worker" in err
