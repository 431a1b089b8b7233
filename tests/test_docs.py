"""What README and docs say must be so: commands run, code runs, files exist."""

import importlib.util
import re
import resource
import shlex
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import REPOSITORY
from robustgen.records.verdicts import Verdicts
from robustgen.storage.files import read_json

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def script(name: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STUDIES = sorted(folder.parent for folder in DOCS.glob("study/*/records"))
READ_ONLY = ("list", "show", "plan")
FILES_READ = ("report", "watch", "stop")
"""They take no --dry-run, and here the folders they read do not exist."""
JUDGES = ("evaluate", "certify", "analyse", "publish")
"""They look for what a model was trained for, so that it must be there: a run of an older version stands in."""
COVERED = {"make demo", "make test", "make test-slow", "make format", "make docs", "python photos.py"}
"""Commands that are no lines of robustgen: the Makefile's own, and the beginning of the walk of `your-own.md`."""


def commands(page: Path) -> list[str]:
    """Lines of indented blocks, without comments."""
    lines = [line.split("#")[0].strip() for line in page.read_text().splitlines() if re.match(r"    \S", line)]
    return [line for line in lines if re.match(r"(robustgen|make|python) ", line)]


ALL = [(page.name, line) for page in PAGES for line in commands(page)]
AFTER_OTHERS = "robustgen run auto --data folder=photos"
"""A command that looks at images, also when dry: tests/test_site.py and tests/test_first_hour.py have them."""
ONCE = list({line: (page, line) for page, line in reversed(ALL) if not line.startswith(AFTER_OTHERS)}.values())
"""A command that stands on several pages runs once."""


GENERATED = {DOCS / place for place in script("make_reference").PAGES}


def test_the_pages_have_commands():
    assert ("README.md", "make demo") in ALL and ("README.md", "make test") in ALL


@pytest.mark.parametrize(("page", "line"), [pair for pair in ONCE if pair[1].startswith("robustgen")])
def test_every_command_is_understood(page, line, tmp_path, robustgen):
    """Dry, in a folder with what the pages assume; the slow tests run the main ones in full."""
    for name in ("mine.yaml", "walk.yaml"):
        (tmp_path / name).write_text("base: digits-smoke\nthreat: linf:0.1\n")
    (tmp_path / "docs").symlink_to(DOCS)
    words = shlex.split(line)[1:]
    if words[0] in JUDGES:
        run = REPOSITORY / "tests" / "fixtures" / "version-0.1" / "run"
        for word in words:
            if re.fullmatch(r"(models|runs)/[\w/-]+", word) and not (tmp_path / word).exists():
                (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
                whole = re.fullmatch(r"runs/[\w-]+", word)
                (tmp_path / word).symlink_to(run if whole else run / "classifiers" / "edm-0")
        for word in words:
            if re.fullmatch(r"[\w-]+\.(pt|safetensors)", word) and "--into" not in words[: words.index(word)]:
                (tmp_path / word).write_bytes(b"")
    for word in words if words[0] in ("show", "report") else ():
        if word.endswith(".npz"):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).symlink_to(
                REPOSITORY / "tests" / "fixtures" / "version-0.1" / "run" / "evaluation" / "edm.quick.npz"
            )
    if words[0] not in READ_ONLY and "--help" not in words and "--dry-run" not in words and words[0] not in FILES_READ:
        words.append("--dry-run")
    code, _, said = robustgen(*words)
    missing_run = words[0] in FILES_READ and "is not a run folder" in said
    assert code == 0 or missing_run, f"{page}: {line}\n{said}"


@pytest.mark.parametrize(("page", "line"), [pair for pair in ONCE if not pair[1].startswith("robustgen")])
def test_other_commands_are_known(page, line):
    if line.startswith("python ") and line not in COVERED:
        given = [f'title="{line.split()[1]}"' in path.read_text() for path in DOCS.glob("tutorials/*.md")]
        assert (REPOSITORY / line.split()[1]).exists() or any(given), f"{page}: {line}"
    else:
        assert line in COVERED, f"{page}: {line}"
    if line.startswith("make "):
        assert re.search(rf"^{line.split()[1]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, halfspace_setting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, images, labels, norm = halfspace_setting
    for block in blocks(page, "python"):
        names = {"model": model, "images": images, "labels": labels}
        exec(compile(block, str(page), "exec"), names)
        if "OneStep" in names:
            from robustgen.randomness import rng_for
            from robustgen.threat import ThreatModel

            needed = model.distance_to_boundary(images, labels, norm)
            threat = ThreatModel(norm, float(needed.median()))
            found = names["OneStep"]()(model, images, labels, threat, rng_for(0))
            fooled = model(found).argmax(1) != labels
            assert threat.contains(found, images).all() and fooled[needed < 0.95 * threat.eps].all()


def walk(robustgen, *settings, suite="swift"):
    """The section "From start to end": its files, then its commands in turn, with settings of the run and a suite."""
    page = (DOCS / "your-own.md").read_text()
    section = page.split("## From start to end\n")[1].split("\n## ")[0]
    files = dict(re.findall(r"`(\w+\.\w+)`:\n\n```\w+\n(.*?)```", section, re.DOTALL))
    files["net.py"] = next(
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "# net.py" in block
    )
    for name, text in files.items():
        Path(name).write_text(text)
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ") and "robustgen " in line]
    exec(compile(files["photos.py"], "photos.py", "exec"), {})
    said = []
    for line in lines:
        words = shlex.split(line.replace("--suite swift", f"--suite {suite}"))[1:]
        code, out, err = robustgen(*words, *(settings if words[0] == "run" else ()))
        assert code == 0, f"{line}\n{err}"
        said.append(out)
    return said


def check_walk(said, count):
    from robustgen.records.verdicts import Verdicts
    from robustgen.storage.run_folder import RunDir

    run = RunDir(Path("runs/walk"))
    for arm in ("real", "mine"):
        (file,) = run.root.glob(f"evaluation/{arm}.*.npz")
        found = Verdicts.load(file)
        assert found.finished and len(found) == count
    judged = Verdicts.load(Path("judged.npz"))
    assert judged.finished and len(judged) == 100 and len(Path("judged.csv").read_text().splitlines()) == 101
    assert np.bincount(judged.labels).tolist() == [50, 50]
    assert run.report.exists() and "<html" in Path("judged.html").read_text() and "mine" in said[1]
    return judged


def test_the_walk_with_ones_own_network_photographs_and_generator(robustgen):
    """Shortened: its numbers mean nothing, and every command of it works."""
    small = ("data.train=60", "data.validation=20", "data.test=20", "sampling.count=60", "evaluation.suite=quick",
             "train.schedule.total_images=256", "labeller.schedule.total_images=256")  # fmt: skip
    settings = [word for one in small for word in ("--set", one)]
    check_walk(walk(robustgen, *settings, "--jobs", "1", suite="quick"), 20)


@pytest.mark.slow
def test_the_whole_walk_is_short_and_its_classifiers_are_robust(robustgen):
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.process_time()
    judged = check_walk(walk(robustgen), 200)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = time.process_time() - own + end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    assert used < 300, f"{used:.0f} s of processor time"
    assert judged.clean_accuracy.value > 0.8 and judged.robust_accuracy.value > 0.5


def test_yaml_blocks_are_recipes(tmp_path):
    from robustgen.config.loading import read_recipe
    from robustgen.recipes import RECIPES

    for page in PAGES:
        for block in blocks(page, "yaml"):
            (tmp_path / "mine.yaml").write_text(block)
            read_recipe(tmp_path / "mine.yaml", RECIPES)


def test_settings_for_options_of_the_ports_are_those_of_their_row():
    from robustgen.config.loading import override
    from robustgen.recipes import RECIPES

    row = RECIPES["wang2023/cifar10-linf-wrn-28-10-edm-1m"]
    table = (DOCS / "how-to" / "migrate.md").read_text().split("| option of the ports |")[1].split("\n\n")[0]
    settings = re.findall(r"`((?:train\.[\w.]+|threat)=[^`]+)`", table)
    assert len(settings) >= 15 and override(row, [text.replace('"', "") for text in settings]) == row
    different = override(row, ["train.ema_start=0", "train.smoothing=0"])
    assert override(different, [text.replace('"', "") for text in settings]) == row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        place = (page.parent / target).resolve()
        assert place.exists() or place in GENERATED, target
    for target in re.findall(r"`((?:robustgen|tests|docs|examples|benchmarks|dev)/[\w./-]+)`", text):
        assert (REPOSITORY / target).exists() or "NAME" in target or "<" in target, target


def test_the_tree_of_the_docs_is_the_packages():
    tree = re.search(r"```\nrobustgen/\n(.*?)```", (DOCS / "architecture.md").read_text(), re.DOTALL)
    named = set(re.findall(r"^  ([\w]+(?:\.py|/))", tree[1], re.MULTILINE))
    package = REPOSITORY / "robustgen"
    real = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    real |= {f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert named == real


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_pages_of_studies_are_rebuilt_from_their_records(folder, tmp_path):
    """All but the figures, which depend on the version of matplotlib; of these the number."""
    from robustgen.report.study_page import figures_of, write_reports

    seeds = sorted((folder / "records").glob("seed-*"))
    again = write_reports(seeds, tmp_path / "report.html", f"robustgen run {folder.name}").read_text()
    page = (folder / "report.html").read_text()
    figures = re.compile("<svg.*?</svg>", re.DOTALL)
    assert figures.sub("", again) == figures.sub("", page)
    assert len(figures.findall(again)) == len(figures.findall(page))
    study = script("make_study").study_of(folder / "records")
    assert {path.stem for path in folder.glob("*.svg")} == set(figures_of(study))
    assert len(page) < 10e6 and "robustgen report" in (DOCS / "study" / "README.md").read_text()


def test_tables_of_studies_are_those_of_their_records():
    make_study = script("make_study")
    studies = {folder.name: make_study.study_of(folder / "records") for folder in STUDIES}
    for page in make_study.PAGES:
        text = page.read_text()
        assert {place["name"] for place in make_study.PLACE.finditer(text)} <= studies.keys(), page
        for name, study in studies.items():
            assert make_study.with_tables(text, name, study) == text, "run: python docs/make_study.py docs/study/NAME"


def test_studies_that_are_told_of_are_there():
    assert {folder.name for folder in STUDIES} == {
        "digits-study",
        "digits-long",
        "digits-ports",
        "cifar10-study",
        "cifar10-5k-cpu",
    }


def test_autoattack_leaves_the_photographs_that_swift_leaves():
    """And takes 21 times as long, as docs/evaluation.md says."""
    folder = DOCS / "study" / "cifar10-5k-cpu"
    for arm, count in {"real": 78, "edm": 73, "all": 96}.items():
        whole = Verdicts.load(folder / "autoattack" / f"{arm}.npz")
        swift = Verdicts.load(folder / "records" / "seed-0" / "evaluation" / f"{arm}.swift.npz")
        assert (whole.suite, swift.suite, whole.precision) == ("autoattack", "swift", "float32")
        assert whole.robust.sum() == count and np.array_equal(whole.robust, swift.robust[:256])
        long, short = (
            read_json(folder / "autoattack" / f"{arm}.{name}") for name in ("times.json", "swift.times.json")
        )
        assert round(sum(long.values()) / sum(short.values())) == 21
