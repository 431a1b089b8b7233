from typing import get_args

import numpy as np
import pytest
import torch

from conftest import Halfspace
from robustgen.attacks import PGD
from robustgen.augment import AUGMENTATIONS
from robustgen.config.losses import InnerAttackConfig, TRADESConfig
from robustgen.config.training import ScheduleConfig, TrainingConfig
from robustgen.generators import Gaussian
from robustgen.images import DatasetInfo, ImageSet
from robustgen.losses import TRADES, Plain
from robustgen.models import build_model
from robustgen.proxy.sampling import sample_proxies
from robustgen.randomness import rng_for
from robustgen.stats.intervals import Proportion
from robustgen.threat import ThreatModel
from robustgen.training import validation
from robustgen.training.classifier import ValidationAccuracies, parameter_groups, train_classifier
from robustgen.training.ema import EMA, half_life_decay, ramped
from robustgen.training.loop import Diverged
from robustgen.training.mixing import Mixture
from robustgen.training.schedules import one_cycle, one_cycle_momentum, rising_cosine, rising_drop

THREAT = ThreatModel("linf", 0.1)


@pytest.fixture
def proxies(tiny_images, tiny_info, tmp_path):
    model = Gaussian(tiny_info.shape, 3)
    model.fit(tiny_images)
    made = sample_proxies(model, 50, tmp_path / "proxies", classes=tiny_info.classes)
    made.add_columns({}, label=(np.arange(50) % 3).astype(np.int32), kept=np.arange(50) % 2 == 0)
    return made


def test_batches_hold_the_asked_share_originals_first(tiny_images, proxies):
    mixture = Mixture(tiny_images, proxies, batch_size=20, real_share=0.3, smoothing=0.1)
    batch = mixture.batch(0)
    assert batch.generated.tolist() == [False] * 6 + [True] * 14
    assert batch.images.shape == (20, 1, 8, 8) and batch.images.max() <= 1
    real = {image.tobytes() for image in tiny_images.images}
    used = (batch.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert [image.tobytes() in real for image in used] == (~batch.generated).tolist()


def test_official_batches_of_1024_hold_307_originals(tiny_images, proxies):
    assert Mixture(tiny_images, proxies, batch_size=1024, real_share=0.3).real_count == 307


def test_labels_are_smoothed_where_asked(tiny_images, proxies):
    for smooth, expected in (("generated", (1.0, 0.9 + 0.1 / 3)), ("all", (0.9 + 0.1 / 3,) * 2), ("none", (1.0, 1.0))):
        batch = Mixture(tiny_images, proxies, batch_size=20, real_share=0.5, smoothing=0.1, smooth=smooth).batch(0)
        tops = batch.targets.amax(1)
        torch.testing.assert_close(tops[~batch.generated], torch.full((10,), expected[0]))
        torch.testing.assert_close(tops[batch.generated], torch.full((10,), expected[1]))
        torch.testing.assert_close(batch.targets.sum(1), torch.ones(20))


def test_only_kept_images_are_used_and_each_before_any_again(tiny_images, proxies):
    mixture = Mixture(tiny_images, proxies, batch_size=10, real_share=0.5)
    kept = {image.tobytes() for image in proxies.images(proxies.kept())}
    seen = []
    for step in range(5):  # 25 kept images, 5 a batch: one round
        batch = mixture.batch(step)
        used = (batch.images[batch.generated] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        seen += [image.tobytes() for image in used]
    assert set(seen) == kept and len(seen) == len(set(seen))


def test_a_batch_depends_on_its_number_alone(tiny_images, proxies):
    def mixture():
        return Mixture(tiny_images, proxies, batch_size=16, real_share=0.5, augment=AUGMENTATIONS["shift-1"], seed=3)

    first, second = mixture(), mixture()
    for step in range(6):
        first.batch(step)
    for step in (5, 0, 9):
        a, b = first.batch(step), second.batch(step)
        assert torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)
    assert not torch.equal(first.batch(1).images, first.batch(2).images)


def test_what_does_not_fit_together_is_refused(tiny_images, proxies, tiny_info):
    with pytest.raises(ValueError, match=r"real_share 0\.3 needs a proxy set"):
        Mixture(tiny_images, None, batch_size=10, real_share=0.3)
    proxies.manifest["shape"] = [3, 8, 8]
    with pytest.raises(ValueError, match=r"holds images of shape \(3, 8, 8\)"):
        Mixture(tiny_images, proxies, batch_size=10, real_share=0.3)
    proxies.manifest["shape"] = [1, 8, 8]
    proxies.add_columns({}, kept=np.zeros(50, bool))
    with pytest.raises(ValueError, match="keeps no image"):
        Mixture(tiny_images, proxies, batch_size=10, real_share=0.3)


def test_averages_follow_their_closed_form():
    """Constant decay d on weights w_t: d^n w_0 + (1 - d) sum d^(n - 1 - t) w_t; buffers are the model's own."""
    model = torch.nn.BatchNorm1d(1)
    average = EMA(model)
    for value in (1.0, 2.0, 4.0):
        model.weight.data.fill_(value)
        model.running_mean.fill_(value)
        average.update(model, 0.5)
    assert average.model.weight.item() == pytest.approx(1 / 8 + 1 / 8 + 2 / 4 + 4 / 2)
    assert average.model.running_mean.item() == 4.0
    assert ramped(0.995, 0) == 0.1 and ramped(0.995, 1789) < 0.995 and ramped(0.995, 1791) == 0.995
    assert half_life_decay(100.0, 10.0) ** 10 == pytest.approx(0.5)


def test_learning_rates_rise_a_step_at_a_time_then_fall():
    assert [rising_cosine(t, 104, 4) for t in (0, 1, 3, 4)] == [0.25, 0.5, 1.0, 1.0]
    assert rising_cosine(54, 104, 4) == pytest.approx(0.5) and rising_cosine(103, 104, 4) < 1e-3
    assert [rising_drop(t, 90, 9) for t in (8, 59, 60, 89)] == [1.0, 1.0, 0.1, 0.1]
    assert rising_cosine(0, 10, 0) == 1.0


def test_one_cycle_is_that_of_pytorch():
    model = torch.nn.Linear(1, 1)
    for steps, warmup_steps in ((40, 10), (400, 10), (30, 30)):
        sgd = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            sgd, 0.2, total_steps=steps, pct_start=warmup_steps / steps, anneal_strategy="cos"
        )
        for t in range(steps):
            group = sgd.param_groups[0]
            assert 0.2 * one_cycle(t, steps, warmup_steps) == pytest.approx(group["lr"], rel=1e-9, abs=1e-12)
            assert one_cycle_momentum(t, steps, warmup_steps) == pytest.approx(group["momentum"], rel=1e-9)
            sgd.step()
            if t + 1 < steps:
                cycle.step()


