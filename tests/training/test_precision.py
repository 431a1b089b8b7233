"""The precision of training: the rule of auto, its record, refusals, and what stays in float32."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from robustgen.config.training import TrainingConfig
from robustgen.models import build_model
from robustgen.randomness import rng_for
from robustgen.runtime import precision as module
from robustgen.runtime.precision import FEWEST, check_precision, choose_precision
from robustgen.storage.files import Note
from robustgen.training.low_precision import LowPrecision, casting_once, in_precision


class Clock:
    """Seconds that pass only while work is done."""

    def __init__(self, **seconds):
        self.now, self.seconds, self.calls = 0.0, seconds, []

    def __call__(self):
        return self.now

    def work(self, precision):
        self.calls.append(precision)
        self.now += self.seconds[precision]


@pytest.fixture
def units(monkeypatch):
    monkeypatch.setattr(module, "has_bfloat16_units", lambda device: True)


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize(
    ("float32", "chosen"), [(1.19, "float32"), (1.2, "bfloat16"), (2.0, "bfloat16"), (0.5, "float32")]
)
def test_auto_takes_bfloat16_if_float32_takes_a_fifth_longer(tmp_path, capsys, float32, chosen):
    clock = Clock(float32=float32, bfloat16=1.0)
    record = tmp_path / "job" / "precision.json"
    assert choose_precision("auto", "cpu", record, FEWEST, clock.work, clock=clock) == chosen
    assert clock.calls == ["float32", "bfloat16"] * 2  # a warm-up, then the measurement
    assert capsys.readouterr().out == (
        f"{record.parent}: precision {chosen} (bfloat16 is {float32:.2f} times as fast as float32)\n"
    )
    kept = json.loads(record.read_text())
    assert kept["precision"] == chosen and kept["seconds"] == pytest.approx({"float32": float32, "bfloat16": 1.0})
    # The job resumes in the same precision, without timing, whatever is faster now.
    again = Clock(float32=1.0, bfloat16=float32)
    assert choose_precision("auto", "cpu", record, FEWEST, again.work, clock=again) == chosen
    assert not again.calls and capsys.readouterr().out == ""


@pytest.mark.usefixtures("units")
def test_short_jobs_are_not_timed(tmp_path):
    clock = Clock(float32=3.0, bfloat16=1.0)
    assert choose_precision("auto", "cpu", tmp_path / "p.json", FEWEST - 1, clock.work, clock=clock) == "float32"
    assert not clock.calls and json.loads((tmp_path / "p.json").read_text())["precision"] == "float32"


def test_auto_is_float32_without_units_and_stays_so(tmp_path, monkeypatch, capsys):
    clock = Clock(float32=3.0, bfloat16=1.0)
    monkeypatch.setattr(module, "has_bfloat16_units", lambda device: False)
    choose = partial(choose_precision, "auto", "cpu", tmp_path / "p.json", 1000, clock.work, clock=clock)
    assert choose() == "float32" and not clock.calls and "has no bfloat16 units" in capsys.readouterr().out
    monkeypatch.setattr(module, "has_bfloat16_units", lambda device: True)  # it resumes on another machine
    assert choose() == "float32" and not clock.calls


def test_a_given_precision_is_not_recorded(tmp_path):
    clock = Clock(float32=3.0, bfloat16=1.0)
    assert choose_precision("float32", "cpu", tmp_path / "p.json", 1000, clock.work) == "float32"
    assert not clock.calls and not list(tmp_path.iterdir())


def test_a_damaged_record_is_one_line(tmp_path):
    (tmp_path / "p.json").write_text('{"precision": "float8"}')
    with pytest.raises(ValueError, match="expected precision float32 or bfloat16, got 'float8'; restore it or remove"):
        choose_precision("auto", "cpu", tmp_path / "p.json", 1000, print)


def test_bfloat16_without_units_is_refused_on_a_gpu_and_noted_on_a_cpu(monkeypatch):
    monkeypatch.setattr(module, "has_bfloat16_units", lambda device: False)
    monkeypatch.setattr(module, "_name", lambda device: "Tesla V100")
    with pytest.raises(ValueError, match="needs a device with bfloat16 units, and Tesla V100 has none; use float32"):
        check_precision("bfloat16", "cuda")
    with pytest.warns(Note, match="bfloat16 is emulated"):
        check_precision("bfloat16", "cpu")
    check_precision("float32", "cuda")


def test_losses_and_attacks_see_float32_and_weights_stay_so(tiny_info):
    model = build_model("wrn-10-1", tiny_info, rng_for(0)).train()
    network, seen = in_precision(model, "bfloat16"), []
    assert isinstance(network, LowPrecision) and in_precision(model, "float32") is model
    hook = model.layer[0].block[0].conv_0.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    images = torch.rand(4, 1, 8, 8, requires_grad=True)
    with casting_once("bfloat16", "cpu"):
        logits = network(images)
        assert (logits @ logits.T).dtype == torch.float32  # autocast is off outside the network
    hook.remove()
    logits.log_softmax(1).sum().backward()
    assert seen == [torch.bfloat16] and logits.dtype == images.grad.dtype == torch.float32
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float32}


def test_weights_are_cast_once_a_step():
    """With ten passes autocast makes one copy of each weight, as the profiler counts."""
    model = nn.Conv2d(1, 2, 3)
    network, images = in_precision(model, "bfloat16"), torch.rand(1, 1, 3, 3)

    def casts(passes):
        with torch.profiler.profile() as profile, casting_once("bfloat16", "cpu"):
            for _ in range(passes):
                network(images)
        return next(row.count for row in profile.key_averages() if row.key == "aten::_to_copy")

    one, ten = casts(1), casts(10)
    assert one == 4 and ten == 22  # weight, bias; in each pass images and logits


def test_passes_in_bfloat16_are_near_float32(tiny_info):
    """Rounding at 2^-9 in each of ten layers: a few percent of the gradient."""
    model = build_model("wrn-10-1", tiny_info, rng_for(0)).train()
    model.logits.weight.data.copy_(rng_for(2).normal(model.logits.weight.shape))  # it starts at 0
    images, labels = rng_for(1).uniform((16, 1, 8, 8)), torch.arange(16) % 3
    gradients = []
    for precision in ("float32", "bfloat16"):
        points = images.clone().requires_grad_()
        with casting_once(precision, "cpu"):
            nn.functional.cross_entropy(in_precision(model, precision)(points), labels).backward()
        gradients.append(points.grad)
    assert 0 < (gradients[0] - gradients[1]).norm() < 0.1 * gradients[0].norm()


def test_settings_refuse_other_precisions():
    assert TrainingConfig.model_fields["precision"].default == "float32"
    with pytest.raises(ValueError, match="'auto', 'float32' or 'bfloat16'"):
        TrainingConfig(schedule={"total_images": 1, "batch_size": 1, "peak_lr": 1}, precision="float16")
