"""One evaluation as a page, in the terminal and as CSV: verdicts on digits, and files that are hard to show."""

import csv
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import WORDS_OF_THE_NETWORK, shown

from robustgen.config.recipe import CertificationConfig, DataConfig, EvaluationConfig, ThreatConfig
from robustgen.config.source import Source
from robustgen.contracts import silent
from robustgen.records.certificates import ABSTAINED, Certificates
from robustgen.records.evaluation_info import EvaluationInfo, info_file, read_evaluation_info
from robustgen.records.verdicts import UNBROKEN, Verdicts, adversarial_file
from robustgen.report import by_class, flag_texts
from robustgen.report.evaluation_page import render_certification, render_evaluation, write_result_page
from robustgen.report.evaluation_tables import (
    attacks_table,
    classes_table,
    images_digest,
    progress,
    read_result,
    repeat_command,
)
from robustgen.report.row_csv import write_csv
from robustgen.stages.certify import Certify
from robustgen.stages.evaluate import Evaluate
from robustgen.stats.intervals import Proportion
from robustgen.storage.provenance import environment

REPOSITORY = Path(__file__).resolve().parents[2]
OLD = REPOSITORY / "tests" / "fixtures" / "version-0.1" / "run"
DATA = DataConfig(name="digits", test=60, validation=40, train=100)
COMMAND = "robustgen evaluate models/edm --suite quick --threat linf:0.05"


def stage(path, **changes):
    source = Source(str(OLD / "classifiers" / "edm-0"))
    config = EvaluationConfig(suite="quick", keep_images=True)
    return replace(Evaluate(source, DATA, ThreatConfig(norm="linf", eps=0.05), config, path, 0, COMMAND), **changes)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Real verdicts on 60 digits, with images."""
    path = tmp_path_factory.mktemp("evaluation") / "edm.quick.npz"
    stage(path)("cpu", silent)
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Real certificates of 12 digits."""
    path = tmp_path_factory.mktemp("certificates") / "certificates.npz"
    config = CertificationConfig(sigma=0.1, samples=200, selection=20, images=12)
    Certify(Source(str(OLD / "classifiers" / "edm-0")), DATA, config, path, 0, command="robustgen certify x")(
        "cpu", silent
    )
    return path


@pytest.fixture
def copied(path, tmp_path):
    """The verdicts and all files next to them, to be changed."""
    for file in path.parent.iterdir():
        if file.suffix != ".lock":
            shutil.copy(file, tmp_path / file.name)
    return tmp_path / path.name


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def is_one_line(err):
    return err.startswith("robustgen: ") and err.count("\n") == 1 and "Traceback" not in err


