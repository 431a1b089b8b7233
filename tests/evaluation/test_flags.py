"""Red flags about accuracies and shares: raised when the number of images shows a difference, and only then."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest
import torch

from robustgen.evaluation.cascade import times_file
from robustgen.evaluation.checks import flags_after, flags_of
from robustgen.records.record import BROKEN, ROBUST, About
from robustgen.records.sweeps import RadiusSweepRecord, StepSweepRecord
from robustgen.records.verdicts import UNBROKEN, Verdicts
from robustgen.stages.evaluate import merge_parts
from robustgen.stats.exact import FLAG_LEVEL, shows_gain, shows_less, shows_more, shows_other
from robustgen.stats.intervals import PairedDifference, Proportion
from robustgen.storage.files import write_json


def test_tests_agree_with_sums_on_paper():
    assert FLAG_LEVEL == 0.01
    # 4 of 40 gained and none lost: 2 / 2^4 = 0.125. 7 of 7: 2 / 2^7 = 0.016. 8 of 8: 0.0078.
    assert [shows_gain(PairedDifference(n, 0, 40)) for n in (4, 7, 8)] == [False, False, True]
    assert not shows_gain(PairedDifference(0, 8, 40)) and not shows_gain(PairedDifference(0, 0, 0))
    # One image of 40 above a share of 0.2 %: 1 - 0.998^40 = 0.077. Two: 0.003.
    two = 1 - 0.998**40 - 40 * 0.002 * 0.998**39
    assert two < 0.01 and [shows_more(Proportion(n, 40), 0.002) for n in (1, 2)] == [False, True]
    # No image of N below a half, two-sided: 2 / 2^N.
    assert [shows_less(Proportion(0, n), 0.5) for n in (7, 8)] == [False, True]
    assert 2 * sum(comb(20, k) for k in range(4)) / 2**20 < 0.01 < 2 * sum(comb(20, k) for k in range(5)) / 2**20
    assert [shows_less(Proportion(n, 20), 0.5) for n in (3, 4)] == [True, False]
    # Two sets of 4 that share nothing: 2 of the 70 tables are as extreme, 0.029; of 5: 2 of 252, 0.0079.
    assert [shows_other(Proportion(0, n), Proportion(n, n)) for n in (4, 5)] == [False, True]
    assert not shows_other(Proportion(0, 0), Proportion(5, 5))
    assert not shows_more(Proportion(0, 0), 0.5) and not shows_less(Proportion(0, 0), 0.5)


@pytest.mark.parametrize(
    ("count", "asis", "undone", "flagged"),
    [
        (40, 0, 4, False),  # 0 % against 10 %: the flag that cried
        (40, 0, 12, True),
        (40, 20, 27, False),  # 17 points, and 2 / 2^7 = 0.016
        (40, 20, 28, True),
        (200, 0, 20, False),  # sure to differ, and no better than always the same class
        (200, 100, 115, False),  # sure to differ, and less than 10 points
        (200, 100, 121, True),
    ],
)
def test_normalization_is_flagged_by_mcnemars_test(count, asis, undone, flagged):
    images, labels = torch.rand(count, 1, 4, 4), torch.arange(count) % 10

    def model(x):
        """Right on the first images of a batch; undoing the normalization is known by its small deviation."""
        right = undone if x.std() < 0.2 else asis
        answers = (labels[: len(x)] + (torch.arange(len(x)) >= right)) % 10
        return torch.nn.functional.one_hot(answers, 10) + 0 * x.flatten(1)[:, :1]

    with torch.no_grad():
        logits = model(images)
    found = flags_of(model, images, labels, logits)
    assert any(flag.startswith("normalised-twice") for flag in found) == flagged, found


def verdicts_of(count, *, right=0, classes=10, square=0, rejected=0, flat=0):
    verdicts = Verdicts.unjudged("s", "t", ("clean", "apgd", "square"), np.arange(count), np.zeros(count), classes)
    verdicts.clean_prediction = np.where(np.arange(count) < right, 0, 1)
    verdicts.fell_to = np.where(np.arange(count) < right, UNBROKEN, 0).astype(np.int16)
    verdicts.fell_to[:square] = 2
    verdicts.rejected[1], verdicts.flat[1] = rejected, (flat, count)
    return verdicts


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        # near-chance: below 15 %, and the images show that it is below 30 %, three times chance
        ({"count": 8, "right": 0}, None),
        ({"count": 40, "right": 4}, "near-chance"),
        ({"count": 40, "right": 6}, None),
        ({"count": 10_000, "right": 1499}, "near-chance"),
        ({"count": 10_000, "right": 1500}, None),
        ({"count": 100, "right": 60, "classes": 2}, "near-chance"),
        ({"count": 100, "right": 70, "classes": 2}, None),
        # black-box-better: more than 0.2 %
        ({"count": 64, "right": 64, "square": 1}, None),
        ({"count": 64, "right": 64, "square": 2}, "black-box-better"),
        ({"count": 1000, "right": 1000, "square": 3}, None),
        ({"count": 1000, "right": 1000, "square": 8}, "black-box-better"),
        # refused-successes: more than 1 %
        ({"count": 100, "right": 100, "rejected": 3}, None),
        ({"count": 100, "right": 100, "rejected": 5}, "refused-successes"),
        ({"count": 100, "right": 100, "rejected": 500}, "refused-successes"),
        # zero-gradients: more than 10 %
        ({"count": 8, "right": 8, "flat": 2}, None),
        ({"count": 8, "right": 8, "flat": 4}, "zero-gradients"),
        ({"count": 100, "right": 100, "flat": 15}, None),
        ({"count": 100, "right": 100, "flat": 20}, "zero-gradients"),
    ],
)
def test_flags_of_a_finished_evaluation(settings, name):
    found = {flag.partition(":")[0] for flag in flags_after(verdicts_of(**settings))}
    assert found == ({name} if name else set())


def sweep(kind, columns, values, **more):
    count = len(columns[0])
    return kind(
        about=About("x", "linf:0.1", 0),
        ids=np.arange(count),
        labels=np.zeros(count, dtype=np.int64),
        values=np.array(values),
        right=np.ones(count, dtype=bool),
        stands=np.stack(columns, 1),
        margin=np.zeros((count, len(columns)), dtype=np.float32),
        **more,
    )


def standing(count, total=100):
    return np.where(np.arange(total) < count, ROBUST, BROKEN).astype(np.int8)


@pytest.mark.parametrize(("rises", "flagged"), [(6, False), (7, False), (8, True)])
def test_a_rise_over_the_radius(rises, flagged):
    found = sweep(RadiusSweepRecord, [standing(20), standing(20 + rises)], [0.1, 0.2], grey=np.array(0.5))
    assert bool(found.flags) == flagged


@pytest.mark.parametrize(("last", "flagged"), [(3, False), (4, False), (5, True)])
def test_standing_where_nothing_may_stand(last, flagged):
    """3 of 100 above 1 %: 0.079; 4: 0.018; 5: 0.0034."""
    found = sweep(RadiusSweepRecord, [standing(50), standing(last)], [0.1, 0.5], grey=np.array(0.5))
    assert bool(found.flags) == flagged


@pytest.mark.parametrize(("falls", "flagged"), [(7, False), (8, True)])
def test_steps_that_have_not_converged(falls, flagged):
    found = sweep(StepSweepRecord, [standing(50), standing(50 - falls)], [10, 20])
    assert bool(found.flags) == flagged
    assert replace(found, stands=found.stands[:, :1], values=found.values[:1]).flags == ()


def test_red_flags_of_several_processes_are_those_of_all_images(tmp_path):
    """One share is all wrong, and near chance alone; together they are not."""
    parts = [tmp_path / f"part-{number}.npz" for number in range(2)]
    for number, path in enumerate(parts):
        labels = np.zeros(20, dtype=np.int64)
        part = Verdicts.unjudged("quick", "linf:0", ("clean",), np.arange(20), labels, 4)
        part.clean_prediction[:] = 1 - number
        part.flags = ("nan-logits: some", *flags_after(part))
        part.save(path)
        write_json(times_file(path), {})
    assert any(flag.startswith("near-chance") for flag in Verdicts.load(parts[0]).flags)
    merge_parts(tmp_path / "whole.npz", parts)
    assert Verdicts.load(tmp_path / "whole.npz").flags == ("nan-logits: some",)
