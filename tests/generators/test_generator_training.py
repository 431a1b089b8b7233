"""The one driver of all generators, on a model small enough to follow by hand."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robustgen.config.generator_base import TrainedGeneratorConfig
from robustgen.generators.contracts import LossTerm, Optimization, TrainingSpec
from robustgen.randomness import rng_for
from robustgen.training.ema import EMA, half_life_decay
from robustgen.training.generator import train_generator
from robustgen.training.loop import Diverged, Holder

FIT = TrainedGeneratorConfig(kind="test", total_images=40 * 10, batch_size=10, peak_lr=0.1, previews=0)


class Mean(nn.Module):
    """Learns the mean image by plain descent on |images - mean|^2 / 2; a rival learns the negative of it."""

    shape, classes = (1, 8, 8), 3

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, 1, 8, 8))
        self.register_buffer("seen", torch.zeros(1))
        self.rival = nn.Linear(1, 1, bias=False)
        self.counts = Holder({"main": 0, "rival": 0, "lazy": 0, "images": 0})
        self.batches = []
        self.changed = lambda training_spec: training_spec

    def count(self, name, batch):
        self.counts.value[name] += 1
        self.batches.append(batch.sum().item())

    def main(self, images, labels, rng, done):
        self.count("main", images)
        self.seen += 1
        return ((images - self.mean) ** 2).sum() / (2 * len(images)) + 0 * self.rival.weight.sum()

    def other(self, images, labels, rng, done):
        self.count("rival", images)
        return (self.rival.weight + self.mean.sum() + rng.uniform((1,))).square().sum()

    def lazy(self, images, labels, rng, done):
        self.count("lazy", images)
        return self.rival.weight.sum() * 0

    def training_spec(self, fit, rng):
        def after(images):
            self.counts.value["images"] += images

        return self.changed(
            TrainingSpec(
                optimizations={
                    "main": Optimization(torch.optim.SGD([self.mean], lr=fit.peak_lr)),
                    "rival": Optimization(torch.optim.SGD(self.rival.parameters(), lr=0.01)),
                },
                loss_terms={"loss": LossTerm("main", self.main), "other": LossTerm("rival", self.other, repeats=2),
                       "lazy": LossTerm("rival", self.lazy, every=4)},
                extra_state={"counts": self.counts},
                after_step=after,
            )
        )  # fmt: skip

    def sample(self, labels, rng):
        return self.mean.expand(len(labels), -1, -1, -1).clamp(0, 1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Mean()


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_moves_are_made_as_often_as_told_on_fresh_images(model, tiny_images, tmp_path):
    train_generator(model, tiny_images, FIT, tmp_path, seed=0)
    assert model.counts.value == {"main": 40, "rival": 80, "lazy": 10, "images": 400}
    assert len(set(model.batches[:9])) == 9


def test_a_move_changes_its_own_learner_alone(model, tiny_images, tmp_path):
    model.changed = lambda training_spec: replace(training_spec, loss_terms={"loss": training_spec.loss_terms["loss"]})
    before = state(model)
    train_generator(model, tiny_images, FIT, tmp_path, seed=0)
    after = state(model)
    assert torch.equal(before["rival.weight"], after["rival.weight"])
    mean = torch.from_numpy(tiny_images.images / 255).permute(0, 3, 1, 2).mean(0).float()
    assert (after["mean"][0] - mean).abs().max() < 0.15  # of 40 steps of 0.1 on batches of 10


def test_broken_off_and_taken_up_it_ends_with_the_same_bytes(tiny_images, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def at_once(self):
        return True

    monkeypatch.setattr("robustgen.storage.files.SaveInterval.due", at_once)
    finished = []
    for stop in (None, 7, 23):
        torch.manual_seed(0)
        model, folder = Mean(), tmp_path / str(stop)

        def stopping(done, total, unit, note="", stop=stop):
            if stop and done == stop * FIT.batch_size:
                raise Stop

        if stop:
            with pytest.raises(Stop):
                train_generator(model, tiny_images, FIT, folder, seed=0, progress=stopping)
            model = Mean()
        average = train_generator(model, tiny_images, FIT, folder, seed=0)
        finished.append((state(average), model.counts.value, (folder / "history.npz").read_bytes()))
    for weights, counts, history in finished[1:]:
        assert all(torch.equal(weights[name], finished[0][0][name]) for name in weights)
        assert counts == finished[0][1] and history == finished[0][2]


def with_main(training_spec, loss, **limits):
    optimization = replace(training_spec.optimizations["main"], **limits)
    return replace(training_spec, optimizations={"main": optimization}, loss_terms={"loss": LossTerm("main", loss)})


@pytest.mark.parametrize("poison", [float("nan"), 1e6])
def test_steps_with_wild_gradients_are_left_out_and_counted(model, tiny_images, tmp_path, poison):
    def loss(images, labels, rng, done):
        wild = poison if 0.5 <= done < 0.6 else 1.0
        return model.mean.sum() * wild

    model.changed = lambda training_spec: with_main(training_spec, loss, skip_above=400)
    train_generator(model, tiny_images, FIT, tmp_path, seed=0)
    assert np.load(tmp_path / "history.npz")["skipped"].tolist() == [0] * 20 + [1, 2, 3] + [4] * 17
    torch.testing.assert_close(model.mean.detach(), torch.full((1, 1, 8, 8), -36 * 0.1))


def test_a_loss_that_stays_no_number_stops_the_training(model, tiny_images, tmp_path):
    model.changed = lambda training_spec: with_main(
        training_spec, lambda *_: model.mean.sum() * float("nan"), skip_above=400
    )
    long = FIT.model_copy(update={"total_images": 200 * 10})
    with pytest.raises(Diverged, match="nan at step 99 of 200"):
        train_generator(model, tiny_images, long, tmp_path, seed=0)
    model.changed = lambda training_spec: with_main(training_spec, lambda *_: model.mean.sum() * float("nan"))
    with pytest.raises(Diverged, match="nan at step 0 of 200"):
        train_generator(model, tiny_images, long, tmp_path / "at once", seed=0)


def test_gradients_are_clipped_and_mended(model, tiny_images, tmp_path):
    one = FIT.model_copy(update={"total_images": 10})
    model.changed = lambda training_spec: with_main(training_spec, lambda *_: model.mean.sum() * 100, clip=1.0)
    train_generator(model, tiny_images, one, tmp_path / "a", seed=0)
    assert model.mean.norm().item() == pytest.approx(0.1)

    def infinite(images, labels, rng, done):
        return model.mean[0, 0, 0, 0].add(-model.mean[0, 0, 0, 0].detach()).sqrt()  # slope: infinite

    model.mean.data.zero_()
    model.changed = lambda training_spec: with_main(training_spec, infinite)
    train_generator(model, tiny_images, one, tmp_path / "b", seed=0)
    assert model.mean[0, 0, 0, 0].item() == pytest.approx(-0.1 * 1e5)


def test_the_average_has_the_told_half_life(model, tiny_images, tmp_path):
    """A gradient of -1 at rate 0.1 puts the weights on a line; their average lags by decay / (1 - decay) steps."""
    model.changed = lambda training_spec: with_main(training_spec, lambda *_: -model.mean.sum())
    settings = FIT.model_copy(update={"ema_half_life_images": 20.0, "ema_half_life_share": None, "total_images": 4000})
    average = train_generator(model, tiny_images, settings, tmp_path, seed=0)
    decay = half_life_decay(20.0, 10)
    assert decay == pytest.approx(0.5**0.5)
    lag = decay / (1 - decay) * 0.1
    assert (model.mean - average.mean).mean().item() == pytest.approx(lag, rel=1e-3)


def test_running_statistics_are_averaged_where_told():
    norm = nn.BatchNorm1d(1)
    average = EMA(norm, buffers=True)
    norm.running_mean.fill_(1.0)
    norm.num_batches_tracked.fill_(7)
    average.update(norm, 0.75)
    assert average.model.running_mean.item() == 0.25 and average.model.num_batches_tracked.item() == 7


def test_the_finished_average_can_be_finished_by_the_member(model, tiny_images, tmp_path):
    def finish(average, rng):
        average.mean.data.fill_(0.5)

    model.changed = lambda training_spec: replace(training_spec, finish=finish)
    assert (train_generator(model, tiny_images, FIT, tmp_path, seed=0).mean == 0.5).all()


def test_bfloat16_is_used_where_asked(model, tiny_images, tmp_path):
    seen = []

    def loss(images, labels, rng, done):
        product = model.mean.view(8, 8) @ model.mean.view(8, 8)
        seen.append(product.dtype)
        return product.float().sum()

    model.changed = lambda training_spec: with_main(training_spec, loss)
    train_generator(model, tiny_images, FIT.model_copy(update={"precision": "bfloat16"}), tmp_path, seed=0)
    assert set(seen) == {torch.bfloat16} and model.mean.dtype == torch.float32


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_auto_trains_as_the_faster_precision(tiny_images, tmp_path, monkeypatch, faster):
    """Timing leaves nothing in the training, not even in what its specification holds."""
    monkeypatch.setattr("robustgen.runtime.precision.has_bfloat16_units", lambda device: True)

    def time_both(work, device, clock):
        work("float32"), work("bfloat16")
        return {"float32": 1.0, "bfloat16": 1.0} | {faster: 0.5}

    monkeypatch.setattr("robustgen.runtime.precision._timed", time_both)
    made, short = {}, FIT.model_copy(update={"total_images": 20 * 10})
    for precision in ("auto", faster):
        torch.manual_seed(0)
        trained = Mean()
        trained.changed = with_rounding
        settings = short.model_copy(update={"precision": precision})
        made[precision] = train_generator(trained, tiny_images, settings, tmp_path / precision, seed=0).mean
        assert trained.counts.value["main"] == 20
    assert torch.equal(made["auto"], made[faster])
    assert (tmp_path / "auto" / "precision.json").exists() and len(list(tmp_path.rglob("precision.json"))) == 1


def with_rounding(spec):
    """The main loss, of batches that went through a matrix product, which is rounded in bfloat16."""
    term = spec.loss_terms["loss"]

    def loss(images, labels, rng, done):
        return term.loss((images @ torch.eye(8)).float(), labels, rng, done)

    return replace(spec, loss_terms={**spec.loss_terms, "loss": replace(term, loss=loss)})


def test_grids_of_samples_are_drawn_on_the_way(model, tiny_images, tmp_path):
    train_generator(model, tiny_images, FIT.model_copy(update={"previews": 4}), tmp_path, seed=0)
    grids = sorted(path.name for path in (tmp_path / "grids").iterdir())
    assert grids == ["0000010.png", "0000020.png", "0000030.png", "0000040.png"]
    with Image.open(tmp_path / "grids" / grids[0]) as grid:
        assert grid.size == (3 * 8, 4 * 8)


SHARED = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np
from robustgen.images import DatasetInfo, ImageSet
from robustgen.training.generator import train_generator
from test_generator_training import FIT, Mean, with_main
torch.manual_seed(0)
model = Mean()
model.changed = lambda spec: with_main(spec, model.main)
images = np.load({images!r})
info = DatasetInfo("x", ("a", "b", "c"), (1, 8, 8), (0.0,), (1.0,))
average = train_generator(model, ImageSet(images["image"], images["label"], info), FIT, Path({folder!r}), seed=0)
torch.save(average.mean, {folder!r} + "/" + sys.argv[1])
"""


