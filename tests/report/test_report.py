"""Pages of one run and of several: what they say, and that a browser shows it."""

import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from browser import WORDS_OF_THE_NETWORK, shown
from small_study import CLASSES, write_run

from conftest import REPOSITORY
from robustgen.config.generators import GaussianConfig
from robustgen.config.loading import from_content
from robustgen.config.recipe import Arm, Reported
from robustgen.recipes import find_recipe
from robustgen.records.tables import Table
from robustgen.records.verdicts import UNBROKEN, Verdicts, adversarial_file
from robustgen.report import by_class as mistakes
from robustgen.report import study_certificates
from robustgen.report.generators import generators_table, neighbors_figure, read_qualities
from robustgen.report.page import render_run, write_report
from robustgen.report.study_page import run_names, write_reports
from robustgen.report.study_summary import (
    arms_table,
    by_real_share,
    curves,
    grouped,
    measured,
    overfitting_table,
    read_study,
    seeds_table,
    study_sentences,
)
from robustgen.report.tables import latex, mentioned_arms, name_of, read_results, reported_table, shortened
from robustgen.storage.files import read_json, write_json
from robustgen.storage.run_folder import RunDir

SMOOTHED = ("loss=stability", "schedule.total_images=61440")

ARMS = {
    "real": Arm(),
    "gaussian": Arm(proxy="gaussian"),
    "edm": Arm(proxy="edm"),
    "ect": Arm(proxy="ect"),
    "edm-0.1": Arm(proxy="edm", changes=("real_share=0.1",)),
    "edm-0.9": Arm(proxy="edm", changes=("real_share=9/10",)),
    "real-raw": Arm(changes=("averaging=0",)),
    "edm-score": Arm(proxy="edm", changes=("loss=plain", "real_share=0")),
    "real-smoothed": Arm(changes=SMOOTHED),
    "edm-smoothed": Arm(proxy="edm", changes=SMOOTHED),
}
ROBUST = {"real": 0.5, "gaussian": 0.53, "edm": 0.6, "ect": 0.65, "edm-0.1": 0.58, "edm-0.9": 0.55, "real-raw": 0.45}
ROBUST |= {"edm-score": 0.1, "real-smoothed": 0.3, "edm-smoothed": 0.4}


def recipe_of(seed):
    study = find_recipe(str(REPOSITORY / "docs/study/digits-study/recipe.yaml"))
    kept = dict.fromkeys(("gaussian", "edm", "ect"), study.generators["gaussian"])
    assert all(isinstance(fit, GaussianConfig) for fit in kept.values())
    plain = study.sampling.model_copy(update={"special": {}})
    changes = {"seed": seed, "seeds": (), "arms": ARMS, "generators": kept, "sampling": plain}
    changes["certification"] = study.certification.model_copy(update={"arms": ("real-smoothed", "edm-smoothed")})
    return from_content(study.model_copy(update=changes).to_json(), "test")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds; better by a point a seed."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(
            folder / f"seed-{seed}", recipe_of(seed), {arm: v + seed / 100 for arm, v in ROBUST.items()}, seed == 0
        )
        for seed in (0, 1, 2)
    ]


@pytest.fixture(scope="module")
def study(runs):
    return read_study([read_results(run) for run in runs])


@pytest.fixture(scope="module")
def page(runs):
    """The page of all three, and the page of the first."""
    folder = runs[0].root.parent
    write_reports([run.root for run in runs], folder / "report.html", "robustgen report")
    write_report(runs[0])
    return folder / "report.html", runs[0].report


def test_gains_are_paired_within_each_seed_and_averaged(study, runs):
    gains, robust = [], []
    for run in runs:
        edm, real = (Verdicts.load(run.verdicts(arm, "swift")).robust for arm in ("edm", "real"))
        gains.append(edm.mean() - real.mean())
        robust.append(edm.mean())
    mean, half = np.mean(gains), 4.302652730 * np.std(gains, ddof=1) / np.sqrt(3)
    row = next(row for row in arms_table(study).rows if row[0] == "real + edm")
    assert row[1:2] + row[3:5] == ("3", f"{100 * np.mean(robust):.1f}", f"{100 * np.std(robust, ddof=1):.1f}")
    assert row[5:] == (
        f"{100 * min(robust):.1f} to {100 * max(robust):.1f}",
        f"{100 * mean:+.1f}",
        f"{100 * (mean - half):+.1f} to {100 * (mean + half):+.1f}",
    )
    assert arms_table(study).rows[0][0] == "real only" and arms_table(study).rows[0][6:] == ("", "")
    assert seeds_table(study).columns == ("robust %", "seed 0", "seed 1", "seed 2")


