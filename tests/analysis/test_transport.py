"""Transport and robustness that are known on paper, and conditions met and broken on purpose."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conftest import Halfspace
from robustgen.analysis import find_proxy_analysis
from robustgen.analysis import subjects as samples
from robustgen.analysis.conditions import Conditions
from robustgen.analysis.contracts import ProxySubject
from robustgen.analysis.subjects import pairwise_distances
from robustgen.analysis.transfer import Transfer, by_bisection, largest_distance, minimal_distances
from robustgen.analysis.transport import METHODS, Transport, exact, sinkhorn, sliced
from robustgen.attacks import APGD, FAB, PGD
from robustgen.images import DatasetInfo, to_bytes
from robustgen.modes import BatchInvariant
from robustgen.objectives import margin
from robustgen.randomness import content_ids, rng_for
from robustgen.records.conditions import ConditionsRecord
from robustgen.records.transfer import TransferRecord
from robustgen.records.transport import TransportRecord
from robustgen.threat import ThreatModel

NORMS = ("linf", "l2", "l1")


def drawn(count, shape=(3, 2, 2), seed=0, spread=0.1):
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + spread * torch.randn(count, *shape, generator=generator)).clamp(0, 1)


def subject_of(test, generated, norm="l2", eps=0.1, classes=2, labels=None, theirs=None, **others):
    shape = tuple(test.shape[1:])
    info = DatasetInfo("paper", tuple("abcdefgh"[:classes]), shape, (0.5,) * shape[0], (0.25,) * shape[0])
    labels = torch.arange(len(test)) % classes if labels is None else labels
    theirs = torch.arange(len(generated)) % classes if theirs is None else theirs
    return ProxySubject(
        info, ThreatModel(norm, eps), test[:8], labels[:8], test, labels, generated, theirs, **others
    )  # fmt: skip


# Transport


@pytest.mark.parametrize("norm", NORMS)
def test_a_shift_costs_its_length_however_the_images_are_spread(norm):
    """Moving everything by d costs |d|, and nothing can be cheaper: means differ by d."""
    first = drawn(40, spread=0.05)
    shift = torch.linspace(0.01, 0.1, 12).view(3, 2, 2)
    length = float(ThreatModel(norm, 0.0).length(shift[None])[0])
    cost = pairwise_distances(first.flatten(1), (first + shift).flatten(1)[torch.randperm(40)], norm).numpy()
    assert exact(cost).upper == pytest.approx(length, rel=1e-5)


def test_on_a_line_sorted_points_go_together():
    first, second = np.random.default_rng(0).random(50), np.random.default_rng(1).random(50) ** 2
    cost = np.abs(first[:, None] - second[None])
    assert exact(cost).upper == pytest.approx(np.abs(np.sort(first) - np.sort(second)).mean())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10_000))
def test_prices_are_allowed_and_prove_the_cost(count, seed):
    cost = np.random.default_rng(seed).integers(0, 8, (count, count)).astype(float)  # many ties
    found = exact(cost)
    assert (found.first[:, None] + found.second <= cost + 1e-9).all()
    assert found.first.mean() + found.second.mean() == pytest.approx(found.upper)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (20, 50), (50, 7), (1, 9)])
def test_what_pot_finds(n, m):
    ot = pytest.importorskip("ot")
    cost = np.random.default_rng(n).random((n, m))
    found = exact(cost)
    assert found.upper == pytest.approx(ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), cost))
    assert (found.first[:, None] + found.second <= cost + 1e-9).all()
    assert found.first.mean() + found.second.mean() == pytest.approx(found.upper)


def test_without_pot_unequal_numbers_are_one_clear_line_and_equal_ones_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    assert exact(np.ones((3, 3)) - np.eye(3)).upper == 0
    with pytest.raises(ValueError, match=r"of 3 to 5 images needs POT; run pip install robustgen\[pot\], or use equal"):
        exact(np.ones((3, 5)))


@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 90)])
def test_sinkhorns_two_ends_hold_the_cost_and_close_as_the_blur_falls(n, m):
    pytest.importorskip("ot")
    first, second = drawn(n, seed=1).flatten(1), (drawn(m, seed=2) + 0.05).flatten(1)
    cost = pairwise_distances(first, second, "l2").double().numpy()
    whole = exact(cost).upper
    gaps = []
    for blur in (0.1, 0.02, 0.005):
        found = sinkhorn(cost, blur=blur)
        assert found.lower <= whole + 1e-9 and found.upper >= whole - 1e-9
        assert (found.first[:, None] + found.second <= cost + 1e-9).all()
        gaps.append(found.upper - found.lower)
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.03 * whole


def test_sinkhorn_beside_pots():
    ot = pytest.importorskip("ot")
    cost = pairwise_distances(drawn(25, seed=1).flatten(1), drawn(25, seed=2).flatten(1), "l2").double().numpy()
    plan = ot.sinkhorn([1 / 25] * 25, [1 / 25] * 25, cost, 0.05 * cost.mean(), numItermax=5000)
    assert sinkhorn(cost, blur=0.05).upper == pytest.approx((plan * cost).sum(), rel=2e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_the_sliced_distance_is_a_lower_end(norm):
    first, second = drawn(40, seed=1).flatten(1), (drawn(40, seed=2) + 0.1).flatten(1)
    whole = exact(pairwise_distances(first, second, norm).numpy()).upper
    assert 0 < sliced(first, second, norm, 200, rng_for(0)) < whole


def test_the_sliced_distance_of_two_points_is_their_mean_shadow():
    """In R^3 a unit vector's mean shadow is 1/2. From (0, 0) to (1, 1), by integrals over the angle of the direction:
    linf: directions have sum 1, 1/2 + ln 2 / pi; l1: their largest entry is 1, the shadow 1 +- min/max, on average 1.
    """
    zero, one = torch.zeros(1, 3), torch.tensor([[0.6, 0.0, 0.8]])
    assert sliced(zero, one, "l2", 40_000, rng_for(0)) == pytest.approx(0.5, abs=0.01)
    origin, corner = torch.zeros(1, 2), torch.ones(1, 2)
    assert sliced(origin, corner, "linf", 40_000, rng_for(0)) == pytest.approx(0.5 + np.log(2) / np.pi, abs=0.01)
    assert sliced(origin, corner, "l1", 40_000, rng_for(0)) == pytest.approx(1, abs=0.015)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_on_a_line_unequal_numbers_are_what_scipy_finds(n, m, seed):
    from scipy.stats import wasserstein_distance

    rng = np.random.default_rng(seed)
    first, second = rng.random(n), rng.random(m)
    found = sliced(torch.from_numpy(first)[:, None], torch.from_numpy(second)[:, None], "l2", 1, rng_for(0))
    assert found == pytest.approx(wasserstein_distance(first, second))


@pytest.mark.parametrize("method", [*METHODS, "sliced"])
def test_generated_images_that_are_real_ones_moved_are_that_far(method):
    test = drawn(80, spread=0.05)
    shift = torch.full((3, 2, 2), 0.1)
    found = Transport(method=method)(subject_of(test, test + shift, classes=2))
    length = 0.1 * 12**0.5
    if method == "exact":
        assert found.cwd == pytest.approx(length, rel=1e-5)
        assert found.excess > 0.5 * length  # two halves of one sample are nearer
    assert found.lower.max() <= length * (1 + 1e-5)
    assert method == "sliced" or found.upper.min() >= length * (1 - 1e-5)
    assert found.distances.shape == (2,) and found.table().rows[-1][0] == "all" and found.summary


def test_small_samples_of_one_distribution_are_apart_and_the_table_says_how_far():
    """The bias of few images: it falls as they become more, and generated images of the same law have no excess."""
    apart = []
    for count in (40, 400):
        found = Transport()(subject_of(drawn(count, seed=1), drawn(count, seed=2)))
        assert abs(found.excess) < 0.2 * found.bias
        assert found.cwd < found.bias  # twice the images, less bias
        apart.append(found.cwd)
    assert apart[1] < 0.8 * apart[0]


def test_classes_are_kept_apart_and_weighed_by_the_real_shares():
    """Two classes at 0 and 1; generated ones exchanged: images match as a whole, within classes they are 1 apart."""
    test = torch.zeros(40, 1, 2, 2)
    labels = (torch.arange(40) >= 30).long()
    test[labels == 1] = 1
    generated, theirs = test.flip(0), 1 - labels.flip(0)
    found = Transport()(subject_of(test, generated, "linf", labels=labels, theirs=theirs))
    assert found.cwd == 1 and found.shares.tolist() == [0.75, 0.25]
    assert found.imbalance == 0.5
    assert any(
        "class frequencies differ by 50.0 points: both sets are weighted by those of the real" in f for f in found.flags
    )
    moved = generated.clone()
    moved[theirs == 0] = 0.25  # class 0 now a quarter away, class 1 still 1 away
    found = Transport()(subject_of(test, moved, "linf", labels=labels, theirs=theirs))
    assert found.cwd == pytest.approx(0.75 * 0.25 + 0.25 * 1)


def test_the_interval_is_what_new_samples_do():
    """Around a shift the cost of samples goes up and down with their means; so does the interval's width."""
    costs, widths = [], []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        first, second = (0.05 * torch.randn(100, 1, 1, 1, generator=generator) + at for at in (0.3, 0.7))
        found = Transport()(subject_of(first, second, classes=1))
        costs.append(found.cwd)
        widths.append(found.interval[1] - found.interval[0])
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(costs), rel=0.25)
    assert found.interval[0] < found.cwd < found.interval[1]


