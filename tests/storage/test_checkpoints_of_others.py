"""Checkpoints that hold other objects beside tensors: the tensors are taken, and nothing in the file is run."""

import argparse
import collections
import pickle
import sys

import numpy as np
import pytest
import torch
from torch import nn

from robustgen.storage.files import Note
from robustgen.storage.weights import load_weights, read_weights


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))


def trained():
    model = network()
    model(torch.rand(4, 1, 8, 8)).sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_beside_other_objects(tmp_path, legacy):
    model, optimizer = trained()
    path = tmp_path / "checkpoint.pt"
    content = {
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu")),
        "best": np.float64(0.5),
        "counts": collections.Counter("aab"),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "state_dict": model.state_dict(),
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = read_weights(path)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    load_weights(network(), path)


def test_whole_pickled_networks_give_their_tensors(tmp_path):
    model, _ = trained()
    for content in (model, {"model": nn.DataParallel(model), "epoch": 1}):
        torch.save(content, tmp_path / "whole.pt")
        loaded = load_weights(network(), tmp_path / "whole.pt")
        assert all(
            torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
        )


def test_averaged_weights_are_found_and_a_choice_is_said(tmp_path):
    model, other = network().state_dict(), trained()[0].state_dict()
    torch.save({"model_ema": other}, tmp_path / "one.pt")
    assert torch.equal(read_weights(tmp_path / "one.pt")["3.bias"], other["3.bias"])
    torch.save({"model": model, "model_ema": other}, tmp_path / "two.pt")
    with pytest.warns(Note, match="took the weights under 'model'; it also has model_ema"):
        assert torch.equal(read_weights(tmp_path / "two.pt")["3.bias"], model["3.bias"])
    assert torch.equal(read_weights(tmp_path / "two.pt#model_ema")["3.bias"], other["3.bias"])
    with pytest.raises(ValueError, match="no weights under 'best'; it has them under: model, model_ema"):
        read_weights(tmp_path / "two.pt#best")


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_checkpoint_is_run(tmp_path, legacy):
    """Calls of functions and of classes, by the file's own pickle and through torch's rebuilding of subclasses."""
    done = tmp_path / "done"
    content = {
        "state_dict": network().state_dict(),
        "first": Hostile(exec, f"open({str(done)!r}, 'w')"),
        "second": Hostile(torch._tensor._rebuild_from_type_v2, Hostile(eval, "1").call[0], str, ("1 + 1",), {}),
        "third": Hostile(getattr, "text", "upper"),
    }
    torch.save(content, tmp_path / "hostile.pt", _use_new_zipfile_serialization=not legacy)
    events = []
    watching = True

    def hook(event, arguments):
        if watching and (event in ("exec", "compile", "os.system", "subprocess.Popen") or event == "import"):
            events.append((event, arguments))

    sys.addaudithook(hook)
    found = read_weights(tmp_path / "hostile.pt")
    watching = False
    assert found.keys() == network().state_dict().keys() and not done.exists()
    assert not [event for event in events if event[0] != "import"]


def test_what_holds_no_tensors_is_one_line(tmp_path):
    for content, message in (
        ({"epoch": 3, "args": argparse.Namespace()}, "holds no tensors by name; it has: epoch, args"),
        ([1, 2], "holds list, expected tensors by name"),
        (argparse.Namespace(x=1), "holds argparse.Namespace, expected tensors by name"),
    ):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=message):
            read_weights(tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"a": argparse.Namespace()}))
    with pytest.raises(ValueError, match=r"x\.pt"):
        read_weights(tmp_path / "x.pt")
