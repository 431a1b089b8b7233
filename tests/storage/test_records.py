import numpy as np
import pytest
from scipy.stats import binomtest

from robustgen.records.history import History
from robustgen.records.tables import Table
from robustgen.records.verdicts import UNBROKEN, Verdicts
from robustgen.stats.intervals import PairedDifference, Proportion
from robustgen.storage.arrays import load_arrays, save_arrays


@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (3, 10), (581, 797)])
def test_intervals_are_wilsons(count, total):
    expected = binomtest(count, total).proportion_ci(method="wilson")
    assert Proportion(count, total).interval == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_paired_differences_count_discordant_images():
    first, second = np.array([1, 1, 1, 0, 0, 1], bool), np.array([1, 0, 0, 1, 0, 1], bool)
    difference = PairedDifference.of(first, second)
    assert (difference.gained, difference.lost, difference.value) == (2, 1, pytest.approx(1 / 6))
    swapped = PairedDifference.of(second, first)
    assert swapped.interval == pytest.approx(tuple(-end for end in reversed(difference.interval)))
    with pytest.raises(ValueError, match="two arrays over the same images"):
        PairedDifference.of(first, second[:3])


def test_paired_intervals_cover_the_truth():
    """Of many experiments with a known difference about 95 % must cover it."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        gained, lost, _ = rng.multinomial(300, [0.12, 0.06, 0.82])
        low, high = PairedDifference(gained, lost, 300).interval
        covered += low <= 0.06 <= high
    assert 930 <= covered <= 975


def verdicts(count=6):
    return Verdicts.unjudged("suite", "linf:0.1", ("clean", "a", "b"), np.arange(count), np.zeros(count, int), 3)


def test_verdicts_are_result_active_set_and_state_at_once():
    v = verdicts()
    v.clean_prediction[:] = [0, 0, 0, 0, 0, 1]
    v.fell_to[5], v.faced[:] = 0, 1
    assert v.entrants(1, 0).tolist() == [0, 1, 2, 3, 4]
    v.fell_to[[1, 2]] = 1
    v.runs_faced[[0, 3]] = 1
    assert v.entrants(1, 0).tolist() == [4] and v.entrants(1, 1).tolist() == [0, 3]
    v.runs_faced[:] = 1
    v.pass_on(1)
    assert v.entrants(2, 0).tolist() == [0, 3, 4] and not v.finished
    v.pass_on(2)
    assert v.finished
    assert v.robust.tolist() == [True, False, False, True, True, False]
    assert [v.robust_after(k).count for k in range(3)] == [5, 3, 3]
    assert (v.clean_accuracy.count, v.robust_accuracy.count) == (5, 3)


def test_verdicts_survive_the_disk_bit_for_bit(tmp_path):
    v = verdicts()
    v.fell_to[2], v.distance[2], v.flags = 1, 0.5, ("a flag",)
    v.save(tmp_path / "v.npz")
    found = Verdicts.load(tmp_path / "v.npz")
    found.save(tmp_path / "again.npz")
    assert (tmp_path / "v.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert found.flags == v.flags and found.attacks == v.attacks and (found.fell_to == UNBROKEN).sum() == 5


def test_history_grows_by_rows_and_survives_the_disk(tmp_path):
    history = History()
    history.add(step=1, loss=2.0)
    history.add(step=2, loss=1.5)
    with pytest.raises(ValueError, match="expected columns"):
        history.add(step=3)
    history.save(tmp_path / "h.npz")
    found = History.load(tmp_path / "h.npz")
    assert found["loss"].tolist() == [2.0, 1.5] and len(found) == 2


@pytest.mark.parametrize("damage", ["missing", "cut", "text", "pickle"])
def test_damaged_arrays_are_one_clear_line(tmp_path, damage):
    path = tmp_path / "x.npz"
    if damage == "cut":
        save_arrays(path, {"a": np.arange(1000)})
        path.write_bytes(path.read_bytes()[:700])
    elif damage == "text":
        path.write_text("not an archive")
    elif damage == "pickle":
        np.savez(path, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"x\.npz"):
        load_arrays(path)


def test_tables_are_markdown_and_rectangular():
    table = Table(("a", "b"), (("1", "2"),))
    assert table.markdown() == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    with pytest.raises(ValueError, match="expected 2 cells in every row, got 1"):
        Table(("a", "b"), (("1",),))