def test_unequal_numbers_are_taken_when_asked():
    pytest.importorskip("ot")
    found = Transport(all_generated=True)(subject_of(drawn(20), drawn(90, seed=3)))
    assert len(found.real) == 20 and len(found.generated) == 90
    few = Transport(per_class=6)(subject_of(drawn(20), drawn(90, seed=3)))
    assert len(few.real) == len(few.generated) == 12
    poor = Transport()(subject_of(drawn(20), drawn(6, seed=3)))
    assert len(poor.real) == len(poor.generated) == 6 and "only 3 real images of one class" in poor.flags[0]


# Robustness carried over


@pytest.mark.parametrize("norm", NORMS)
def test_minimal_distances_are_those_of_a_half_space(norm):
    model, images = Halfspace(), drawn(30, seed=1)
    labels = model(images).argmax(1)
    labels[::10] = 1 - labels[::10]  # wrong when clean: distance 0
    rng = rng_for(0).each(content_ids(images.numpy()))
    # One step of FAB lands 5 % beyond a plane; what is left is pulled in.
    found, broken = minimal_distances(model, images, labels, norm, rng, attack=FAB(1), fallback=APGD(10, margin))
    wanted = model.distance_to_boundary(images, labels, norm).clamp_min(0)
    assert broken.all() and (found[::10] == 0).all()
    assert (found >= wanted * (1 - 1e-4)).all() and (found <= wanted * 1.01 + 1e-5).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bisection_finds_the_distance_of_a_half_space(norm):
    model, images = Halfspace(), drawn(12, seed=1)
    labels = model(images).argmax(1)
    rng = rng_for(0).each(content_ids(images.numpy()))
    found, broken = by_bisection(model, images, labels, norm, PGD(20, until_fooled=True), rng, rounds=8)
    wanted = model.distance_to_boundary(images, labels, norm)
    assert broken.all() and (found >= wanted * (1 - 1e-4)).all()
    assert (found <= 1.03 * wanted + largest_distance(images, norm) / 2**7).all()


