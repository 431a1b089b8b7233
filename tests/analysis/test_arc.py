"""ARC where the best discriminators are known on paper, and how its record behaves."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

from robustgen.analysis import arc as proximity
from robustgen.analysis.arc import ARC, Pairs, discriminators, load_discriminators, robustly_right, score, split_order
from robustgen.analysis.contracts import ProxySubject
from robustgen.analysis.subjects import GENERATED, REAL, pairwise_distances
from robustgen.analysis.transport import exact
from robustgen.attacks import APGD
from robustgen.images import DatasetInfo
from robustgen.objectives import margin
from robustgen.randomness import rng_for
from robustgen.records.arc import ARCRecord, DiscriminationAccuracy
from robustgen.records.record import BROKEN, PENDING, ROBUST, About
from robustgen.stats.intervals import Proportion
from robustgen.threat import ThreatModel

INFO = DatasetInfo("paper", ("a", "b"), (1, 8, 8), (0.5,), (0.25,))
DIRECTION = torch.ones(1, 8, 8) / 8
"""Length 1 in l2, 1/8 in linf."""


def gaussians(count, apart, spread, seed, direction=DIRECTION):
    """Real and generated images: normal along a direction around 1/2 +- apart / 2, in units of its length."""
    generator = torch.Generator().manual_seed(seed)
    places = spread * torch.randn(2, count, generator=generator) + torch.tensor([[apart / 2], [-apart / 2]])
    return tuple(0.5 + place.view(-1, 1, 1, 1) * direction for place in places)


def subject_of(real, test, generated, norm="l2", eps=0.1, info=INFO):
    labels = [torch.arange(len(images)) % 2 for images in (real, test, generated)]
    return ProxySubject(info, ThreatModel(norm, eps), real, labels[0], test, labels[1], generated, labels[2])


def record_of(right, real, radii, **changes):
    """A record with the given outcomes, (N, P) bool."""
    stands = np.where(right, ROBUST, BROKEN).astype(np.int8)
    return ARCRecord(
        about=About("ARC()", "l2", 0, "x"),
        radii=np.array(radii, dtype=float),
        ids=np.arange(len(stands)),
        real=np.asarray(real),
        stands=stands,
        score=np.zeros(stands.shape, dtype=np.float32),
        ended=np.array(True),
        **changes,
    )


class Middle(nn.Module):
    """The best discriminator of two symmetric sets along a direction, at every radius: which side of 1/2."""

    def forward(self, images):
        height = ((images - 0.5) * DIRECTION).flatten(1).sum(1)
        return torch.stack([-height, height], 1) * 10


def curve(model, real, generated, radii, norm="l2"):
    images = torch.cat([real, generated])
    labels = torch.tensor([REAL, GENERATED]).repeat_interleave(len(real))
    columns = [
        robustly_right(
            model, images, labels, ThreatModel(norm, radius), APGD(10, margin) if radius else None, rng_for(0)
        )[0]
        for radius in radii
    ]
    return record_of(np.stack(columns, 1) == ROBUST, labels.numpy() == REAL, radii)


# Closed forms


def test_two_points_are_told_apart_up_to_half_their_distance_and_the_bound_is_their_distance():
    """W = d and ARC = 1/2 * d/2: 4 ARC = W. Steps under the curve come to the last radius before d/2."""
    real, generated = gaussians(20, 1.0, 0.0, 0)
    radii = np.linspace(0, 0.6, 61)
    found = curve(Middle(), real, generated, radii)
    told = np.array([found.discrimination_accuracy(at).value for at in range(len(radii))])
    assert (told[radii < 0.499] == 1).all() and (told[radii > 0.501] <= 0.5).all()
    assert found.arc == pytest.approx(0.25, abs=0.006)
    assert found.distance_bound == pytest.approx(1.0, abs=0.025) and found.distance_bound <= 1 + 1e-6


@pytest.mark.parametrize(("apart", "spread"), [(1.0, 0.1), (0.6, 0.3), (0.2, 0.3)])
def test_shifted_gaussians_have_the_curve_and_area_that_are_known(apart, spread):
    """p(r) = Phi((d/2 - r) / s); ARC = s (T Phi(T) + phi(T) - phi(0) - T/2), T = d / 2s; W = d >= 4 ARC."""
    real, generated = gaussians(2000, apart, spread, 1)
    radii = np.linspace(0, apart / 2, 11)
    found = curve(Middle(), real, generated, radii)
    normal, t = NormalDist(), apart / 2 / spread
    for at, radius in enumerate(radii):
        told = found.discrimination_accuracy(at)
        wanted = normal.cdf((apart / 2 - radius) / spread)
        assert told.value == pytest.approx(wanted, abs=0.03)
    area = spread * (t * normal.cdf(t) + normal.pdf(t) - normal.pdf(0) - t / 2)
    assert found.arc == pytest.approx(area, rel=0.1)
    assert found.arc_interval[0] < area < found.arc_interval[1] or found.arc == pytest.approx(area, rel=0.03)
    assert found.distance_bound <= 4 * found.arc <= apart


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_bound_is_below_the_distance_of_the_very_images(norm):
    """For whatever images and whatever discriminators: here random ones, and others at each radius."""
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        real, generated = (0.5 + 0.1 * torch.randn(30, 1, 8, 8, generator=generator) + at for at in (0.0, 0.05))
        radii = [0, 0.02, 0.05, 0.1] if norm == "linf" else [0, 0.1, 0.3, 0.6]
        columns = []
        for radius in radii:
            weights = torch.randn(1, 8, 8, generator=generator) * 0.3 + 1
            model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
            with torch.no_grad():
                model[1].weight.copy_(torch.stack([weights.flatten(), -weights.flatten()]))
                model[1].bias.copy_(0.525 * weights.sum() * torch.tensor([-1.0, 1.0]))
            columns.append(curve(model, real, generated, [0, radius], norm).stands[:, 1])
        labels = np.arange(60) < 30
        found = record_of(np.stack(columns, 1) == ROBUST, labels, radii)
        cost = pairwise_distances(real.flatten(1), generated.flatten(1), norm).numpy()
        assert 0 < found.distance_bound <= exact(cost).upper


def test_the_curve_counts_both_kinds_alike():
    """90 real and 10 generated; guessing real for all is worth 1/2, not 90 %."""
    real = np.arange(100) < 90
    found = record_of(np.stack([real, real], 1), real, [0, 1])
    assert found.discrimination_accuracy(0).value == 0.5 and found.arc == 0 and found.distance_bound == 0


def test_areas_on_a_curve_done_by_hand():
    """1, 0.9, 0.6, 0.5 at 0, 1, 2, 4: trapezoids 0.45 + 0.25 + 0.1, steps 0.4 + 0.1 + 0."""
    shares = [10, 9, 6, 5]
    right = np.array([[i % 10 < share for share in shares] for i in range(20)])
    found = record_of(right, np.arange(20) < 10, [0, 1, 2, 4])
    assert found.arc == pytest.approx(0.8) and found.distance_bound == pytest.approx(4 * 0.5)
    assert found.table().rows[1] == ("1", "90.0", "90.0", "90.0", found.table().rows[1][4])
    assert "ARC 0.8 (" in found.summary and "only 10 held-out images" in found.flags[0]


def test_a_better_discriminator_further_out_also_counts_nearer():
    """What is right within r is right within less: 0.6 at 1 and 0.9 at 2 give 0.9 at both, and say so."""
    right = np.array([[True, i % 10 < 6, i % 10 < 9] for i in range(200)])
    found = record_of(right, np.arange(200) < 100, [0, 1, 2])
    assert found.distance_bound == pytest.approx(4 * (0.4 + 0.4))
    assert any("discrimination accuracy is higher at radius 2 than at 1" in flag for flag in found.flags)


def test_an_interval_of_both_kinds_holds_the_share_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        real, generated = rng.binomial(80, 0.9), rng.binomial(50, 0.6)
        low, high = DiscriminationAccuracy(Proportion(int(real), 80), Proportion(int(generated), 50)).interval
        held += low <= 0.75 <= high
    assert 0.93 < held / 2000 < 0.97


def test_a_curve_that_is_cut_off_is_said():
    right = np.ones((200, 2), dtype=bool)
    found = record_of(right, np.arange(200) < 100, [0, 1])
    assert any("discrimination accuracy is still 100.0 % at the last radius, 1:" in flag for flag in found.flags)


def test_robustly_right_never_trusts_an_attack():
    images = torch.full((4, 1, 8, 8), 0.6)
    labels = torch.full((4,), REAL)

    def cheat(model, images, targets, threat, rng):
        return torch.zeros_like(images)

    stands, scores = robustly_right(Middle(), images, labels, ThreatModel("l2", 0.1), cheat, rng_for(0))
    assert (stands == ROBUST).all() and (scores > 0).all()
    wrong, _ = robustly_right(Middle(), images, 1 - labels, ThreatModel("l2", 0.1), cheat, rng_for(0))
    assert (wrong == BROKEN).all()


def test_nan_logits_never_stand():
    class Broken(nn.Module):
        def forward(self, images):
            logits = Middle()(images)
            return torch.where(images.mean((1, 2, 3))[:, None] < 0.6, torch.nan, logits)

    images = torch.tensor([0.59, 0.61, 0.9]).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    labels = torch.full((3,), REAL)

    def darken(model, images, targets, threat, rng):
        return images - 0.02

    stands, _ = robustly_right(Broken(), images, labels, ThreatModel("linf", 0.02), darken, rng_for(0))
    assert stands.tolist() == [BROKEN, BROKEN, ROBUST]


# Trained discriminators

QUICK = ARC(
    radii=(0.0, 0.1, 0.4),
    total_images=12 * 16,
    further_images=4 * 16,
    batch_size=16,
    peak_lr=0.05,
    steps=2,
    test_steps=3,
)


@pytest.fixture(scope="module")
def subject():
    real, generated = gaussians(60, 0.6, 0.1, 2)
    return subject_of(real[:30], real[30:], generated)


@pytest.fixture(scope="module")
def measured(subject, tmp_path_factory):
    path = tmp_path_factory.mktemp("arc") / "edm.arc.npz"
    return QUICK(subject, path=path), path


def test_a_record_has_a_row_an_image_and_ends(measured):
    found, path = measured
    assert found.finished and found.about.threat == "l2"
    assert int(found.real.sum()) == 30 == int((~found.real).sum()) and len(found.ids) == 60
    assert 1 <= found.reached <= 3 and ((found.stands == PENDING) == np.isnan(found.score)).all()
    assert ARCRecord.load(path).table() == found.table()
    folders = sorted(folder.name for folder in discriminators(path, found).iterdir())
    assert folders == [f"{at:02d}" for at in range(found.reached)]
    assert sorted(file.name for file in (discriminators(path, found) / "00").iterdir()) == [
        "history.npz",
        "weights.safetensors",
    ]


def test_equal_input_gives_equal_bytes_whatever_the_batch_size(measured, subject, tmp_path):
    _, path = measured
    QUICK(subject, path=tmp_path / "b.npz", batch_size=7)
    assert (tmp_path / "b.npz").read_bytes() == path.read_bytes()
    other = QUICK(subject, seed=1)
    assert not np.array_equal(other.score, measured[0].score, equal_nan=True)


def test_a_finished_record_is_taken_as_it_is_and_another_is_refused(measured, subject, monkeypatch):
    found, path = measured
    monkeypatch.setattr(proximity, "train_discriminator", None)
    assert np.array_equal(QUICK(subject, path=path).stands, found.stands)
    with pytest.raises(ValueError, match=r"a record of another analysis \(analysis: .*remove it"):
        replace(QUICK, steps=3)(subject, path=path)
    with pytest.raises(ValueError, match="made_for: stored"):
        QUICK(replace(subject, generated=subject.generated.flip(0)), path=path)


@pytest.mark.parametrize("after", [3, 13])
def test_killed_and_resumed_is_uninterrupted(measured, subject, tmp_path, monkeypatch, after):
    """Killed within the first radius and, at the 14th step, within the second."""
    _, path = measured
    monkeypatch.setattr("robustgen.storage.files.SaveInterval.due", lambda self: True)
    taken, batch = [0], Pairs.batch

    def dying(self, step):
        taken[0] += 1
        if taken[0] > after:
            raise KeyboardInterrupt
        return batch(self, step)

    monkeypatch.setattr(Pairs, "batch", dying)
    with pytest.raises(KeyboardInterrupt):
        QUICK(subject, path=tmp_path / "a.npz")
    steps = []
    monkeypatch.setattr(Pairs, "batch", lambda self, step: steps.append(step) or batch(self, step))
    found = QUICK(subject, path=tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == path.read_bytes()
    assert len(steps) == 12 + 4 * (found.reached - 1) - after  # nothing is computed twice


def test_scores_are_of_the_robust_discriminators_and_do_not_depend_on_the_batch(measured, subject):
    found, path = measured
    models = load_discriminators(path, subject.info, QUICK)
    assert len(models) == found.reached - 1
    pixels = (subject.generated * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    first, second = (score(models, lambda index: pixels[index], 60, batch_size=size) for size in (7, 60))
    assert np.array_equal(first, second) and first.dtype == np.float32 and (first >= 0).all() and (first <= 1).all()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        by_hand = torch.stack([model(images).softmax(1)[:, REAL] for model in models]).mean(0).numpy()
    assert np.allclose(first, by_hand, atol=1e-5)


def test_images_that_look_more_real_score_higher():
    far = gaussians(40, 0.6, 0.0, 0)
    pixels = [(images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy() for images in far]
    real, generated = (score([Middle()], lambda index, p=p: p[index], 40) for p in pixels)
    assert real.min() > 0.9 and generated.max() < 0.1


def test_batches_are_half_and_half_and_depend_on_their_number_alone(subject):
    pairs = Pairs(subject.train, subject.generated, 16, None, rng_for(0))
    batch = pairs.batch(5)
    assert batch.generated.sum() == 8 and torch.equal(batch.targets.argmax(1) == GENERATED, batch.generated)
    assert torch.equal(batch.images, pairs.batch(5).images) and not torch.equal(batch.images, pairs.batch(6).images)
    height = (batch.images - 0.5).mean((1, 2, 3))
    assert height[~batch.generated].mean() > 0 > height[batch.generated].mean()


def test_generated_images_are_split_once():
    order = split_order(100, 3)
    assert sorted(order) == list(range(100)) and np.array_equal(order, split_order(100, 3))


def test_bytes_are_taken_as_they_are():
    real, generated = gaussians(40, 0.6, 0.1, 2)
    pixels = [(images * 255).round().to(torch.uint8) for images in (real, generated)]
    one = QUICK(subject_of(pixels[0][:20], pixels[0][20:], pixels[1]))
    other = QUICK(subject_of(*[images.float() / 255 for images in (pixels[0][:20], pixels[0][20:], pixels[1])]))
    assert np.array_equal(one.score, other.score, equal_nan=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ARC(radii=(0.2, 0.1)), "radii must ascend from 0 or more, got 0.2, 0.1"),
        (lambda: ARC(radii=(-0.2, 0.1)), "radii must ascend"),
        (lambda: ARC(batch_size=7), "batch_size must be even"),
        (lambda: ARC(augment="mixup9"), "unknown augmentation 'mixup9'; known: "),
        (lambda: ARC(steps=0), "steps must be at least 1"),
    ],
)
def test_mistakes_in_settings_are_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_too_few_images_and_no_radius_are_one_clear_line(subject, tmp_path):
    with pytest.raises(ValueError, match="10 real training images, 10 test images and 20 generated ones or more"):
        QUICK(replace(subject, generated=subject.generated[:12], generated_labels=subject.generated_labels[:12]))
    with pytest.raises(ValueError, match="ARC needs radii, or a threat model with eps above 0"):
        ARC()(replace(subject, threat=ThreatModel("l2", 0.0)))
    record = record_of(np.ones((4, 1), dtype=bool), np.arange(4) < 2, [0.0])
    record.save(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="no discriminator of a radius above 0"):
        load_discriminators(tmp_path / "a.npz", INFO, QUICK)
    replace(record, ended=np.array(False)).save(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="not finished"):
        load_discriminators(tmp_path / "a.npz", INFO, QUICK)


@pytest.mark.slow
def test_trained_discriminators_come_near_the_best_and_the_bound_holds():
    """Gaussians 0.8 apart: by training alone, the curve is within a few points of Phi((d/2 - r) / s)."""
    real, generated = gaussians(1200, 0.8, 0.2, 4)
    radii = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    arc = ARC(radii=radii, total_images=100 * 64, further_images=50 * 64, batch_size=64, steps=5, test_steps=20)
    found = arc(subject_of(real[:600], real[600:], generated))
    normal = NormalDist()
    for at in range(found.reached):
        wanted = normal.cdf((0.4 - radii[at]) / 0.2)
        told = found.discrimination_accuracy(at)
        assert wanted - 0.08 < told.value < wanted + 0.05
    assert found.distance_bound <= 4 * found.arc <= 0.8 and found.arc > 0.5 * 0.2 and not math.isnan(found.arc)