def test_other_recipes_or_equal_seeds_are_no_study(runs):
    results = [read_results(run) for run in runs]
    other = {**results[1].recipe, "threat": {"norm": "linf", "eps": 0.1}}
    assert read_study([results[0], type(results[1])(results[1].run, other, results[1].verdicts, {})]) is None
    assert read_study([results[0], results[0]]) is None
    assert list(read_study(results[::-1]).results) == [0, 1, 2]


def test_the_share_of_real_images_is_read_from_the_arms_and_the_recipe(study):
    found = by_real_share(study)
    assert list(found) == ["edm"] and list(found["edm"]) == [0.1, 0.3, 0.9]
    assert found["edm"][0.3] == study.robust("edm")


def test_curves_are_those_of_every_seed_grouped_by_what_arms_change(study):
    found = curves(study)
    assert found["real + edm"].raw.shape == (3, 8)
    assert (
        len(found) == len(ARMS) - 3
    )  # what smoothed classifiers are validated by is another accuracy, standard ones have none
    groups = grouped(study, found)
    assert [len(group) for group in groups] == [5, 2] and "real only, averaging=0" in groups[0]
    row = dict(zip(*(overfitting_table(found).columns, overfitting_table(found).rows[0]), strict=True))
    one = found["real only"].raw
    assert row["raw drop"] == f"{100 * (one.max(1) - one[:, -1]).mean():.1f}"


def test_certificates_are_averaged_over_seeds_and_paired(study):
    """A share r of the images certified, evenly to radius 2 r: the average radius is r^2."""
    found = study_certificates.certificates_section(study)
    columns, (real, edm) = found["table"].columns, found["table"].rows
    assert columns[:3] == ("training images", "r 0", "r 0.125") and columns[-2:] == ("ACR", "gain at 0.25, 95 %")
    shares = {base: [base + seed / 100 for seed in (0, 1, 2)] for base in (0.3, 0.4)}
    assert (real[1], edm[1]) == ("31.0", "41.0") and real[-1] == ""
    assert float(edm[-2].split()[0]) == pytest.approx(np.mean([share**2 for share in shares[0.4]]), abs=2e-3)
    within = {base: [share * (1 - 0.125 / share) for share in each] for base, each in shares.items()}
    assert edm[-1].split()[0] == f"{100 * (np.mean(within[0.4]) - np.mean(within[0.3])):+.1f}"
    assert found["svg"].startswith("<svg") and found["count"] == 400
    assert (
        study_certificates.certificates_section(read_study([_uncertified(run) for run in study.results.values()]))
        is None
    )


def test_a_study_of_training_under_noise_begins_with_certificates(tmp_path):
    """Shares 0.3 and 0.4 are certified, evenly to radius 2 r; the attacked network is not what was trained for."""
    arms = {"real": Arm(), "edm": Arm(proxy="edm")}
    for seed in (0, 1):
        recipe = find_recipe("digits-certified").model_copy(update={"seed": seed, "seeds": (), "arms": arms})
        write_run(tmp_path / f"seed-{seed}", recipe, {"real": 0.3, "edm": 0.4})
    folders = [tmp_path / f"seed-{seed}" for seed in (0, 1)]
    study = read_study([read_results(RunDir(folder)) for folder in folders])
    found = study_certificates.certificates_section(study)
    cell = found["table"].rows[1][-1]
    at = "certified accuracy at l2 radius 0.25, on average over 2 seeds."
    assert found["sentences"][0].startswith("real only, smoothed: ") and found["sentences"][0].endswith(f" % {at}")
    assert found["sentences"][1].startswith("real + edm, smoothed: ")
    assert cell.replace(" (", " points (") in found["sentences"][1]
    page = write_reports(folders, tmp_path / "report.html", "robustgen report").read_text()
    assert "<h1>digits-certified</h1>" in page and "stability at sigma 0.25; seeds 0, 1" in page
    caption = "Certified accuracy over the l2 radius: lines"
    assert page.count(caption) == 1 and page.index(caption) < page.index(">Results</h2>")
    assert page.index('<p class="answer">real only, smoothed: ') < page.index(">Results</h2>")
    alone = Arm(proxy="edm")
    one = write_run(tmp_path / "one", recipe.model_copy(update={"arms": {"edm": alone}}), {"edm": 0.4})
    assert '<p class="answer">real + edm, smoothed: average certified radius 0.' in write_report(one).read_text()