def test_batch_norms_do_not_decay(tiny_info):
    model = build_model("wrn-10-1", tiny_info)
    decayed, still = parameter_groups(model, 5e-4)
    assert decayed["weight_decay"] == 5e-4 and still["weight_decay"] == 0
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("batchnorm" in names[id(p)] for p in still["params"])
    assert not any("batchnorm" in names[id(p)] for p in decayed["params"])
    assert "logits.bias" in {names[id(p)] for p in decayed["params"]}
    assert len(decayed["params"]) + len(still["params"]) == len(list(model.parameters()))


SETTINGS = TrainingConfig(
    architecture="wrn-10-1",
    loss=TRADESConfig(attack=InnerAttackConfig(steps=2)),
    schedule=ScheduleConfig(total_images=12 * 16, batch_size=16, peak_lr=0.1, warmup=0.1),
    augment="none",
    validations=4,
)


def measured(robust):
    return ValidationAccuracies(Proportion(20, 20), Proportion(robust, 20))


def train(folder, tiny_images, *, steps=12, stop_after=None, validate=None, settings=SETTINGS, loss=None):
    model = build_model("wrn-10-1", tiny_images.info, rng_for(0))
    mixture = Mixture(tiny_images, batch_size=16)

    def progress(done, total, unit, note=""):
        if stop_after is not None and done >= stop_after * 16:
            raise KeyboardInterrupt

    return train_classifier(
        model, mixture, loss or TRADES(), THREAT, settings, folder, seed=0, validate=validate, progress=progress
    )


def weights(trained):
    return list(trained.model.state_dict().values())


def test_two_trainings_agree_bit_for_bit(tiny_images, tmp_path):
    first, second = train(tmp_path / "a", tiny_images), train(tmp_path / "b", tiny_images)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))
    assert (tmp_path / "a" / "history.npz").read_bytes() == (tmp_path / "b" / "history.npz").read_bytes()


@pytest.fixture
def save_always(monkeypatch):
    """A checkpoint after each step."""
    monkeypatch.setattr("robustgen.storage.files.SaveInterval.due", lambda self: True)


def by_weights(model):
    """A score that depends on the weights alone."""
    return measured(int(model.init_conv.weight.double().abs().sum() * 1e6) % 20)


