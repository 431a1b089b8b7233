"""The share of a gap that is closed: cases solved on paper, and the section of the report."""

import importlib.util
import math

import numpy as np
import pytest
from small_study import write_run
from test_report import recipe_of

from conftest import REPOSITORY
from robustgen.config.recipe import Arm
from robustgen.planning.costs import cost_of, cost_of_arm, forward_of
from robustgen.recipes import RECIPES
from robustgen.report import gap
from robustgen.report.page import write_report
from robustgen.report.study_page import figures_of, write_reports
from robustgen.report.study_summary import read_study
from robustgen.report.tables import read_results
from robustgen.stats.gap import GapClosed, gap_closed


def right_on(*counts, images=400):
    """(S, N): the first `counts[s]` images of each seed."""
    return np.arange(images) < np.array(counts)[:, None]


def test_half_a_gap_is_half_and_the_ends_are_certain():
    low, high = right_on(80), right_on(240)
    half = gap_closed(right_on(160), low, high)
    assert half.value == 0.5 and half.gain == 0.2 and half.gap == 0.4 and half.known
    whole, none = gap_closed(high, low, high), gap_closed(low, low, high)
    assert whole.value == 1 and whole.interval == (1, 1) and none.value == 0 and none.interval == (0, 0)
    assert gap_closed(right_on(40), low, high).value == pytest.approx(-0.25)
    assert gap_closed(right_on(320), low, high).value == pytest.approx(1.5)


def test_the_interval_is_that_of_a_share_of_the_images_in_the_gap():
    """Right on 40 of the 100 images between the two: a binomial share, 1.96 sqrt(0.4 0.6 / 100) = 0.096 around 0.4."""
    found = gap_closed(right_on(140), right_on(100), right_on(200))
    assert found.interval == pytest.approx((0.4 - 0.096, 0.4 + 0.096), abs=0.012)
    # 100 of 400: 1.96 sqrt(0.25 0.75 / 400) = 0.042
    assert found.gap_interval == pytest.approx((0.25 - 0.042, 0.25 + 0.042), abs=0.006)


def test_images_are_paired():
    """The same accuracies on other images: 60 gained and 20 lost instead of 40 gained give a wider interval."""
    low, high = right_on(100), right_on(200)
    other = low.copy()
    other[0, :20], other[0, 200:260] = False, True
    paired, apart = gap_closed(right_on(140), low, high), gap_closed(other, low, high)
    assert paired.value == apart.value == 0.4
    assert np.diff(apart.interval) > 1.5 * np.diff(paired.interval)


def test_no_share_is_given_of_a_gap_that_may_be_none():
    found = gap_closed(right_on(104), right_on(100), right_on(102))
    assert not found.known and math.isnan(found.value) and found.gap == pytest.approx(0.005)
    assert not gap_closed(right_on(90), right_on(100), right_on(60)).known


def test_several_seeds_are_averaged_before_they_are_divided_and_widen_the_interval():
    low, high = right_on(100, 100), right_on(200, 300)
    found = gap_closed(right_on(150, 200), low, high)
    assert found.value == pytest.approx((50 + 100) / (100 + 200))
    apart = gap_closed(right_on(120, 180), low, right_on(200, 200))
    assert apart.value == 0.5 and apart.interval[0] < 0.25 and apart.interval[1] > 0.75
    with pytest.raises(ValueError, match=r"three arrays \(S, N\)"):
        gap_closed(right_on(1), low, high)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gap")
    arms = {"real": Arm(), "all": Arm(train_images="all"), "more": Arm(train_images=500), "edm": Arm(proxy="edm")}
    accuracies = {"real": 0.35, "all": 0.7, "more": 0.6, "edm": 0.5}
    found = []
    for seed in (0, 1):
        recipe = recipe_of(seed).model_copy(update={"arms": arms, "certification": None})
        found.append(write_run(folder / f"seed-{seed}", recipe, accuracies, seed == 0))
    return found


def test_the_report_says_what_closes_the_gap(runs):
    one = read_study([read_results(runs[0])])
    assert gap.upper_arm(one) == "all"
    section = gap.gap_section(one)
    verdicts = one.results[0].verdicts
    share = gap_closed(*(verdicts[arm].robust[None] for arm in ("edm", "real", "all")))
    row = next(row for row in section["table"].rows if row[0] == "real + edm")
    assert row[4] == f"{100 * share.value:.1f}" and 10 < float(row[4]) < 80
    gap_of_both, *shares = section["sentences"]
    assert f"real + edm: closes {row[4]} % ({row[5]}) of the gap." in shares
    assert gap_of_both.startswith('The gap between "real only" (') and section["first"] == [gap_of_both, *shares[:2]]
    assert section["title"].endswith(" % of the gap between real only and all real images")
    assert "500 real images" in "".join(section["sentences"]) and "of the gap (" in section["svg"]
    page = write_report(runs[0]).read_text()
    assert "The gap to more real images" in page and f"<h1>{section['title']}</h1>" in page and shares[0] in page
    assert "does not cover the variance between training runs" in page
    costs = {name: cells for name, *cells in section["costs"].rows}
    assert costs["real only"][1:4] == ["", "", ""] and costs["real only"][0] == costs["real only"][4]
    assert costs["real + edm"][0] == costs["real only"][0] and costs["real + edm"][1]