class Constant(nn.Module):
    def forward(self, images):
        return torch.stack([1 + 0 * images.sum((1, 2, 3)), 0 * images.sum((1, 2, 3))], 1)


def test_a_model_that_never_changes_its_mind_is_counted_at_the_largest_distance_and_said():
    test, generated = drawn(12), drawn(12, seed=1)
    found = Transfer(Transport())(subject_of(test, generated, model=Constant()))
    assert np.allclose(found.real_distance[found.real_label == 0], 12**0.5)
    assert (found.real_distance[found.real_label == 1] == 0).all()
    assert any("no adversarial example for 6 real and 6 generated images" in flag for flag in found.flags)
    assert found.gap == pytest.approx(0) and found.holds


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_transfer_bound_holds_and_is_reached_by_a_shift_along_the_normal(norm):
    """Two classes on both sides of a plane; images moved straight to it by s lose s of their distance: gap = cwd."""
    direction = torch.ones(3, 2, 2)

    class Plane(nn.Module):
        def forward(self, images):
            height = (images - 0.5).flatten(1).sum(1)
            return torch.stack([-height, height], 1)

    labels = torch.arange(60) % 2
    away = (2 * labels - 1).view(-1, 1, 1, 1) * direction
    generator = torch.Generator().manual_seed(0)
    noise = 0.03 * torch.randn(60, 3, 2, 2, generator=generator)
    test = 0.5 + 0.2 * away + noise
    step = 0.05
    subject = subject_of(test, test - step * away, norm, labels=labels, theirs=labels, model=Plane())
    found = Transfer(Transport())(subject)
    length = float(ThreatModel(norm, 0.0).length(step * direction[None])[0])
    assert found.cwd[1] == pytest.approx(length, rel=1e-4)
    assert found.gap == pytest.approx(length, rel=0.01) and found.holds
    assert found.gap_interval[0] < length < found.gap_interval[1] and found.flags == ()
    assert "at most the conditional Wasserstein distance" in found.summary and len(found.table().rows) == 5


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_transfer_bound_holds_for_every_classifier(seed):
    test, generated = drawn(16, seed=seed), drawn(30, seed=seed + 1, spread=0.2)
    labels = torch.randint(0, 2, (16,), generator=torch.Generator().manual_seed(seed))
    labels[:2] = torch.tensor([0, 1])
    subject = subject_of(test, generated, labels=labels, model=Halfspace(seed=seed))
    found = Transfer(Transport(), steps=10)(subject)
    assert found.holds and found.finished