def _uncertified(run):
    return type(run)(run.run, run.recipe, run.verdicts, run.chosen)


def test_a_classifier_of_generated_images_alone_gives_their_accuracy_score(study, runs):
    assert study.name("edm-score") == "edm only, loss=plain"
    found = measured(study)
    clean = [Verdicts.load(run.verdicts("edm-score", "swift")).clean_accuracy.value for run in runs]
    assert found.measures["CAS"][:, 1].tolist() == clean and np.isnan(found.measures["CAS"][:, [0, 2]]).all()
    assert "CAS" not in found.correlations()  # known of one generator alone
    results = read_results(runs[0])
    table = generators_table(results, read_qualities(results), {})
    place = table.columns.index("CAS %")
    assert [row[place] for row in table.rows] == ["", "", f"{100 * clean[0]:.1f}", ""]
    assert len({len(row) for row in (table.columns, *table.rows)}) == 1


def test_generated_images_stand_above_those_nearest_to_them(runs, page):
    shown = neighbors_figure(runs[0].quality("edm"))
    assert shown["uri"].startswith("data:image/png") and "training, " in shown["text"]
    assert shown["uri"] in page[1].read_text()
    assert neighbors_figure(runs[0].root / "quality" / "none.npz") is None


def test_measures_stand_beside_what_generators_buy(study, runs):
    found = measured(study)
    assert found.generators == ("gaussian", "edm", "ect") and found.gains.shape == (3, 3)
    assert {"classifier-fid", "ARC", "NN entropy", "precision", "memorized"} <= found.measures.keys()
    correlations = found.correlations()
    few = found.of(["ect", "gaussian"])
    assert few.generators == ("ect", "gaussian") and np.array_equal(few.gains, found.gains[:, [2, 0]])
    assert not few.correlations()  # of two there is no rank to speak of
    same = replace(found, measures={"same": np.ones((3, 3)), **found.measures})
    assert same.correlations().keys() == correlations.keys()  # nor of what does not differ
    # Of the drawn generators each is further away than the last, and buys more.
    assert correlations["classifier-fid"].value == 1 and len(correlations["classifier-fid"].each) == 3


def test_only_finished_seeds_count_and_the_page_says_what_is_missing(runs, tmp_path):
    for run in runs:
        shutil.copytree(run.root, tmp_path / run.root.name)
    folders = [tmp_path / run.root.name for run in runs]
    RunDir(folders[1]).verdicts("edm", "swift").with_suffix(".done").unlink()
    for done in (folders[2] / "evaluation").glob("*.done"):
        done.unlink()
    page = write_reports(folders, tmp_path / "page.html", "x").read_text()
    assert "seed 1: not evaluated yet: edm" in page and "seed-2: nothing evaluated yet" in page
    study = read_study([read_results(RunDir(folder)) for folder in folders[:2]])
    assert len(study.robust("edm")) == 1 and "no interval from one seed" in str(arms_table(study).rows)
    alone = write_reports(folders[:1], tmp_path / "page.html", "x").read_text()
    assert "Student's t intervals" in page and "one seed does not show how much" in alone and "Student's" not in alone
    with pytest.raises(ValueError, match="is not a run folder"):
        write_reports([tmp_path / "nowhere"], tmp_path / "page.html", "x")
    with pytest.raises(ValueError, match="has been evaluated yet"):
        write_reports([folders[2]], tmp_path / "page.html", "x")


def test_the_page_says_which_generators_have_their_own_rule_of_selection(runs, tmp_path):
    shutil.copytree(runs[0].root, tmp_path / "run")
    recipe = read_json(tmp_path / "run" / "recipe.json")
    recipe["keep"] = {"rule": "all", "special": {"edm": {"rule": "top-confidence", "per_class": 7}}}
    write_json(tmp_path / "run" / "recipe.json", recipe)
    assert "all kept, of edm: top-confidence" in render_run(read_results(RunDir(tmp_path / "run")))
    recipe["keep"] = {"rule": "balanced"}
    write_json(tmp_path / "run" / "recipe.json", recipe)
    page = render_run(read_results(RunDir(tmp_path / "run")))
    assert "kept: balanced" in page and "of edm:" not in page


