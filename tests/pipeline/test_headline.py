"""The half hour of one GPU, as seconds of one CPU: the same commands, cut off and continued."""

import json
import shutil
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from conftest import REPOSITORY
from robustgen.records.history import History

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
sys.path.insert(0, str(REPOSITORY / "benchmarks" / "headline"))

import pieces
import plan
import step
from unpack_cifar10 import write_binary

FOLDER = REPOSITORY / "benchmarks" / "headline"


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Binary CIFAR-10 files whose classes differ by where they are bright."""
    folder = tmp_path_factory.mktemp("official")
    rng = np.random.default_rng(0)

    def images(count):
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 90, (count, 32, 32, 3))
        for pixel, label in zip(pixels, labels, strict=True):
            pixel[3 * label : 3 * label + 5, :, label % 3] += 150
        return pixels.astype(np.uint8), labels

    write_binary(folder, {f"data_batch_{number}": images(80) for number in range(1, 6)} | {"test_batch": images(32)})
    return folder


@pytest.fixture(scope="module")
def sent(official, tmp_path_factory):
    """The data pieces."""
    folder = tmp_path_factory.mktemp("sent")
    assert here("data", "--data", official, "--into", folder, "--keep", folder) == 0
    return folder


def here(*words):
    """A step in this process; its exit code."""
    return step.main([*map(str, words), "--scale", "tiny", "--wheels", "none"])


def cut_off_at(images):
    """A teller of progress that asks this process to stop."""

    def tell(done, total, unit, note=""):
        if done == images:
            signal.raise_signal(signal.SIGTERM)

    return tell


def test_data_travel_in_pieces_without_loss(official, sent):
    from packing import unpacked

    from robustgen.datasets.cifar import load

    train, test = load(official)
    found = [unpacked(pieces.read_piece(sent / f"data-{number}")) for number in range(2)]
    count = sum(len(images) for images, _ in found)
    assert np.array_equal(np.concatenate([images for images, _ in found]), train.images[:count])
    assert np.array_equal(np.concatenate([labels for _, labels in found]), train.labels[:count])
    assert np.array_equal(unpacked(pieces.read_piece(sent / "data-test"))[0], test.images)


def test_a_fit_cut_off_goes_on_on_this_machine_and_on_a_fresh_one(sent, tmp_path, monkeypatch):
    """To the last bit where the machine stayed; from rounded pieces nearly so."""
    words = ("fit", "--from", sent)
    assert here(*words, "--keep", tmp_path / "whole", "--into", tmp_path / "out-whole") == 0
    monkeypatch.setattr(step, "teller", lambda: cut_off_at(20 * 16))
    assert here(*words, "--keep", tmp_path / "cut", "--into", tmp_path / "out-cut") == 75
    monkeypatch.undo()
    half = pieces.read_piece(tmp_path / "out-cut" / "fit")
    assert half.about["step"] == 20 and half.about["left_out"] == []
    assert max(path.stat().st_size for path in (tmp_path / "out-cut").rglob("*") if path.is_file()) < 16 * 2**20
    assert here(*words, "--keep", tmp_path / "cut", "--into", tmp_path / "out-on") == 0
    fresh = ("--from", tmp_path / "out-cut", "--keep", tmp_path / "fresh", "--into", tmp_path / "out-fresh")
    assert here(*words, *fresh) == 0
    made = [pieces.read_piece(tmp_path / out / "generator") for out in ("out-whole", "out-on", "out-fresh")]
    assert made[0].sha256 == made[1].sha256 != made[2].sha256
    histories = [next((tmp_path / keep / "work").glob("fit-*/history.npz")) for keep in ("whole", "fresh")]
    losses = [History.load(history)["loss"] for history in histories]
    assert len(losses[0]) == len(losses[1]) == 40 and np.array_equal(losses[0][:20], losses[1][:20])
    assert losses[1][20:] == pytest.approx(losses[0][20:], rel=0.002)


def test_a_tampered_piece_is_refused_in_one_line(sent, tmp_path, capsys):
    shutil.copytree(sent, tmp_path / "sent")
    path = tmp_path / "sent" / "data-1" / "part-0.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert here("fit", "--from", tmp_path / "sent", "--keep", tmp_path / "keep") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "data-1" in said and "differs from its manifest" in said
    manifest = tmp_path / "sent" / "data-1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"mosaic": 50', '"mosaic": 40'))
    assert here("check", "--from", tmp_path / "sent", "--keep", tmp_path / "keep") == 1
    assert "was altered" in capsys.readouterr().err
    with pytest.raises(ValueError, match="was altered"):
        pieces.collect([tmp_path / "sent"], tmp_path / "state")


def test_training_waits_for_all_its_images(sent, tmp_path, capsys):
    shutil.copytree(sent / "data-0", tmp_path / "sent" / "data-0")
    assert here("fit", "--from", tmp_path / "sent", "--keep", tmp_path / "keep") == 1
    assert "data-1, data-test never came to this machine" in capsys.readouterr().err


def test_what_does_not_fit_is_left_out_in_order_and_made_up_for():
    from stages import FIT_RULES

    def state(seed):
        return {"weight": torch.full((64, 64), float(seed)), "bias": torch.full((64,), float(seed))}

    moments = {0: {"step": torch.tensor(4001.0), "exp_avg": torch.ones(64, 64), "exp_avg_sq": torch.ones(64, 64)}}
    content = {
        "place": {"step": 7},
        "objects": {"model": state(1), "average": state(2), "optimiser network": {"state": moments, "groups": []}},
    }
    for room, left in ((2**20 + 2**16, 0), (2**20 + 27_000, 1), (2**20 + 18_000, 2), (2**20 + 10_000, 3)):
        said, tensors, told = pieces.take_apart(content, FIT_RULES, room)
        again = pieces.put_together(json.loads(json.dumps(said)), tensors)
        assert len(told) == left
        objects = again["objects"]
        kept = objects["optimiser network"]["state"][0]
        assert objects["average"]["weight"].eq(2).all() and objects["model"]["bias"].eq(1).all()
        assert objects["model"]["weight"].eq(1 if left < 2 else 2).all()
        assert kept["exp_avg"].eq(1 if left < 1 else 0).all() and kept["exp_avg_sq"].eq(1 if left < 3 else 0).all()
        assert kept["step"] == 4001 and again["place"] == {"step": 7}
        assert kept["exp_avg"].dtype == objects["model"]["weight"].dtype == torch.float32


def test_packages_may_come_as_wheels(tmp_path, monkeypatch):
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "came_along-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("came_along.py", "here = True")
    monkeypatch.setattr(step.tempfile, "gettempdir", lambda: str(tmp_path / "machine"))
    monkeypatch.setattr(step, "NEEDED", ("json", "came_along", "never_came"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert step.missing_packages() == ["came_along", "never_came"]
    step.unpack_wheels(tmp_path / "wheels")
    assert step.missing_packages() == ["never_came"]


def test_a_measurement_chooses_what_fits_the_time():
    def row(what, network, how, rate, **more):
        return {"what": what, "network": network, "how": how, "images/s": rate, **more}

    small, large = (plan.network_name(*network) for network in plan.FULL.networks)
    rows = [
        row("trades-10", "preact-resnet-18", "channels-last", 5_000.0, batch=1024),
        row("trades-10", "preact-resnet-18", "compiled", 8_000.0, batch=1024),
        row("trades-10", "preact-resnet-18", "graph", 9_999.0, batch=1024),
        row("trades-10", "wrn-16-8", "compiled", 3_000.0, batch=1024),
        row("edm training", small, "channels-last", 14_000.0, batch=1024),
        row("edm training", large, "channels-last", 7_000.0, batch=1024),
        row("edm sampling", small, "channels-last", 4_000.0, evaluations=10),
    ]
    choice = plan.choose(plan.FULL, rows)
    assert choice["architecture"] == "preact-resnet-18" and choice["train_images"] == 7_200 * plan.ARM_SECONDS
    assert choice["compile_training"] and not choice["compile_generator"] and choice["channels"] == 64
    assert choice["generated"] % plan.FULL.sampling.shard_images == 0
    chosen = plan.FULL.chosen(choice)
    assert chosen.trade.compile and not plan.FULL.trade.compile and not chosen.compiled
    assert chosen.trade.schedule.total_images % 1024 == 0
    rows[3]["images/s"] = 1.2 * plan.WIDE_FROM / plan.ARM_SECONDS
    assert plan.choose(plan.FULL, rows)["architecture"] == "wrn-16-8"
    assert plan.choose(plan.FULL, []) == {} and plan.FULL.chosen({}) == plan.FULL
    with pytest.raises(ValueError, match="unknown choice 'beta'"):
        plan.FULL.chosen({"beta": 6})


@pytest.mark.slow
def test_the_whole_run_cut_off_again_and_again(official, tmp_path):
    """Each command a process of its own on a machine that is fresh each time; what comes back is collected."""
    state = tmp_path / "state"
    codes = []

    def command(name, *words, minutes=8.5):
        out, number = tmp_path / f"out-{len(codes)}", len(codes)
        told = ["--from", state, "--into", out, "--keep", tmp_path / f"machine-{number}"]
        line = [sys.executable, FOLDER / "step.py", name, *words, *told, "--scale", "tiny", "--minutes", minutes]
        line = [str(word) for word in line]
        done = subprocess.run(line, capture_output=True, text=True)
        codes.append(done.returncode)
        assert done.returncode in (0, 75) and "Traceback" not in done.stderr, done.stdout + done.stderr
        back = [path for path in out.rglob("*") if path.is_file()]
        assert len(back) <= 8 and sum(path.stat().st_size for path in back) < 64 * 2**20
        assert all(path.stat().st_size < 16 * 2**20 and len(path.relative_to(out).parts) <= 3 for path in back)
        pieces.collect([out], state)
        return done.returncode == 0

    command("data", "--data", official)
    command("measure")
    command("choose", "--set", "fit_images=640", "--set", "train_images=384", "--set", "generated=64")
    assert not command("fit", minutes=0.01)
    for words in (("fit",), ("train", "--arm", "real"), ("train", "--arm", "generated")):
        minutes = 0.06
        while not command(*words, minutes=minutes):  # a fresh machine each time: pieces are all that it knows
            minutes *= 1.5
            assert len(codes) < 20
    command("evaluate")
    command("report")
    found = json.loads((tmp_path / f"out-{len(codes) - 1}" / "headline-tiny.json").read_text())
    assert found["results"]["real"]["robust"][1] == found["gain"]["images"] == 32
    assert found["classifiers"]["generated"]["images"] == found["classifiers"]["real"]["images"] == 384
    assert sum(found["proxies"]["labels"]) == 64 and max(found["proxies"]["labels"]) == 7
    card = (tmp_path / f"out-{len(codes) - 1}" / "weights.md").read_text()
    for name in ("generator", "classifier-real", "classifier-generated"):
        assert pieces.read_piece(state / name).parts[0]["sha256"] in card