def test_a_weak_attack_on_one_side_shows():
    test = drawn(40)
    found = Transfer(Transport())(subject_of(test, test.clone(), model=Halfspace()))
    assert found.gap == pytest.approx(0, abs=1e-6)
    weak = replace(found, generated_distance=found.generated_distance + 1)
    assert not weak.holds and "use a stronger attack" in weak.flags[0] and "MORE than" in weak.summary


def test_a_transfer_goes_on_where_it_stopped_and_takes_a_given_plan(tmp_path):
    subject = subject_of(drawn(24), drawn(24, seed=1), model=Halfspace())
    plan = Transport()(subject)
    whole = Transfer(Transport(), steps=5)(subject, path=tmp_path / "a.npz", plan=plan)
    half = TransferRecord.load(tmp_path / "a.npz")
    half.real_distance[5:] = np.nan
    half.generated_distance[:] = np.nan
    assert not half.finished
    half.save(tmp_path / "b.npz")
    again = Transfer(Transport(), steps=5)(subject, path=tmp_path / "b.npz", plan=plan, batch_size=7)
    assert np.array_equal(again.real_distance, whole.real_distance)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(ValueError, match="of other images or settings"):
        Transfer(Transport(), steps=5)(subject, seed=1, plan=plan)


# Conditions


class Nearest(nn.Module):
    """Labels an image by its mean grey: dark is 0, bright is 1."""

    def forward(self, images):
        grey = images.mean((1, 2, 3))
        return torch.stack([0.5 - grey, grey - 0.5], 1)


def grey(*levels):
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()