def test_broken_off_and_taken_up_equals_unbroken(tiny_images, tmp_path, save_always):
    whole = train(tmp_path / "whole", tiny_images, validate=by_weights)
    for stop in (1, 4, 7, 12, None):
        try:
            trained = train(tmp_path / "broken", tiny_images, stop_after=stop, validate=by_weights)
        except KeyboardInterrupt:
            continue
    assert trained.step == whole.step and trained.measured == whole.measured
    assert all(torch.equal(a, b) for a, b in zip(weights(trained), weights(whole), strict=True))
    for name in ("history.npz", "validation.npz"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_early_stopping_keeps_the_best_and_the_later_of_equals(tiny_images, tmp_path):
    def run(robust_of_average, **changes):
        scores = iter([x for score in robust_of_average for x in (0, score)])
        settings = SETTINGS.model_copy(update=changes)
        folder = tmp_path / f"{robust_of_average}{changes}"
        return train(folder, tiny_images, validate=lambda model: measured(next(scores)), settings=settings)

    assert run([3, 9, 9, 8]).step == 9 and run([3, 9, 9, 8]).measured.robust.count == 9
    assert run([9, 3, 3, 3]).step == 3
    last = run([9, 3, 3, 4], early_stopping=False)
    assert last.step == 12 and last.measured.robust.count == 4


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tiny_images, tmp_path, save_always):
    class Exploding:
        calls = 0

        def __call__(self, model, batch, threat, rng):
            self.calls += 1
            return Plain()(model, batch, threat, rng) * (torch.nan if self.calls == 8 else 1)

    with pytest.raises(
        Diverged, match=r"the loss is nan at step 7 of 12 in .*; the checkpoint before it is kept"
    ) as caught:
        train(tmp_path, tiny_images, loss=Exploding())
    assert "\n" not in str(caught.value)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["place"]["step"] == 7
    assert all(torch.isfinite(tensor).all() for tensor in kept["objects"]["model"].values())


def test_learns_to_tell_the_classes_apart(tiny_images, tmp_path):
    settings = SETTINGS.model_copy(
        update={
            "schedule": ScheduleConfig(total_images=60 * 16, batch_size=16, peak_lr=0.1, warmup=0.1),
            "ema_decay": 0.9,
        }
    )
    model = train(tmp_path, tiny_images, settings=settings).model
    images = tiny_images.pixels() / 255
    assert (model(images).argmax(1) == tiny_images.targets()).float().mean() > 0.95


def short(**changes):
    schedule = ScheduleConfig(
        total_images=4 * 16, batch_size=16, peak_lr=0.1, warmup=0.25, **changes.pop("schedule", {})
    )
    return SETTINGS.model_copy(update={"schedule": schedule, "validations": 1, **changes})


@pytest.mark.usefixtures("save_always")
def test_the_average_is_a_copy_until_its_start(tiny_images, tmp_path):
    """Three of four steps: then one step of the ramp, 0.1 of the copy and 0.9 of the model."""
    kept = {}
    for steps in (3, 4):
        settings = short(ema_start=0.75, ema_decay=0.9)
        stop = 4 if steps == 3 else None  # broken off before its checkpoint: that of step 3 is kept
        try:
            train(tmp_path / "a", tiny_images, settings=settings, stop_after=stop, validate=by_weights)
        except KeyboardInterrupt:
            pass
        kept[steps] = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)["objects"]
    before, after = kept[3], kept[4]
    name = "init_conv.weight"
    assert torch.equal(before["average"][name], before["model"][name])
    expected = 0.1 * before["model"][name] + 0.9 * after["model"][name]
    torch.testing.assert_close(after["average"][name], expected)


def test_bfloat16_is_for_training_passes_alone(tiny_images, tmp_path):
    seen = []

    def inside(model):
        """Types of the features that the last layer gets."""
        hook = model.get_submodule("model.logits" if hasattr(model, "model") else "logits").register_forward_hook(
            lambda layer, inputs, output: seen.append((layer.training, output.dtype))
        )
        logits = model(torch.rand(2, 1, 8, 8))
        hook.remove()
        assert logits.dtype == torch.float32

    class Watching(TRADES):
        def __call__(self, model, batch, threat, rng):
            inside(model)
            return super().__call__(model, batch, threat, rng)

    def validate(model):
        inside(model)
        return measured(1)

    made = train(tmp_path, tiny_images, settings=short(precision="bfloat16"), validate=validate, loss=Watching())
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(made))


