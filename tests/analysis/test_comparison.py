"""Two runs on the same images: exact tests beside enumeration, and how many images would settle a difference."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustgen.records.comparison import Comparison, compare, compare_arms
from robustgen.records.verdicts import UNBROKEN, Verdicts
from robustgen.stats.intervals import PairedDifference
from robustgen.stats.paired import bootstrap_interval, images_needed, mcnemar, seeds_needed, smallest_difference


def difference(gained, lost, total=100):
    return PairedDifference(gained, lost, total)


def verdicts(robust, ids=None, suite="quick", threat="linf:0.1", made_for=""):
    count = len(robust)
    found = Verdicts.unjudged(suite, threat, ("clean", "pgd"), np.arange(count) if ids is None else ids, [0] * count, 3)
    found.clean_prediction[:] = 0
    found.fell_to[:] = np.where(robust, UNBROKEN, 1)
    found.faced[:] = 2
    found.made_for = made_for
    return found


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (7, 2), (2, 7), (4, 4), (12, 3)])
def test_mcnemars_p_is_the_share_of_coin_tosses_at_least_as_lopsided(gained, lost):
    disputed = gained + lost
    tosses = np.array([sum(toss) for toss in product((0, 1), repeat=disputed)])
    extreme = np.abs(2 * tosses - disputed) >= abs(gained - lost)
    assert mcnemar(difference(gained, lost)) == pytest.approx(extreme.mean())


@pytest.mark.parametrize(("gained", "lost", "total"), [(12, 5, 100), (0, 3, 40), (30, 30, 90)])
def test_the_bootstrap_is_what_many_resamplings_give(gained, lost, total):
    values = np.repeat([1, -1, 0], [gained, lost, total - gained - lost])
    means = np.random.default_rng(0).choice(values, (40_000, total)).mean(1)
    low, high = bootstrap_interval(difference(gained, lost, total))
    assert np.mean(means < low) <= 0.025 + 0.004 and np.mean(means <= low) >= 0.025 - 0.004
    assert np.mean(means < high) <= 0.975 + 0.004 and np.mean(means <= high) >= 0.975 - 0.004


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400))
def test_intervals_hold_the_difference_and_turn_with_it(gained, lost, same):
    there, back = difference(gained, lost, gained + lost + same), difference(lost, gained, gained + lost + same)
    if not there.total:
        assert math.isnan(bootstrap_interval(there)[0])
        return
    low, high = bootstrap_interval(there)
    assert -1 <= low <= there.value <= high <= 1
    # Percentiles of a lattice: turned over they move by one image at most.
    assert np.allclose(bootstrap_interval(back), (-high, -low), atol=1.01 / there.total)
    assert mcnemar(there) == mcnemar(back)


def power_of_mcnemar(images, gain, disputed):
    """Exact: sum over the number of disputed images, and how many of them are gained."""
    from scipy.stats import binom

    share, power = (disputed + gain) / 2 / disputed, 0.0
    for count in range(images + 1):
        chance = binom.pmf(count, images, disputed)
        if chance < 1e-9:
            continue
        gained = np.arange(count + 1)
        p = np.minimum(1, 2 * binom.cdf(np.minimum(gained, count - gained), count, 0.5))
        power += chance * binom.pmf(gained, count, share)[p < 0.05].sum()
    return power


@pytest.mark.parametrize(("gain", "disputed"), [(0.05, 0.1), (0.03, 0.06), (0.1, 0.3)])
def test_so_many_images_find_the_difference_four_times_of_five(gain, disputed):
    """The exact test is a little more careful than the normal approximation behind the formula."""
    power = power_of_mcnemar(images_needed(gain, disputed), gain, disputed)
    assert 0.74 < power < 0.82
    assert power_of_mcnemar(images_needed(gain, disputed) // 2, gain, disputed) < 0.6


def test_connors_formula_on_a_case_done_by_hand():
    # (1.95996 sqrt(0.1) + 0.84162 sqrt(0.1 - 0.0025))^2 / 0.0025 = (0.619795 + 0.262796)^2 / 0.0025
    assert images_needed(0.05, 0.1) == math.ceil((0.619795 + 0.262796) ** 2 / 0.0025)
    assert images_needed(-0.05, 0.1) == images_needed(0.05, 0.1)


def test_the_smallest_difference_needs_just_these_images():
    least = smallest_difference(500, 0.1)
    assert images_needed(least, 0.1) <= 500 < images_needed(least * 0.99, 0.1)
    assert smallest_difference(3, 0.1) == 0.1  # not even all disputed images on one side would be enough


def test_so_many_seeds_find_the_difference_four_times_of_five():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    for gain, spread in ((1.0, 1.0), (2.0, 1.0), (0.5, 0.2)):
        seeds = seeds_needed(gain, spread)
        first, second = rng.normal(0, spread, (20_000, seeds)), rng.normal(gain, spread, (20_000, seeds))
        power = (ttest_ind(first, second, axis=1).pvalue < 0.05).mean()
        assert power > 0.79 and (seeds == 2 or power < 0.93)
        if seeds > 2:
            fewer = (ttest_ind(first[:, 1:], second[:, 1:], axis=1).pvalue < 0.05).mean()
            assert fewer < 0.81
    assert seeds_needed(1, 1) == 17  # the textbooks' n per group for an effect of one deviation
    assert seeds_needed(0.1, 0) == 2


def test_images_are_paired_by_content_whatever_their_order():
    rng = np.random.default_rng(0)
    ids = rng.permutation(1000)[:60]
    ids[:4] = ids[4]  # images that occur more than once
    robust = rng.random((2, 60)) < 0.6
    straight = compare(verdicts(robust[0], ids), verdicts(robust[1], ids))
    order = np.r_[np.arange(5), 5 + rng.permutation(55)]
    turned = compare(verdicts(robust[0], ids), verdicts(robust[1][order], ids[order]))
    assert np.array_equal(straight.robust, turned.robust) and np.array_equal(straight.ids, np.sort(ids))
    assert straight.difference(straight.robust) == PairedDifference.of(robust[1], robust[0])


def test_images_of_one_alone_are_left_out_and_said():
    found = compare(verdicts([True] * 10, np.arange(10)), verdicts([False] * 8, np.arange(4, 12)))
    assert len(found) == 6 and found.left_out.tolist() == [4, 2]
    assert "the 6 images that both were evaluated on; 4 images of the first and 2 of the second" in found.flags[0]
    assert found.difference(found.robust).value == -1


def test_a_comparison_is_kept_and_shown(tmp_path):
    robust = np.arange(200) % 5 != 0
    better = robust | (np.arange(200) < 40)
    found = compare(verdicts(robust, made_for="a"), verdicts(better, made_for="b"), ("old", "new"))
    found.save(tmp_path / "a.npz")
    again = Comparison.load(tmp_path / "a.npz")
    assert again.table() == found.table() and again.made_for == ("a", "b") and again.names == ("old", "new")
    row = dict(zip(found.table().columns, found.table().rows[1], strict=True))
    assert row["old %"] == "80.0" and row["new %"] == "84.0" and row["difference"] == "+4.0"
    assert row["images"] == "+8 -0" and row["McNemar p"] == "0.0078"
    assert "robust accuracy of new minus that of old: +4.0 points" in found.summary
    assert found.summary.endswith("significant on 200 images") and "not significant" not in found.summary
    assert found.flags == ()
    np.savez(tmp_path / "b.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="expected a comparison in"):
        Comparison.load(tmp_path / "b.npz")


def test_the_same_classifier_twice_is_said():
    found = compare(verdicts([True] * 9, made_for="a"), verdicts([True] * 9, made_for="a"))
    assert found.flags == ("both are the same classifier",) and mcnemar(found.difference(found.robust)) == 1
    assert "not significant" in found.summary and found.table().rows[1][-2:] == ("", "")


def test_arms_are_compared_by_name():
    runs = {"real": verdicts([True, False]), "edm": verdicts([True, True])}, {"edm": verdicts([True, False])}
    assert list(compare_arms(*runs, ("a", "b"))) == ["edm"]
    with pytest.raises(ValueError, match="expected an evaluated arm in common, got real, edm of a and none of b"):
        compare_arms(runs[0], {}, ("a", "b"))


def test_what_cannot_be_compared_is_one_clear_line():
    whole = verdicts([True, False])
    with pytest.raises(ValueError, match=r"got quick, linf:0.1 for first and aa\+mt, linf:0.1 for second"):
        compare(whole, verdicts([True, False], suite="aa+mt"))
    with pytest.raises(ValueError, match="evaluate both in the same way"):
        compare(whole, verdicts([True, False], threat="linf:0.2"))
    with pytest.raises(ValueError, match="no test image in common"):
        compare(whole, verdicts([True, False], np.array([7, 8])))
    other = verdicts([True, False])
    other.labels[0] = 1
    with pytest.raises(ValueError, match="different labels"):
        compare(whole, other)
    unfinished = verdicts([True, False])
    unfinished.faced[0] = 0
    with pytest.raises(ValueError, match="the evaluation of second is not finished"):
        compare(whole, unfinished)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: images_needed(0, 0.1), "must be finite and non-zero, got 0"),
        (lambda: images_needed(0.2, 0.1), "must be at least the difference, 0.2, and at most 1, got 0.1"),
        (lambda: images_needed(0.1, 0.2, power=1.0), "0 < level < power < 1"),
        (lambda: seeds_needed(0.1, -1), "deviation over seeds"),
        (lambda: smallest_difference(0, 0.1), "at least 1 image"),
    ],
)
def test_impossible_questions_are_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