def test_different_runs_stand_side_by_side_and_are_paired_on_the_same_images(runs, tmp_path):
    other = tmp_path / "beta"
    shutil.copytree(runs[1].root, other)
    recipe = read_json(other / "recipe.json")
    recipe["train"]["loss"]["beta"] = 3.0
    write_json(other / "recipe.json", recipe)
    page = write_reports([runs[0].root, other], tmp_path / "page.html", "robustgen report a b").read_text()
    assert "Side by side" in page and "train.loss.beta: first 6.0, here 3.0" in page and "McNemar" in page
    assert "edm: robust accuracy of beta minus that of seed-0" in page and "robustgen report a b" in page
    assert run_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert run_names([tmp_path / "a", tmp_path / "a"]) == ["a (1)", "a (2)"]


def test_pages_need_no_network_no_script_and_little_room(page):
    for path in page:
        text = path.read_text()
        for word in WORDS_OF_THE_NETWORK:
            assert word not in text.replace("http://www.w3.org", ""), (path, word)
        assert len(text) < 10_000_000
        assert text.count("as Markdown, LaTeX") >= 4 and r"\begin{tabular}" in text and "| --- |" in text


def test_pages_are_made_from_records_within_seconds_and_without_torch(runs, tmp_path):
    places = ", ".join(f"Path({str(run.root)!r})" for run in runs)
    code = (
        "import sys\nfrom pathlib import Path\nfrom robustgen.report.page import write_report\n"
        "from robustgen.report.study_page import write_reports\nfrom robustgen.storage.run_folder import RunDir\n"
        f"write_reports([{places}], Path({str(tmp_path / 'all.html')!r}), 'x')\nassert 'torch' not in sys.modules"
    )
    began = time.process_time(), time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.monotonic() - began[1] < 20  # about 2 s on an idle core


def test_long_lists_of_changes_are_named_by_their_arm(study):
    long = {"proxy": "edm", "changes": ["attack.optimiser=steepest", "statistics=both", "smooth=all"]}
    recipe = {**study.recipe, "arms": {**study.recipe["arms"], "ports": long}}
    assert (
        name_of(recipe, "ports") == "real + edm, ports" and name_of(recipe, "edm-0.1") == "real + edm, real_share=0.1"
    )
    assert shortened(recipe, recipe["arms"]) == {"ports": "attack.optimiser=steepest, statistics=both, smooth=all"}


def test_equal_records_give_equal_pages(page, runs, tmp_path):
    again = write_reports([run.root for run in runs[::-1]], page[0].with_name("again.html"), "robustgen report")
    assert again.read_text() == page[0].read_text() and 'href="seed-1/report.html"' in again.read_text()
    elsewhere = write_reports([run.root for run in runs], tmp_path / "again.html", "robustgen report")
    assert 'href="seed' not in elsewhere.read_text()  # there is nothing beside it