def test_a_share_below_or_around_nothing_is_said_in_words(runs):
    study = read_study([read_results(runs[0])])
    gained = GapClosed(0.02, 0.05, (0.1, 0.7), (0.03, 0.07))
    lost = GapClosed(-0.01, 0.05, (-0.4, -0.1), (0.03, 0.07))
    unsure = GapClosed(0.005, 0.05, (-0.1, 0.3), (0.03, 0.07))
    assert gap.share_sentences(study, {"edm": gained})["edm"] == "real + edm: closes 40.0 % (10.0 to 70.0) of the gap."
    below = 'it is 1.0 points below "real only" (-20.0 % of the gap, -40.0 to -10.0).'
    assert gap.share_sentences(study, {"edm": lost})["edm"] == f"real + edm: closes nothing of the gap: {below}"
    assert gap.share_sentences(study, {"edm": unsure})["edm"] == (
        "real + edm: closes no significant part of the gap: 10.0 % (-10.0 to 30.0)."
    )
    between = "the gap between real only and all real images"
    assert gap.gap_title(study, "all", {"edm": gained, "more": unsure}) == f"real + edm closes 40 % of {between}"
    assert (
        gap.gap_title(study, "all", {"edm": lost, "more": unsure}) == f"No arm closes a significant part of {between}"
    )
    unknown = gap_closed(right_on(104), right_on(100), right_on(102))
    assert gap.gap_title(study, "all", {"edm": unknown}) is None and gap.gap_title(study, "all", {}) is None
    assert gap.share_sentences(study, {"edm": unknown}) == {}


def test_a_loss_is_told_first_too():
    found = {str(k): GapClosed(k / 100, 0.05, ((k - 1) / 5, (k + 1) / 5), (0.03, 0.07)) for k in (1, 3, -2, 2)}
    assert gap._told_first(found) == ["3", "-2"]
    del found["-2"]
    assert gap._told_first(found) == ["3", "2"] and gap._told_first({}) == []


def test_the_page_of_several_seeds_has_one_figure_of_the_gap(runs):
    into = runs[0].root.parent / "report.html"
    page = write_reports([run.root for run in runs], into, "robustgen report").read_text()
    assert "with two or three seeds it is too narrow" in page
    assert "gap" in figures_of(read_study([read_results(run) for run in runs]))


def test_documents_have_the_tables_of_the_gap(runs):
    spec = importlib.util.spec_from_file_location("make_study", REPOSITORY / "docs" / "make_study.py")
    make_study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_study)
    study = read_study([read_results(run) for run in runs])
    section = gap.gap_section(study)
    assert make_study.table_of(study, "gap", []) == section["table"]
    assert make_study.table_of(study, "costs", ["edm"]).rows == (section["costs"].rows[-1],)


def test_without_more_real_images_there_is_no_gap(runs):
    results = read_results(runs[0])
    few = {arm: verdicts for arm, verdicts in results.verdicts.items() if arm in ("real", "edm")}
    assert gap.gap_section(read_study([type(results)(results.run, results.recipe, few, results.chosen)])) is None


@pytest.mark.parametrize(
    ("train", "counts", "upper"),
    [
        (100, {"real": None, "more": 500, "all": "all"}, "all"),
        (100, {"real": None, "fewer": 50, "more": 500}, "more"),
        (100, {"real": None, "fewer": 50, "same": 100}, None),
        (None, {"real": None, "fewer": 50}, None),
        (None, {"real": None, "all": "all"}, None),
        (100, {"fewer": 50, "all": "all"}, "all"),
        (100, {"all": "all", "fewer": 50}, None),  # the first arm is the baseline
    ],
)
def test_the_upper_end_of_the_gap_has_more_real_images_than_the_baseline(runs, train, counts, upper):
    results = read_results(runs[0])
    arms = {name: Arm(train_images=count).to_json() for name, count in counts.items()}
    recipe = {**results.recipe, "arms": arms, "data": {**results.recipe["data"], "train": train}}
    verdicts = dict.fromkeys(arms, results.verdicts["real"])
    study = read_study([type(results)(results.run, recipe, verdicts, results.chosen)])
    assert gap.upper_arm(study) == upper


def test_arms_cost_what_they_need_alone():
    recipe = RECIPES["cifar10-5k-cpu"]
    real, edm, most = (cost_of_arm(recipe, recipe.arms[arm]) for arm in ("real", "edm", "all"))
    assert real == most and real.fit == real.sample == 0
    seen = recipe.train.schedule.total_images * 5 + 10 * 1000 * 21  # N-FGSM is 5 passes; 10 validations of 10 steps
    assert real.flops == pytest.approx(seen * forward_of("wrn-16-2"))
    evaluation = recipe.generators["edm"].evaluation_flops(32)
    assert edm.fit == 3 * evaluation * recipe.generators["edm"].total_images
    assert edm.sample == 40_000 * 10 * evaluation
    assert cost_of(recipe).fit == edm.fit