def drawn(count, classes, *, broken=0.3, seed=0):
    """Verdicts on drawn images: a tenth is misclassified, a share is broken by the one attack."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    verdicts = Verdicts.unjudged("quick", "linf:0.1", ("clean", "apgd"), rng.integers(0, 2**60, count), labels, classes)
    luck = rng.random(count)
    wrong, fell = luck > 0.9, luck < broken
    verdicts.clean_prediction[:] = np.where(wrong, (labels + 1) % classes, labels)
    verdicts.clean_logits[np.arange(count), verdicts.clean_prediction] = 1
    verdicts.fell_to[wrong], verdicts.fell_to[fell] = 0, 1
    verdicts.faced[:] = np.where(verdicts.fell_to == UNBROKEN, 2, verdicts.fell_to)
    verdicts.broken_logits[fell] = 0
    verdicts.broken_logits[np.flatnonzero(fell), (labels[fell] + 2) % classes] = 1
    return verdicts


def saved(verdicts, tmp_path):
    verdicts.save(tmp_path / "v.npz")
    return read_result(tmp_path / "v.npz")


def test_the_page_answers_with_the_numbers_of_the_verdicts(path):
    verdicts, found = Verdicts.load(path), read_result(path)
    page = render_evaluation(found)
    robust = verdicts.robust_accuracy
    assert f"Robust accuracy {robust}: {robust.count} of 60 images are classified correctly under every attack" in page
    assert str(verdicts.clean_accuracy) in page and "unfinished" not in page
    assert COMMAND in page and "The command as it was given." in page
    assert verdicts.made_for.split()[0] in page and images_digest(verdicts.ids, verdicts.labels) in page
    assert "digits, test 60" in page and "float32" in page and found.digest in page
    assert re.search(r"<td>date</td><td>20\d\d-\d\d-\d\dT[\d:]+\+00:00</td>", page)
    assert "torch 2" in page and page.count("data:image/png") == 1 and "Adversarial examples" in page
    assert "robustgen evaluate" in page and "Checked: logits are finite" in page


def test_every_image_is_counted_at_the_attack_that_broke_it(path):
    verdicts = Verdicts.load(path)
    rows = [dict(zip(attacks_table(read_result(path)).columns, row, strict=True)) for row in
            attacks_table(read_result(path)).rows]  # fmt: skip
    assert [row["attack"] for row in rows] == list(verdicts.attacks)
    remain = 60
    for number, row in enumerate(rows):
        assert int(row["attacked"]) == remain
        assert int(row["broken"]) == int((verdicts.fell_to == number).sum())
        remain -= int(row["broken"])
        assert int(row["robust after it"]) == remain and row["%"] == f"{100 * remain / 60:.1f}"
    assert remain == int(verdicts.robust.sum()) and rows[1]["time"]


def test_the_page_needs_no_network_no_script_and_equal_files_give_equal_pages(path, copied, certificates):
    for page in (render_evaluation(read_result(path)), render_certification(read_result(certificates))):
        for word in WORDS_OF_THE_NETWORK:
            assert word not in page.replace("http://www.w3.org", "")
        assert len(page) < 300_000
    assert render_evaluation(read_result(path)) == render_evaluation(read_result(path))


def test_pages_are_made_without_torch(path, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom robustgen.report.evaluation_page import write_result_page\n"
        "from robustgen.report.evaluation_tables import read_result\n"
        f"write_result_page(read_result(Path({str(path)!r})), Path({str(tmp_path / 'a.html')!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_row_of_the_csv_is_an_image(path, tmp_path):
    verdicts, rows = Verdicts.load(path), rows_of(write_csv(read_result(path), tmp_path / "rows.csv"))
    assert [int(row["label"]) for row in rows] == verdicts.labels.tolist()
    assert [int(row["robust"]) for row in rows] == verdicts.robust.astype(int).tolist()
    assert [int(row["row"]) for row in rows] == np.asarray(getattr(verdicts, "rows", np.arange(60))).tolist()
    for row, fell, seen in zip(rows, verdicts.fell_to, by_class.seen_as(verdicts), strict=True):
        assert row["broken_by"] == ("" if fell == UNBROKEN else verdicts.attacks[fell])
        assert row["adversarial_prediction"] == (str(seen) if fell > 0 else "")
        assert int(row["image_id"], 16) < 2**64 and (float(row["distance"]) <= 0.0501 if fell > 0 else True)
    found = read_result(path)
    found.verdicts.rows = np.arange(60)[::-1]
    assert rows_of(write_csv(found, tmp_path / "rows.csv"))[0]["row"] == "59"


def test_an_unfinished_file_says_how_far_it_is(copied, robustgen):
    verdicts = Verdicts.load(copied)
    standing = np.flatnonzero(verdicts.robust)
    assert len(standing) > 3
    verdicts.faced[standing], verdicts.runs_faced[standing] = 1, 0
    verdicts.faced[standing[:2]] = 2
    late = verdicts.fell_to > 1
    verdicts.fell_to[late], verdicts.faced[late], verdicts.runs_faced[late] = UNBROKEN, 1, 0
    verdicts.passes[2:] = 0
    verdicts.save(copied)
    found = read_result(copied)
    said = progress(found)
    assert f"it is at attack 1 of 3 (apgd-ce), and {found.pending} of 60 images are not decided yet" in said
    assert said in render_evaluation(found)
    assert attacks_table(found).rows[3][3] == ""  # multitargeted has not begun
    code, out, err = robustgen("show", copied, "--csv", "rows.csv")
    assert code == 0 and said in out, err
    assert sum(row["robust"] == "" for row in rows_of(Path("rows.csv"))) == found.pending


def test_verdicts_of_version_01_are_shown_with_what_their_run_records(robustgen):
    old = OLD / "evaluation" / "edm.quick.npz"
    code, out, err = robustgen("show", old)
    assert code == 0 and "Robust accuracy 17.2 % (9.9 to 28.2): 11 of 64 images" in out, err
    assert "not recorded" in out and "digits, test 64" in out and "Repeat it: robustgen run digits-smoke" in out
    code, out, err = robustgen("report", old, "--into", "a.html")
    assert code == 0 and out.strip() == "a.html" and "not recorded" in Path("a.html").read_text(), err


def test_a_file_alone_says_what_is_missing_in_its_command(tmp_path, path):
    shutil.copy(path, tmp_path / "x.npz")
    found = read_result(tmp_path / "x.npz")
    assert found.classes == [str(k) for k in range(10)] and not found.seconds
    assert repeat_command(found) == (
        "robustgen evaluate MODEL --data NAME=PATH --threat linf:0.05 --suite quick --seed 0"
    )
    assert "words in capitals" in render_evaluation(found) and "Adversarial examples" not in render_evaluation(found)


@pytest.mark.parametrize(
    ("shown", "eps", "said"),
    [
        ("8/255", "0.03137254901960784", "8/255"),
        ("8/255", "0.0313", "0.0313"),
        ("0.05", "0.05", "0.05"),
        ("0.5", "", "0.5"),
    ],
)
def test_a_command_has_the_radius_as_it_is_shown_where_that_is_exact(shown, eps, said, path):
    found = read_result(path)
    made = f"0 seed 3 eps {eps}" if eps else "0"
    old = replace(found, verdicts=replace(found.verdicts, threat=f"linf:{shown}", made_for=made), info=EvaluationInfo())
    assert f" --threat linf:{said} --suite" in repeat_command(old)


@pytest.mark.parametrize("broken", [0.0, 1.0])
def test_one_image_has_a_page(broken, tmp_path):
    found = saved(drawn(1, 10, broken=broken, seed=1), tmp_path)
    page = render_evaluation(found)
    assert f"{1 - round(broken)} of 1 image is classified correctly" in page and len(classes_table(found).rows) == 1


def test_a_model_that_is_always_wrong_or_answers_nan_has_a_page(tmp_path):
    verdicts = drawn(50, 10, broken=0)
    verdicts.clean_prediction[:] = (verdicts.labels + 1) % 10
    verdicts.fell_to[:] = 0
    verdicts.labels[:2] = 0
    verdicts.clean_prediction[:2], verdicts.clean_logits[:2] = -1, np.nan
    verdicts.flags = ("nan-logits: 2 clean images have NaN or infinite logits",)
    found = saved(verdicts, tmp_path)
    page = render_evaluation(found)
    assert "Robust accuracy 0.0 % (0.0 to 7.1): 0 of 50 images" in page
    assert "Find the layer that overflows" in page  # the explanation of the flag
    rows = rows_of(write_csv(found, tmp_path / "rows.csv"))
    assert rows[0]["clean_prediction"] == "" and {row["broken_by"] for row in rows} == {"clean"}
    assert by_class.confusion(verdicts).sum() == 48


def test_a_thousand_classes_have_a_page_of_the_weakest(tmp_path):
    found = saved(drawn(5000, 1000), tmp_path)
    began = time.process_time()
    page = render_evaluation(found)
    assert time.process_time() - began < 10  # 1 s on an idle core
    assert len(classes_table(found, 20).rows) == 20 and "Confusion matrix" not in page and len(page) < 1_000_000
    assert "All classes" in page


def test_names_of_classes_and_models_are_text_on_the_page(tmp_path):
    found = saved(drawn(20, 2), tmp_path)
    names = ("<b>cat</b>", '=1+1,"dog"')
    page = render_evaluation(replace(found, info=EvaluationInfo(model="<script>x</script>", classes=names)))
    assert page.count("<script") == 1 and "<b>cat" not in page and "&lt;b&gt;cat" in page
    rows = rows_of(write_csv(replace(found, info=EvaluationInfo(classes=names)), tmp_path / "rows.csv"))
    assert {row["label_name"] for row in rows} == set(names)


def test_images_of_other_verdicts_are_not_shown(copied):
    np.save(adversarial_file(copied), np.zeros((3, 1, 8, 8), dtype=np.float32))
    page = render_evaluation(read_result(copied))
    assert "The images cannot be shown: " in page and "data:image/png" not in page


def test_certificates_have_a_page_a_table_and_a_csv(certificates, robustgen):
    own = Certificates.load(certificates)
    code, out, err = robustgen("show", certificates, "--csv", "rows.csv")
    assert code == 0 and "r 0.05" in out and own.summary in out and "Repeat it: robustgen certify x" in out, err
    rows = rows_of(Path("rows.csv"))
    assert [float(row["radius_l2"]) for row in rows] == pytest.approx(own.radius.tolist())
    assert [row["prediction"] == "" for row in rows] == (own.predicted == ABSTAINED).tolist()
    code, out, err = robustgen("report", certificates, "--into", "c.html")
    page = Path("c.html").read_text()
    assert code == 0 and f"Average certified radius {own.average_radius:.3f}" in page and "<svg" in page, err
    own.spent[6:] = 0
    own.save(Path("half.npz"))
    assert "6 of 12 images are certified" in render_certification(read_result(Path("half.npz")))


def test_evaluate_renders_the_page_and_keeps_the_verdicts_bytes(robustgen, tmp_path):
    shutil.copytree(OLD, tmp_path / "old")
    line = ("evaluate", "old/classifiers/edm-0", "--suite", "quick", "--images", "20", "--into", "my v.npz")
    code, out, err = robustgen(*line, "--report", "audit.html")
    assert code == 0 and out.splitlines()[-1] == "audit.html", err
    page = Path("audit.html").read_text()
    assert "--into &#39;my v.npz&#39; --report audit.html" in page and "old/classifiers/edm-0" in page
    before, info = Path("my v.npz").read_bytes(), info_file(Path("my v.npz")).read_bytes()
    assert robustgen(*line)[0] == 0
    assert Path("my v.npz").read_bytes() == before and info_file(Path("my v.npz")).read_bytes() == info
    info_file(Path("my v.npz")).unlink()
    assert robustgen(*line)[0] == 0  # finds finished verdicts, of which it cannot say when they were made
    known = read_evaluation_info(Path("my v.npz"))
    assert known.model == "old/classifiers/edm-0" and len(known.classes) == 10 and not known.date + known.command


def test_a_session_of_other_versions_is_noted_and_another_model_changes_nothing(copied, tmp_path):
    info = read_evaluation_info(copied)
    replace(info, versions={**info.versions, "torch": "1.0"}).save(info_file(copied))
    verdicts = Verdicts.load(copied)
    standing = np.flatnonzero(verdicts.robust)
    verdicts.faced[standing] = 1
    verdicts.save(copied)
    with pytest.raises(ValueError, match="not of this evaluation"):
        stage(copied, seed=1)("cpu", silent)
    assert read_evaluation_info(copied).resumed == ()
    stage(copied)("cpu", silent)
    assert len(read_evaluation_info(copied).resumed) == 1 and ": torch 2" in read_evaluation_info(copied).resumed[0]
    assert read_evaluation_info(copied).date == info.date and read_evaluation_info(copied).versions["torch"] == "1.0"


WRONG = {
    "missing": ("show", "nothing.npz"),
    "text": ("report", "text.npz"),
    "other": ("show", "other.npz"),
    "empty": ("report", "empty.npz"),
    "ranges": ("show", "ranges.npz"),
    "rows": ("report", "rows.npz"),
    "two": ("report", "v.npz", "v.npz"),
    "csv of a recipe": ("show", "digits", "--csv", "rows.csv"),
    "csv of a run": ("report", "run", "--csv", "rows.csv"),
    "csv is a folder": ("show", "v.npz", "--csv", "."),
    "csv is the file": ("show", "v.npz", "--csv", "v.npz"),
    "page is a folder": ("report", "v.npz", "--into", "."),
    "page is the file": ("report", "v.npz", "--into", "v.npz"),
    "info": ("show", "info.npz"),
}
SAID = {
    "missing": "there is no file nothing.npz",
    "text": "text.npz is damaged or not an .npz",
    "other": "expected verdicts or certificates in other.npz, got image, label; name a file made by robustgen evaluate",
    "empty": "empty.npz holds verdicts on 0 images",
    "ranges": "expected verdicts in ranges.npz, but cannot read them (labels must lie in 0..9, got ",
    "rows": "expected verdicts in rows.npz, but cannot read them (fell_to must be integers of shape (30,), got ",
    "two": "one .npz at a time, got 2 names",
    "csv of a recipe": "--csv requires an .npz made by evaluate or certify, got digits",
    "csv of a run": "--csv requires an .npz made by evaluate or certify, got run",
    "csv is a folder": "is a folder; --csv takes the file",
    "csv is the file": "expected the name of a CSV file",
    "page is a folder": "is a folder; name the page",
    "page is the file": "expected the name of a page",
    "info": "info.info.json is not a JSON file",
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_shown_is_one_line(case, robustgen):
    verdicts = drawn(30, 10)
    for name in ("v", "info"):
        verdicts.save(Path(f"{name}.npz"))
    before = Path("v.npz").read_bytes()
    Path("info.info.json").write_text("{")
    Path("text.npz").write_text("no archive")
    np.savez("other.npz", image=np.zeros(3), label=np.zeros(3))
    drawn(0, 10).save(Path("empty.npz"))
    replace(verdicts, fell_to=verdicts.fell_to[:7]).save(Path("rows.npz"))
    replace(verdicts, labels=verdicts.labels + 5).save(Path("ranges.npz"))
    code, _, err = robustgen(*WRONG[case])
    assert code == 2 and is_one_line(err) and SAID[case] in err, err
    assert Path("v.npz").read_bytes() == before


def test_flags_are_explained_in_the_words_of_the_documentation():
    texts = flag_texts.explanations()
    sections = re.findall(r"^## (\S+)$", (REPOSITORY / "docs" / "flags.md").read_text(), re.MULTILINE)
    assert {"nan-logits", "random-logits", "zero-gradients", "black-box-better"} <= set(sections) <= texts.keys()
    assert all(len(texts[name]) > 40 and "`" not in texts[name] and "](" not in texts[name] for name in sections)
    flag = "random-logits: the same images gave other logits"
    assert flag_texts.explain_flag(flag) == (flag, texts["random-logits"])
    assert flag_texts.explain_flag("unheard-of: x") == ("unheard-of: x", "")


def test_an_installed_package_has_the_explanations():
    """The wheel has a copy of the page; see pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    copies = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    packaged = flag_texts.PLACES[0].relative_to(REPOSITORY).as_posix()
    assert copies == {"docs/flags.md": packaged} and (REPOSITORY / "docs" / "flags.md").is_file()


def test_an_interval_holds_its_value_at_both_ends():
    """Rounding put 0 of 50 a hair below its own interval, which no figure can draw."""
    for total in range(1, 500):
        for count in (0, total):
            low, high = Proportion(count, total).interval
            assert low <= count / total <= high


def test_the_commit_is_recorded_in_a_checkout():
    if not (REPOSITORY / ".git").exists():
        pytest.skip("needs a git checkout")
    said = subprocess.run(["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True)
    if said.returncode:
        pytest.skip("needs git")
    assert said.stdout[:7] in environment()["commit"]


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("which", ["verdicts", "certificates"])
def test_a_browser_shows_the_page_at_every_width(path, certificates, tmp_path, width, which):
    page = write_result_page(read_result(path if which == "verdicts" else certificates), tmp_path / "page.html")
    figures, visible, wide, window = shown(page.read_text(), tmp_path, width)
    assert figures == visible >= 1 and wide <= window == width
