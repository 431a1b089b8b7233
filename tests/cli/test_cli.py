"""The command line with good, bad and absurd input."""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robustgen import cli
from robustgen.cli import inventory
from robustgen.datasets.npz import write_npz
from robustgen.recipes import RECIPES
from robustgen.records.tables import Table
from robustgen.records.verdicts import Verdicts
from robustgen.runtime import progress

RECIPE = """
base: digits-smoke
data: {test: 20}
train: {schedule: {total_images: 256}, validations: 1}
labeller: {schedule: {total_images: 256}}
generators: {edm: {total_images: 256, warmup_images: 64}}
"""
SMALL = ("--recipe", "small.yaml")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Made by the single verbs: a generator, a labeller, a proxy set and a robust classifier."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "small.yaml").write_text(RECIPE)

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "robustgen", *map(str, arguments)], capture_output=True, text=True, cwd=folder
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("fit", "edm", "--into", "models/edm", *SMALL)
    run("sample", "models/edm", "--count", 60, "--solver", "ipndm", "--evaluations", 3, "--into", "proxies/edm")
    run("train", "--plain", "--into", "models/labeller", *SMALL)
    run("label", "proxies/edm", "--with", "models/labeller")
    run("keep", "proxies/edm", "--rule", "all")
    run("train", "--proxy", "proxies/edm", "--into", "models/robust", *SMALL)
    run("evaluate", "models/robust", "--suite", "quick")
    return folder


def test_single_verbs_make_what_the_next_one_opens(parts):
    assert json.loads((parts / "models/edm/generator.json").read_text())["settings"]["kind"] == "edm"
    manifest = json.loads((parts / "proxies/edm/manifest.json").read_text())
    assert manifest["count"] == 60 and manifest["generator"]["evaluations"] == 3
    assert set(manifest["columns"]) == {"condition", "label", "second", "margin", "confidence", "kept"}
    verdicts = Verdicts.load(parts / "models/robust/quick.npz")
    assert verdicts.finished and len(verdicts) == 20


def test_finished_work_is_skipped(parts, robustgen, monkeypatch):
    monkeypatch.chdir(parts)
    code, out, _ = robustgen("train", "--proxy", "proxies/edm", "--into", "models/robust", *SMALL)
    assert code == 0 and "done before" in out
    code, out, _ = robustgen("train", "--into", "models/robust", *SMALL, "--dry-run")
    assert code == 0 and "would train into models/robust on cpu (done before)" in out


def test_other_settings_in_the_same_folder_are_refused(parts, robustgen, monkeypatch):
    monkeypatch.chdir(parts)
    code, _, err = robustgen("train", "--into", "models/robust", *SMALL, "--set", "train.loss.beta=5")
    assert code == 2 and "train.loss.beta: stored 6.0, requested 5.0" in err and err.count("\n") == 1


def test_folders_describe_themselves(parts, robustgen, monkeypatch):
    monkeypatch.chdir(parts)
    for folder, word in (("models/edm", "multipliers"), ("proxies/edm", "ipndm"), ("models/robust", "wrn-10-1")):
        code, out, _ = robustgen("show", folder)
        assert code == 0 and word in out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(robustgen, verb):
    code, out, _ = robustgen(verb, "--help")
    assert code == 0 and "Usage: robustgen" in out and len(out) > 180
    assert verb in robustgen("--help")[1]


@pytest.mark.parametrize(
    "what",
    ["recipes", *inventory.FAMILIES],
)
def test_everything_can_be_listed(robustgen, what):
    code, out, _ = robustgen("list", what)
    assert code == 0 and len(out.splitlines()) >= 2