def test_two_processes_learn_what_one_does(model, tiny_images, tmp_path):
    """The loss is a mean over images and draws no noise of its own: shares of a batch are as good as all of it."""
    np.savez(tmp_path / "images.npz", image=tiny_images.images, label=tiny_images.labels)
    folder = tmp_path / "two"
    folder.mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        SHARED.format(tests=str(Path(__file__).parent), images=str(tmp_path / "images.npz"), folder=str(folder))
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen([sys.executable, str(script), f"{rank}.pt"], env={**place, "RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    model.changed = lambda training_spec: with_main(training_spec, model.main)
    alone = train_generator(model, tiny_images, FIT, tmp_path / "one", seed=0).mean
    for rank in range(2):
        torch.testing.assert_close(torch.load(folder / f"{rank}.pt"), alone.data, rtol=1e-5, atol=1e-6)
    assert (folder / "history.npz").exists()


def test_a_batch_that_processes_cannot_share_is_refused(model, tiny_images, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"batch_size \(10\) must be a multiple of the 3 processes"):
        train_generator(model, tiny_images, FIT, tmp_path, seed=0)


def test_streams_differ_between_moves_and_repeats(model, tiny_images, tmp_path):
    drawn = []

    def loss(images, labels, rng, done):
        drawn.append(rng.uniform((1,)).item())
        return model.mean.sum()

    model.changed = lambda training_spec: replace(
        training_spec, loss_terms={"a": LossTerm("main", loss, repeats=2), "b": LossTerm("main", loss)}
    )
    train_generator(model, tiny_images, FIT, tmp_path, seed=0)
    assert len(set(drawn)) == 120
    assert drawn[0] == rng_for(0, "fit", 0).uniform((1,)).item()


@pytest.mark.slow
def test_torchrun_fits_and_samples(tmp_path):
    """Two processes sample the very bytes of one; trained by two, a generator is as whole as by one."""

    def robustgen(*words, processes=1):
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "robustgen", *map(str, words)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout

    small = ["--recipe", "digits-smoke", "--set", "generators.edm.total_images=640"]
    robustgen("fit", "edm", *small, "--into", tmp_path / "one")
    robustgen("fit", "edm", *small, "--into", tmp_path / "two", processes=2)
    draw = ["--count", 130, "--shard-images", 30, "--solver", "ipndm", "--evaluations", 3]
    for model in ("one", "two"):
        robustgen("sample", tmp_path / model, *draw, "--into", tmp_path / f"{model}-alone")
        said = robustgen("sample", tmp_path / model, *draw, "--into", tmp_path / f"{model}-shared", processes=2)
        assert said.count("130 images") == 1
        alone, shared = (
            {path.name: path.read_bytes() for path in (tmp_path / f"{model}-{how}").glob("[!.]*")}
            for how in ("alone", "shared")
        )
        assert alone == shared and len(alone) == 7
    assert len(np.load(tmp_path / "two" / "history.npz")["loss"]) == 10