def test_tables_are_text_for_latex_and_markdown():
    table = Table(("a_b", "x|y"), (("50 %", r"1&2\{}"),))
    assert latex(table).splitlines() == [
        r"\begin{tabular}{lr}", r"\toprule", r"a\_b & x|y \\", r"\midrule",
        r"50 \% & 1\&2\textbackslash{}\{\} \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    assert table.markdown().splitlines()[0] == r"| a_b | x\|y |"


def test_the_papers_figures_stand_beside_ours(runs):
    results = read_results(runs[0])
    assert reported_table(results) is None
    results.recipe["reported"] = Reported(clean=95.0, robust=60.0, where="Table 9").model_dump()
    table = reported_table(results)
    assert table.rows[0] == ("paper", "95", "60", "", "", "Table 9")
    names = [row[0] for row in table.rows[1:]]
    assert "ours: real + edm" in names and not any("real only" in name for name in names)
    row = table.rows[1 + names.index("ours: real + edm")]
    assert float(row[4]) == pytest.approx(float(row[2]) - 60, abs=0.11)


def test_of_many_arms_those_are_told_that_change_nothing_and_the_best_that_does():
    recipe = {"arms": {str(k): {"proxy": None, "changes": ["beta=1"] if k > 2 else []} for k in range(12)}}
    robust = {str(k): 0.5 + (k == 7) / 10 for k in range(12)}
    assert mentioned_arms(recipe, robust) == ["0", "1", "2", "7"]
    assert mentioned_arms(recipe, {"3": 0.1, "0": 0.2}) == ["3", "0"]


def test_the_answer_names_what_is_settled_of_the_arms_it_does_not_tell(study):
    """Of those trained against attacks alone: that others are not robust is no news."""
    said = study_sentences(study, most=4)
    assert said[0].startswith("real only: ") and sum("Best arm with changed settings" in one for one in said) == 1
    settled = [one for one in said if one.startswith("Also ")]
    assert any("real only, averaging=0 (-" in one or "real_share" in one for one in settled)
    assert "loss=" not in " ".join(said) and study.alike == [
        arm for arm in ARMS if not arm.endswith(("score", "smoothed"))
    ]


def small_verdicts():
    """Five images of two classes: right and standing, broken, wrong when clean; of the other class broken, standing."""
    labels = np.array([0, 0, 0, 1, 1])
    verdicts = Verdicts.unjudged("quick", "linf:0.1", ("clean", "apgd"), np.arange(5), labels, 2)
    verdicts.clean_prediction[:] = [0, 0, 1, 1, 1]
    verdicts.fell_to[:] = [UNBROKEN, 1, 0, 1, UNBROKEN]
    verdicts.broken_logits[1], verdicts.broken_logits[3] = [0, 1], [2, 1]
    return verdicts


def test_what_images_are_taken_for_under_attack():
    verdicts = small_verdicts()
    assert mistakes.seen_as(verdicts).tolist() == [0, 1, 1, 0, 1]
    assert mistakes.confusion(verdicts).tolist() == [[1, 2], [1, 1]]
    assert [(share.count, share.total) for share in mistakes.robust_by_class(verdicts)] == [(1, 3), (1, 2)]
    said = mistakes.worst(verdicts, ["cat", "dog"])
    assert said == (
        "the weakest class is cat with 33.3 % robust accuracy; under attack the most frequent confusion is cat "
        "classified as dog (2 of 3 images)"
    )


def test_examples_are_images_that_an_attack_broke_and_the_difference_is_drawn_about_grey():
    verdicts = small_verdicts()
    clean = np.full((5, 2, 2, 1), 51, dtype=np.uint8)
    adversarial = clean / np.float32(255)
    adversarial[3] += 0.1
    assert mistakes.examples_of(verdicts, clean, adversarial, 2).tolist() == [3]  # image 1 was not kept as broken
    adversarial[1] -= np.array([0.1, 0, 0, 0.05], dtype=np.float32).reshape(2, 2, 1)
    rows = mistakes.examples_of(verdicts, clean, adversarial, 2)
    assert rows.tolist() == [1, 3]
    picture, most = mistakes.example_grid(clean[rows], adversarial[rows])
    pixels = np.asarray(picture)[:, :, 0]
    assert most == pytest.approx(0.1, abs=1e-6) and picture.size == (5, 8)
    assert pixels[6:8, 0:2].tolist() == [[0, 128], [128, 64]] and (pixels[6:8, 3:5] == 255).all()


def test_attacked_images_are_on_the_page_where_they_were_kept(page, runs):
    text = page[1].read_text()
    assert text.count("Adversarial examples</h3>") == 1 and "white are 0.2 of" in text and "0 classified as 1" in text
    assert "Adversarial examples</h3>" not in write_report(runs[1]).read_text()
    results = read_results(runs[0])
    path = results.run.verdicts("edm", "swift")
    kept = adversarial_file(path).read_bytes()
    np.save(adversarial_file(path), np.zeros((3, 1, 8, 8), dtype=np.float32))
    with pytest.raises(ValueError, match="evaluate again with --keep-images"):
        mistakes.broken_images(path)
    adversarial_file(path).write_bytes(kept)
    assert mistakes.by_class_section(results, CLASSES)["left_out"] == 0


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("which", [0, 1], ids=["study", "run"])
def test_a_browser_shows_every_figure_without_a_word_of_complaint(page, tmp_path, width, which):
    figures, visible, wide, window = shown(page[which].read_text(), tmp_path, width)
    assert figures == visible >= 5 and wide <= window == width