def test_recipes_can_be_shown_with_changes(robustgen):
    code, out, _ = robustgen("show", "digits", "--set", "train.loss.beta=5")
    assert code == 0 and any(line.split() == ["train.loss.beta", "5.0"] for line in out.splitlines())


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_lose_no_letter_and_break_no_figure(capsys, monkeypatch, terminal):
    name, interval = "real + " + "abcdefghij" * 12, "+10.0 to +20.0"
    if terminal:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "60")
    inventory.print_table(Table(("training images", "gain", "95 %"), ((name, "+15.0", interval),)), "title")
    said = capsys.readouterr().out
    rows = [line.rstrip() for line in said.splitlines()]
    assert "…" not in said and sum(interval in row and "+15.0" in row for row in rows) == 1
    assert (name in said) != terminal
    names = "".join(row.replace("+15.0", "").replace(interval, "") for row in rows)
    assert names.replace(" ", "").endswith(name.replace(" ", ""))


def test_dry_runs_write_nothing(robustgen, tmp_path):
    code, out, _ = robustgen("run", "digits", "--dry-run")
    assert code == 0 and "train edm-1" in out and "to do" in out
    for line in (("fit", "edm", "--into", "x"), ("train", "--into", "x")):
        assert robustgen(*line, "--dry-run")[0] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run digitz", "unknown recipe 'digitz'; known: digits"),
        ("run none.yaml", "cannot be read as a recipe"),
        ("run digits --set train.betta=5", "did you mean train.loss.beta?"),
        ("run digits --set train.loss.beta=x", "expected a number"),
        ("run digits --set train.architecture=vgg", "unknown architecture 'vgg'; known: wrn-10-1"),
        ("run digits --set evaluation.suite=x --dry-run", "unknown suite 'x'"),
        ("run digits --jobs 0", "greater than or equal to 1"),
        ("run digits --jobs many", "valid integer"),
        ("run digits --device tpu", "unknown device 'tpu'; known: auto, cpu, cuda"),
        ("run digits --frobnicate", "No such option"),
        ("run", "Missing argument"),
        ("frobnicate", "No such command"),
        ("run digits --data cifar10=nowhere --jobs 1", "no CIFAR-10 in nowhere"),
        ("run digits --data npz=nowhere.npz --jobs 2", "there is no file nowhere.npz"),
        ("run digits --data kmnist", "unknown data set 'kmnist'"),
        ("run digits --data .", "unknown data set '.'; did you mean --data folder=.? known: digits"),
        ("fit gan --into x", "unknown generator 'gan'; digits has: gaussian, edm"),
        ("sample nowhere --into x", "nowhere holds no finished generator"),
        ("sample nowhere --into x --count 0", "greater than or equal to 1"),
        ("label nowhere --with x", "nowhere holds no finished proxy set"),
        ("keep nowhere", "nowhere holds no finished proxy set"),
        ("keep nowhere --rule best", "rule: input should be 'top-confidence', 'above-confidence', 'balanced'"),
        ("train --into x --proxy nowhere", "nowhere holds no finished proxy set"),
        ("train --into x --threat linf:8", "did you mean 8/255"),
        ("train --into x --threat l7:0.1", "threat"),
        ("evaluate nowhere", "timm:NAME or hf:FOLDER, got nowhere, which does not exist"),
        (
            "evaluate nowhere --data digits --threat linf:0.1",
            "timm:NAME or hf:FOLDER, got nowhere, which does not exist",
        ),
        ("evaluate net.py:make --data digits", "evaluate needs --threat NORM:EPS such as linf:8/255, or --recipe NAME"),
        ("evaluate nowhere --suite x --recipe digits", "unknown suite 'x'"),
        ("evaluate nowhere --recipe digits --set train.beta=5", "evaluate does not use train.beta; it uses: data.name"),
        ("train --plain --into x --threat linf:0.1", "has no threat model; leave out --threat"),
        ("fit edm --into x --set train.beta=5", "fit does not use train.beta"),
        ("analyse fab nowhere", "unknown analysis 'fab'; known: radius-sweep, step-sweep, landscapes"),
        ("analyse fab nowhere --dry-run", "unknown analysis 'fab'"),
        ("analyse landscapes nowhere", "nowhere is neither a run nor a finished classifier"),
        ("analyse landscapes nowhere --set analysis.size=3", "unknown setting 'size' of landscapes; known: images"),
        ("analyse step-sweep nowhere --set analysis.steps=9,5", "steps must ascend"),
        ("analyse step-sweep nowhere --set analysis.steps=many", "steps: expected a number or a fraction"),
        ("analyse step-sweep nowhere --images 0", "greater than or equal to 1"),
        ("analyse step-sweep nowhere --threat linf:8", "did you mean 8/255"),
        ("analyse step-sweep", "Missing argument"),
        ("certify net.py:make", "unknown what net.py:make was trained for: certify needs --data NAME[=PATH]"),
        ("certify nowhere --recipe digits", "timm:NAME or hf:FOLDER, got nowhere, which does not exist"),
        ("certify nowhere --recipe digits --sigma 0", "sigma: input should be greater than 0"),
        ("certify nowhere --recipe digits --sigma much", "valid"),
        ("certify nowhere --recipe digits --alpha 1", "alpha: input should be less than 0.5"),
        ("certify nowhere --recipe digits --samples 0", "greater than or equal to 1"),
        ("certify nowhere --recipe digits --every 0", "greater than or equal to 1"),
        ("report nowhere", "nowhere is not a run folder"),
        ("show nowhere", "unknown recipe 'nowhere'"),
        ("list everything", "cannot list 'everything'; known: recipes"),
    ],
)
def test_mistakes_are_one_clear_line(robustgen, line, message):
    code, out, err = robustgen(*line.split())
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err
    assert err.startswith("robustgen: ") and err.count("\n") == 1