def test_the_conditions_on_greys_counted_by_hand():
    """Real: 0.10 0.12 0.14 0.45 (label 0), 0.9 0.925 0.94 (label 1), and 0.55, which is of label 0 but looks bright."""
    test = grey(0.10, 0.12, 0.14, 0.45, 0.90, 0.925, 0.94, 0.55)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0])
    # 0.11: in balls, right. 0.52: in the balls of 0.45 and 0.55, labelled 1: an attack. 0.70: in no ball. 0.90: a copy.
    generated = grey(0.11, 0.52, 0.70, 0.90)
    subject = subject_of(test, generated, "linf", 0.08, labels=labels, labeler=Nearest())
    found = Conditions(neighbors=1)(subject)
    assert found.right.tolist() == [True] * 7 + [False] and str(found.labeler_accuracy).startswith("87.5")
    assert found.in_ball.tolist() == [True, True, False, False]
    assert found.attacks.tolist() == [False, True, False, False] and found.copies == 1
    assert np.allclose(found.nearest_real, [0.01, 0.03, 0.15, 0], atol=1e-6)
    # Reach: the nearest other test image.
    assert np.allclose(found.reach, [0.02, 0.02, 0.02, 0.1, 0.025, 0.015, 0.015, 0.1], atol=1e-6)
    covered = found.nearest_generated <= found.reach
    assert covered.tolist() == [True, True, False, True, True, False, False, True]
    # 0.45 has label 0: the nearest generated one of that label is 0.11. 0.55 too.
    assert found.nearest_alike[3] == pytest.approx(0.34) and found.nearest_alike[7] == pytest.approx(0.44)
    assert found.within_eps.count == 6
    assert not found.clashes.any()
    assert len(found.table().rows) == 9
    # One of 4 images does not show more than 1 %: 1 - 0.99^4 = 0.039. Two of 8 do: 0.0027.
    wrong = "25.0 % of the generated images are within"
    assert not any(wrong in flag for flag in found.flags)
    assert any(wrong in flag for flag in replace(found, attacks=np.tile(found.attacks, 2)).flags)
    assert any("1 generated images are copies" in flag for flag in found.flags)


def test_the_setting_of_coverage_keeps_its_old_name_in_records_and_on_the_command_line():
    assert repr(Conditions(3)) == "Conditions(neighbours=3)"  # version 0.1 compares records by it
    assert find_proxy_analysis("conditions", ["neighbours=3"]) == Conditions(neighbors=3)
    assert find_proxy_analysis("conditions", ["neighbors=3"]) == Conditions(neighbors=3)


def test_real_images_that_clash_are_said():
    test, labels = grey(0.1, 0.15, 0.8, 0.9, 0.95, 0.99), torch.tensor([0, 1, 1, 1, 1, 1])
    found = Conditions(1)(subject_of(test, grey(0.4), "linf", 0.06, labels=labels, labeler=Nearest()))
    # Training images are the test images here, so each clash is seen from both.
    assert found.clashes.sum() == 4 and any("no classifier is robust on both" in flag for flag in found.flags)
    assert any("an attack rate of 0 is inconclusive" in flag for flag in found.flags)


def test_a_generator_that_forgot_a_mode_covers_less():
    test = torch.cat([drawn(60, seed=1), (drawn(60, seed=2) - 0.45).clamp(0, 1)])
    forgetful = drawn(120, seed=3)
    perfect = torch.cat([drawn(60, seed=4), (drawn(60, seed=5) - 0.45).clamp(0, 1)])
    labels = torch.arange(120) // 60
    one, other = (
        Conditions()(subject_of(test, images, labels=labels, labeler=Nearest())) for images in (forgetful, perfect)
    )
    assert one.coverage.value < 0.55 and other.coverage.value == pytest.approx(1 - 2**-5, abs=0.05)


# What all of them promise

ALL = {
    "transport": (Transport(), TransportRecord),
    "sinkhorn": (Transport(method="sinkhorn"), TransportRecord),
    "sliced": (Transport(method="sliced", projections=8), TransportRecord),
    "transfer": (Transfer(Transport(), steps=4), TransferRecord),
    "conditions": (Conditions(), ConditionsRecord),
}


@pytest.fixture(params=ALL)
def analysis(request):
    return ALL[request.param]


@pytest.fixture
def subject():
    return subject_of(drawn(30), drawn(50, seed=1), labeler=Halfspace(), model=Halfspace(seed=1))


