"""Logs of a training run: what they hold, and what is left of them after a crash."""

import contextlib
import json
import sys
import types

import pytest

from robustgen.runtime import trackers as tracking
from robustgen.runtime.trackers import JsonLines, Tracking, check_trackers


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_on_the_disk_at_once_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "progress.jsonl"
    first = JsonLines(path)
    for step in (1, 2, 3):
        first.log(step, {"loss": 0.1 * step})
        assert lines(path)[-1]["step"] == step
    first.close()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    again = JsonLines(path, step=2)  # a checkpoint of step 2: step 3 will be made again
    again.log(3, {"loss": 7.0})
    again.close()
    assert [(line["step"], line["loss"]) for line in lines(path)] == [(1, 0.1), (2, 0.2), (3, 7.0)]


def test_tells_once_a_second_and_always_of_validations(tmp_path, monkeypatch):
    clock = iter([0.0, 0.2, 0.4, 1.4, 1.5])
    monkeypatch.setattr(tracking.time, "monotonic", lambda: next(clock))
    told = Tracking(tmp_path)
    told.log(1, 100, {"loss": 1.0})
    told.log(2, 100, {"loss": 2.0})
    told.log(3, 100, {"loss": 3.0})
    told.log(3, 100, {"raw_clean": 0.5}, now=True)
    told.close()
    found = lines(tmp_path / "progress.jsonl")
    assert [line["step"] for line in found] == [3, 3]
    assert found[0] == {"step": 3, "seconds": 1.4, "loss": 3.0, "images_per_second": pytest.approx(300 / 1.4, abs=1e-3)}
    assert found[1] == {"step": 3, "seconds": 1.5, "raw_clean": 0.5}


class Stand:
    """Takes the place of a tracker's own library."""

    def __init__(self, *arguments, **settings):
        self.settings, self.told, self.closed = settings, [], False
        Stand.last = self

    def add_scalar(self, name, value, step):
        self.told.append((step, name, value))

    def log(self, values, step):
        self.told += [(step, name, value) for name, value in values.items()]

    def close(self):
        self.closed = True

    finish = close


def test_others_are_told_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Stand))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=Stand))
    for name in ("tensorboard", "wandb"):
        told = Tracking(tmp_path / "run", [name])
        told.log(5, 10, {"loss": 2.0}, now=True)
        told.close()
        assert (5, "loss", 2.0) in Stand.last.told and Stand.last.closed
        expected = {"purge_step": 5} if name == "tensorboard" else {"project": "robustgen", "name": "run"}
        assert expected.items() <= Stand.last.settings.items()


def test_what_is_missing_or_unknown_is_one_line(tmp_path, monkeypatch):
    for module, name in (("torch.utils.tensorboard", "tensorboard"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, module, None)
        with (
            contextlib.closing(Tracking(tmp_path, [name])) as told,
            pytest.raises(ValueError, match=f"{name} is not installed; run: pip install {name}"),
        ):
            told.log(1, 1, {}, now=True)
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None if name == "wandb" else name)
    check_trackers(["tensorboard"])
    with pytest.raises(ValueError, match="wandb is not installed"):
        check_trackers(["tensorboard", "wandb"])
    with pytest.raises(ValueError, match="unknown tracker 'mlflow'; known: tensorboard, wandb"):
        check_trackers(["mlflow"])


def test_tensorboard_reads_what_was_told_once(tmp_path):
    """Broken off after step 3, gone on from step 2: step 3 is there once, with the later value."""
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps, scale in (((1, 2, 3), 1.0), ((3, 4), 10.0)):
        told = Tracking(tmp_path, ["tensorboard"])
        for step in steps:
            told.log(step, 10, {"loss": scale * step}, now=True)
        told.close()
    (folder,) = {file.parent for file in tmp_path.rglob("events.out.tfevents.*")}
    found = EventAccumulator(str(folder)).Reload()
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]


def test_weights_and_biases_works_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb")
    for name, value in {"MODE": "offline", "SILENT": "true", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    told = Tracking(tmp_path / "run", ["wandb"])
    for step in (1, 2):
        told.log(step, 10, {"loss": 0.5 * step}, now=True)
    told.close()
    (run,) = (tmp_path / "run").rglob("run-*.wandb")
    assert b"loss" in run.read_bytes()