def test_no_gpu_is_said(robustgen):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, _, err = robustgen("run", "digits", "--device", "cuda")
    assert code == 2 and "finds none; use --device cpu" in err


def test_a_wrong_recipe_leaves_no_folder_behind(robustgen, tmp_path):
    robustgen("run", "digits", "--set", "train.architecture=vgg")
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_another_recipe_is_refused(robustgen, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "recipe.json").write_text(json.dumps(RECIPES["digits"].to_json()))
    code, _, err = robustgen("run", "digits", "--into", "r", "--set", "train.loss.beta=5")
    assert code == 2 and "train.loss.beta: stored 6.0, requested 5.0; choose another folder with --into" in err


def test_ones_own_images_go_through_the_whole_chain(robustgen, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(180) % 3
    images = rng.integers(0, 80, (180, 8, 8, 3))
    images[np.arange(180), labels * 2] += 150
    write_npz(tmp_path / "mine.npz", images.astype(np.uint8), labels)
    line = (
        "run", "digits-smoke", "--data", "npz=mine.npz", "--into", "r", "--jobs", 1,
        "--set", "labeller.schedule.total_images=256", "--set", "generators.edm.total_images=256",
        "--set", "train.schedule.total_images=256", "--set", "train.models=1", "--set", "data.train=60",
    )  # fmt: skip
    code, out, err = robustgen(*line, "--arms", "gaussian")
    assert code == 0, err
    assert [path.name for path in (tmp_path / "r" / "classifiers").iterdir()] == ["gaussian-0"]
    assert "real + gaussian" in out and "Not made yet: real, edm, report; repeat" in out
    assert not (tmp_path / "r" / "generators" / "edm").exists() and not (tmp_path / "r" / "report.html").exists()
    code, out, err = robustgen(*line)
    assert code == 0, err
    assert "train gaussian-0: done before" in out + err
    assert "real + edm" in out and (tmp_path / "r" / "report.html").exists()
    code, out, _ = robustgen("show", "r")
    assert code == 0 and "real + gaussian" in out


def test_seeds_may_be_made_for_some_arms_first(robustgen, tmp_path):
    (tmp_path / "two.yaml").write_text("base: digits-smoke\nseeds: [0, 1]\n")
    line = ("run", "two.yaml", "--into", "s", "--jobs", 1, "--arms", "real",
            "--set", "train.schedule.total_images=128", "--set", "train.models=1")  # fmt: skip
    code, out, err = robustgen(*line)
    assert code == 0, err
    assert "Not made yet: gaussian, edm; repeat" in out and (tmp_path / "s" / "seed-1" / "evaluation").is_dir()
    assert not (tmp_path / "s" / "seed-0" / "generators").exists()


def test_generated_images_are_measured_and_analysed(parts, robustgen, monkeypatch):
    monkeypatch.chdir(parts)
    code, out, _ = robustgen("measure", "proxies/edm", "--with", "models/labeller", *SMALL)
    assert code == 0 and "classifier-fid" in out and (parts / "proxies/edm/quality.npz").exists()
    shutil.copytree("proxies/edm", "proxies/asked")
    assert robustgen("label", "proxies/asked", "--with", "models/labeller", "--labels", "condition")[0] == 0
    for name, options in (
        ("transport", ()),
        ("conditions", ("--with", "models/labeller")),
        ("transfer", ("--model", "models/robust", "--set", "analysis.steps=2")),
        ("arc", ("--set", "analysis.radii=0,0.1", "--set", "analysis.total_images=256",
                 "--set", "analysis.further_images=128")),
    ):  # fmt: skip
        code, out, err = robustgen("analyse", name, "proxies/asked", *options, *SMALL)
        assert code == 0, out + err
        assert (parts / f"proxies/asked/{name}.npz").exists()
    code, _, err = robustgen("keep", "proxies/asked", "--rule", "discriminator", "--per-class", 2)
    assert code == 2 and "has no column 'discriminator'; run: robustgen score proxies/asked" in err
    code, out, err = robustgen("score", "proxies/asked", *options, *SMALL)  # by the discriminators of arc above
    assert code == 0 and "mean probability of being real 0." in out and "by 1 discriminators" in out, out + err
    assert robustgen("keep", "proxies/asked", "--rule", "discriminator", "--per-class", 2)[0] == 0
    kept, real = (np.load(f"proxies/asked/{name}.npy") for name in ("kept", "discriminator"))
    labels = np.load("proxies/asked/label.npy")
    assert all(real[kept & (labels == k)].min() >= real[~kept & (labels == k)].max() for k in range(10))
    assert robustgen("analyse", "transport", "proxies/asked", *SMALL, "--seed", 5)[0] == 2  # another one lies there
    code, _, err = robustgen("analyse", "conditions", "proxies/asked", *SMALL)
    assert code == 2 and "pass --with FOLDER (from `robustgen train --plain`)" in err
    code, _, err = robustgen("analyse", "step-sweep", "models/robust", "--model", "models/robust", *SMALL)
    assert code == 2 and "--model is for analyses of a proxy set" in err


def test_runs_and_verdicts_are_compared(parts, robustgen, monkeypatch):
    monkeypatch.chdir(parts)
    code, out, _ = robustgen("compare", "models/robust/quick.npz", "models/robust/quick.npz", "--into", "compared")
    assert code == 0 and "not significant" in out and "both are the same classifier" in out
    assert len(list((parts / "compared").iterdir())) == 1
    code, _, err = robustgen("compare", "models/robust/quick.npz")
    assert code == 2 and "name another run" in err
    code, _, err = robustgen("compare", "nowhere", "nowhere")
    assert code == 2 and "not a run folder" in err


def test_analyses_print_a_table_resume_and_refuse_others(parts, robustgen, monkeypatch):
    monkeypatch.chdir(parts)
    monkeypatch.setattr(progress, "show_duration", lambda seconds: "0 s")  # the time may differ, no other word
    monkeypatch.setattr(progress.Lines, "every", math.inf)
    line = ("analyse", "step-sweep", "models/robust", *SMALL, "--set", "analysis.steps=1,2")
    code, out, err = robustgen(*line, "--dry-run")
    assert code == 0 and "would analyse models/robust" in out and not Path("models/robust/step-sweep.npz").exists()
    code, out, err = robustgen(*line)
    assert code == 0, err
    assert "robust -> models/robust/step-sweep.npz" in out and "20 images, linf:0.1" in out
    assert any(row.split()[:1] == ["2"] and len(row.split()) == 6 for row in out.splitlines())
    before = Path("models/robust/step-sweep.npz").read_bytes()
    code, again, _ = robustgen(*line, "--batch-size", 7)
    assert code == 0 and before == Path("models/robust/step-sweep.npz").read_bytes()
    assert again == out
    code, _, err = robustgen(*line, "--images", 10)
    assert (
        code == 2 and "a record of another analysis (images: stored 20, requested 10)" in err and err.count("\n") == 1
    )
    code, _, _ = robustgen(*line, "--images", 10, "--into", "few.npz")
    assert code == 0 and Path("few.npz").exists()


def test_a_damaged_file_of_a_run_is_one_clear_line(parts, robustgen, monkeypatch, tmp_path):
    monkeypatch.chdir(parts)
    weights = Path("models/edm/weights.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    code, _, err = robustgen("sample", "models/edm", "--into", tmp_path / "x", "--count", 5)
    weights.write_bytes(whole)
    assert code == 2 and "weights.safetensors is damaged" in err and err.count("\n") == 1


def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path):
    """No file may grow beyond 20 kB: the first weights file fails as on a full disk; with room again all goes on."""

    def small_disk():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    line = [sys.executable, "-m", "robustgen", "run", "digits-smoke", "--into", str(tmp_path / "r"), "--jobs", "1"]
    line += ["--set", 'arms={"real":{}}', "--set", "train.models=1"]
    full = subprocess.run(line, capture_output=True, text=True, preexec_fn=small_disk)
    assert full.returncode == 2, full.stderr
    assert "free disk space and run the command again to resume" in full.stderr
    assert "Traceback" not in full.stderr and full.stderr.count("\n") == 1
    assert not list((tmp_path / "r").rglob("*.part"))
    again = subprocess.run(line, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "data: done before" in again.stdout


def test_a_loss_that_explodes_says_where_and_keeps_the_checkpoint(robustgen, tmp_path):
    (tmp_path / "small.yaml").write_text(RECIPE)
    code, _, err = robustgen(
        "train", "--into", "x", *SMALL, "--set", "train.schedule.peak_lr=1e30", "--set", "train.schedule.warmup=0"
    )
    assert code == 2 and "the loss is nan at step" in err and "try a lower peak_lr" in err and err.count("\n") == 1


def test_help_starts_without_torch(robustgen):
    code = "import sys; from robustgen import cli; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_training_options(robustgen, parts, monkeypatch):
    monkeypatch.chdir(parts)
    more = ("--set", "train.schedule.total_images=128", "--set", "train.schedule.batch_size=32")
    code, out, err = robustgen(
        "train", "--proxy", "proxies/edm=2@0-0.5", "--proxy", "proxies/edm@0.5-1", "--into", "models/phased",
        "--batch", "auto", *SMALL, *more,
    )  # fmt: skip
    assert code == 0 and "--batch auto only works on GPUs" in out, err
    lines = [json.loads(line) for line in (parts / "models/phased/progress.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4 and 0 <= lines[-1]["averaged_robust"] <= 1
    for words, message in (
        (["--set", "train.real_share=0.5"], "train.real_share 0.5 needs generated images: pass --proxy FOLDER"),
        (["--proxy", "proxies/edm@0-0.4"], "no --proxy covers the run from 0.4 to 1"),
        (["--track", "mlflow"], "unknown tracker 'mlflow'"),
        (["--batch", "many"], "train.schedule.batch_size"),
        (["--proxy", "proxies/none"], "proxies/none holds no finished proxy set"),
    ):
        code, _, err = robustgen("train", "--into", "models/wrong", *SMALL, *words)
        assert code == 2 and message in err and len(err.strip().splitlines()) == 1, err


def test_sigterm_leaves_with_75_and_the_command_goes_on(parts):
    words = [sys.executable, "-m", "robustgen", "train", "--into", "models/stopped", *SMALL]
    words += ["--set", "train.schedule.total_images=64000"]
    started = subprocess.Popen(words, cwd=parts, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (parts / "models/stopped/progress.jsonl").exists():
        assert started.poll() is None, started.communicate()
        time.sleep(0.05)
    started.terminate()
    _, err = started.communicate(timeout=60)
    assert started.returncode == 75 and "stopped by SIGTERM at step" in err and len(err.strip().splitlines()) == 1
    assert (parts / "models/stopped/checkpoint.pt").exists()