def arrays(record):
    return {name: value for name, value in vars(record).items() if isinstance(value, np.ndarray)}


def test_records_are_kept_reused_and_refused_for_other_images(analysis, subject, tmp_path):
    measure, kind = analysis
    found = measure(subject, path=tmp_path / "a.npz")
    measure(subject, path=tmp_path / "b.npz", batch_size=7)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = kind.load(tmp_path / "a.npz")
    assert again.about == found.about and again.table() == found.table() and again.summary == found.summary
    for name, array in arrays(found).items():
        assert np.array_equal(array, arrays(again)[name], equal_nan=array.dtype.kind == "f"), name
    before = (tmp_path / "a.npz").stat().st_mtime_ns
    measure(subject, path=tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_mtime_ns == before
    other = replace(subject, generated=subject.generated.flip(0))
    with pytest.raises(ValueError, match=r"a record of another analysis \(made_for: stored .* remove it"):
        measure(other, path=tmp_path / "a.npz")
    with pytest.raises(ValueError, match="seed: stored 0, requested 1"):
        measure(subject, path=tmp_path / "a.npz", seed=1)


def test_records_of_another_kind_are_refused(tmp_path, subject):
    Transport()(subject, path=tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"expected a record of conditions in .*, got one of transport"):
        ConditionsRecord.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"expected a record of conditions in .*, but cannot read one"):
        ConditionsRecord.load(tmp_path / "b.npz")


def test_bytes_and_floats_are_the_same_images(subject):
    images = {name: to_bytes(getattr(subject, name)) for name in ("train", "test", "generated")}
    floats = {name: image.float() / 255 for name, image in images.items()}
    one, other = (Conditions()(replace(subject, **some)) for some in (images, floats))
    assert np.allclose(one.nearest_real, other.nearest_real) and np.array_equal(one.attacks, other.attacks)


def test_distances_in_blocks_are_the_same(subject, monkeypatch):
    whole = Conditions()(subject)
    monkeypatch.setattr(samples, "_BLOCK", 7)
    parts = Conditions()(subject)
    assert all(np.array_equal(a, arrays(parts)[name]) for name, a in arrays(whole).items())


@pytest.mark.parametrize(
    ("measure", "change", "message"),
    [
        (Transport(), {"generated": torch.rand(50, 3, 4, 4)}, r"generated images must be \(N, 3, 2, 2\)"),
        (Transport(), {"generated": 2 * torch.ones(50, 3, 2, 2)}, r"floats in \[0, 1\]"),
        (Transport(), {"generated": torch.empty(0, 3, 2, 2)}, "expected at least one generated image, got none"),
        (Transport(), {"generated_labels": torch.zeros(50)}, "one integer label each"),
        (Transport(), {"generated_labels": torch.full((50,), 2)}, r"labels must lie in 0..1, got 2 to 2"),
        (Transport(), {"generated_labels": torch.zeros(50, dtype=torch.int64)}, "no generated image has label b"),
        (Transfer(), {"model": None}, "needs a classifier, got none"),
        (Conditions(), {"labeler": None}, "the conditions need a labeler, got none"),
        (Conditions(30), {}, "more than 30 test images, got 30"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(measure, change, message, subject):
    with pytest.raises(ValueError, match=message):
        measure(replace(subject, **change))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Transport(method="emd"), "unknown method 'emd'; known: exact, sinkhorn, sliced"),
        (lambda: Transport(per_class=0), "per_class must be at least 1"),
        (lambda: Transfer(Transport(method="sliced")), "needs an upper bound"),
        (lambda: Conditions(0), "neighbors must be at least 1"),
    ],
)
def test_mistakes_in_settings_are_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_model_is_asked_row_by_row_alike():
    """Batch norms in training mode would make an image's distance depend on its neighbours."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)).train()
    subject = subject_of(drawn(20), drawn(20, seed=1), model=model)
    found = [Transfer(Transport(), steps=3)(subject, batch_size=size).real_distance for size in (3, 20)]
    assert np.array_equal(*found) and model.training and isinstance(BatchInvariant(model).model, nn.Module)