@pytest.mark.usefixtures("save_always")
@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_a_resumed_training_keeps_the_precision_of_auto(tiny_images, tmp_path, monkeypatch, faster):
    """Bit for bit the training in that precision; the second start does not time."""
    auto = SETTINGS.model_copy(update={"precision": "auto"})
    seconds = {"float32": 1.0, "bfloat16": 1.0} | {faster: 0.5}
    monkeypatch.setattr("robustgen.runtime.precision.has_bfloat16_units", lambda device: True)
    monkeypatch.setattr("robustgen.runtime.precision.FEWEST", 1)
    timed = []

    def time_both(work, device, clock):
        timed.append(1)
        work("float32"), work("bfloat16")  # as it does: nothing of it may be left in the training
        return seconds

    monkeypatch.setattr("robustgen.runtime.precision._timed", time_both)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "auto", tiny_images, settings=auto, stop_after=5)
    resumed = train(tmp_path / "auto", tiny_images, settings=auto)
    given = train(tmp_path / "given", tiny_images, settings=auto.model_copy(update={"precision": faster}))
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(given), strict=True))
    assert timed == [1]
    assert (tmp_path / "auto" / "precision.json").exists() and not (tmp_path / "given" / "precision.json").exists()


def test_one_cycle_moves_the_momentum(tiny_images, tmp_path):
    train(tmp_path, tiny_images, settings=short(schedule={"decay": "one-cycle"}))
    (group, _) = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["objects"]["optimiser"]["param_groups"]
    assert group["momentum"] == pytest.approx(0.95) and group["lr"] == pytest.approx(0.1 / 250_000)


def test_batches_that_cannot_be_divided_are_refused(tiny_images, tmp_path):
    with pytest.raises(ValueError, match=r"\(16\) must be a multiple of 3 \(1 processes with 3 passes each\)"):
        train(tmp_path, tiny_images, settings=short(accumulate=3))


def test_lines_follow_the_run_and_its_resumption(tiny_images, tmp_path, save_always):
    import json

    for stop in (4, 9, None):
        try:
            train(tmp_path, tiny_images, stop_after=stop, validate=by_weights)
        except KeyboardInterrupt:
            continue
    found = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    validated = [line["step"] for line in found if "averaged_robust" in line]
    assert validated == [3, 6, 9, 12] and found[-2]["step"] == 12 and "images_per_second" in found[-2]


@pytest.mark.parametrize("kind", ["robust", "noisy"])
def test_processes_that_share_the_validation_images_count_what_one_counts(tiny_images, tiny_info, monkeypatch, kind):
    model = build_model("wrn-10-1", tiny_info, rng_for(0)).eval()
    with torch.no_grad():
        model.logits.weight.copy_(rng_for(1).normal(model.logits.weight.shape))

    def measure():
        make = {
            "robust": lambda: validation.robust_validator(tiny_images, ThreatModel("linf", 0.01), PGD(5), 0, "cpu"),
            "noisy": lambda: validation.noisy_validator(tiny_images, 0.25, 0, "cpu"),
        }[kind]
        return make()(model)

    whole = measure()
    parts = []
    for rank in range(3):
        monkeypatch.setattr(validation, "place", lambda rank=rank: (rank, 3))
        parts.append(measure())
    assert sum(part.clean.count for part in parts) == whole.clean.count
    assert sum(part.robust.count for part in parts) == whole.robust.count
    assert 0 < whole.robust.count < whole.robust.total == parts[0].robust.total


@pytest.mark.parametrize("name", validation.VALIDATION_ATTACKS)
def test_validation_attacks_break_what_lies_within_reach(name):
    model, threat = Halfspace(), ThreatModel("linf", 0.02)
    images = (128 + 12 * rng_for(3).normal((200, 2, 2, 3))).round().numpy().astype(np.uint8)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    labels = model(pixels).argmax(1)
    stand = model.distance_to_boundary(pixels, labels, "linf") > threat.eps
    info = DatasetInfo("halfspaces", ("a", "b", "c", "d"), (3, 2, 2), (0.0,) * 3, (1.0,) * 3)
    measure = validation.robust_validator(
        ImageSet(images, labels.numpy(), info), threat, validation.VALIDATION_ATTACKS[name](20), 0, "cpu"
    )
    assert 20 < int(stand.sum()) < 180
    assert measure(model) == ValidationAccuracies(Proportion(200, 200), Proportion(int(stand.sum()), 200))


def test_settings_name_every_validation_attack():
    known = get_args(TrainingConfig.model_fields["validation_attack"].annotation)
    assert known == tuple(validation.VALIDATION_ATTACKS)
    assert (
        TrainingConfig(schedule=ScheduleConfig(total_images=4, batch_size=4, peak_lr=0.1)).validation_attack == known[0]
    )
