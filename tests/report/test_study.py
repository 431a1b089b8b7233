"""Arms that change settings, recipes of several seeds, and what the seeds say together."""

import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.stats import spearmanr

from conftest import REPOSITORY
from robustgen.config.loading import from_content, override, read_recipe
from robustgen.config.recipe import Arm
from robustgen.datasets import load_splits
from robustgen.pipeline.graph import stages
from robustgen.pipeline.monitor import frame, sparkline
from robustgen.pipeline.study import folders_of, is_study, single_runs
from robustgen.recipes import RECIPES, STUDIES, find_recipe
from robustgen.records.verdicts import Verdicts
from robustgen.report.tables import baseline_of, changes_of, name_of
from robustgen.stats.seeds import SeedStatistics, correlate, rank_correlation
from robustgen.storage.files import read_json, write_json
from robustgen.storage.run_folder import RunDir

SMOKE = RECIPES["digits-smoke"]


def with_arms(**arms):
    return from_content({**SMOKE.to_json(), "arms": {name: arm.to_json() for name, arm in arms.items()}}, "test")


def finish(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "robustgen", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_arm_is_trained_by_the_recipes_settings_and_its_own_changes():
    changes = ("averaging=0", "augment=shift-1+cutmix", "schedule.peak_lr=1/8", "models=3")
    recipe = with_arms(real=Arm(), other=Arm(changes=changes))
    assert recipe.training("real") == SMOKE.train
    other = recipe.training("other")
    assert (other.ema_decay, other.augment, other.schedule.peak_lr) == (0.0, "shift-1+cutmix", 0.125)
    assert other.schedule.total_images == SMOKE.train.schedule.total_images and other.loss == SMOKE.train.loss
    plan = {stage.name: stage for stage in stages(recipe, RunDir("nowhere"))}
    assert plan["train other-2"].stage.config == other and plan["train real-0"].stage.config == SMOKE.train
    assert "train real-2" not in plan and plan["evaluate other"].needs == tuple(f"train other-{m}" for m in range(3))


def test_an_arm_may_have_more_real_images_than_the_others():
    recipe = with_arms(all=Arm(train_images="all"), more=Arm(proxy="edm", train_images=1200), real=Arm())
    plan = {stage.name: stage.stage for stage in stages(recipe, RunDir("nowhere"))}
    wanted = {"train all-0": None, "train more-0": 1200, "train real-0": 100, "labeller": 100, "fit edm": 100}
    assert {name: plan[name].data.train for name in wanted} == wanted
    few, many, most = (load_splits(plan[name].data) for name in ("train real-0", "train more-0", "train all-0"))
    assert [len(part.train) for part in (few, many, most)] == [100, 1200, 1797 - 40 - 64]
    assert set(few.train.source_rows) < set(many.train.source_rows) < set(most.train.source_rows)
    for part in (few, many):
        assert np.array_equal(part.validation.source_rows, most.validation.source_rows)
        assert np.array_equal(part.test.source_rows, most.test.source_rows)
    content = recipe.to_json()
    names = [name_of(content, arm) for arm in content["arms"]]
    assert names == ["all real images", "1,200 real + edm", "real only"]
    assert baseline_of(content, content["arms"]) == "real" and baseline_of(content, ["more", "all"]) == "all"


def test_generated_images_alone_are_named_so():
    phases = ({"proxies": ["edm", "gaussian"], "share": 1},)
    alone = {"proxy": None, "phases": phases, "changes": ("real_share=0",)}
    arms = {
        "two": alone,
        "one": {"proxy": "edm", "changes": ("real_share=0", "smooth=all")},
        "most": {"proxy": None, "train_images": "all", "changes": ()},
    }
    assert [name_of({"arms": arms}, arm) for arm in arms] == [
        "edm + gaussian only",
        "edm only, smooth=all",
        "all real images",
    ]


@pytest.mark.parametrize("wrong", ["everything", 0, "-3", 1.5, True])
def test_a_wrong_number_of_real_images_of_an_arm_is_refused(wrong):
    content = SMOKE.to_json()
    content["arms"]["real"]["train_images"] = wrong
    expected = f"test: arms.real.train_images: expected a number of images, or all, got {wrong!r}"
    with pytest.raises(ValueError) as error:
        from_content(content, "test")
    assert str(error.value) == expected


def test_the_labeller_is_waited_for_by_the_arms_that_ask_it():
    recipe = with_arms(real=Arm(), hat=Arm(changes=("loss=hat", "beta=2.5")))
    needs = {stage.name: stage.needs for stage in stages(recipe, RunDir("nowhere"))}
    assert "labeller" in needs["train hat-0"] and "labeller" not in needs["train real-0"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "ema_deca=0",
            "arms.x.changes: unknown setting ema_deca; did you mean ema_decay? known: architecture, normalize, loss",
        ),
        ("schedule.lr=1", "known under schedule: total_images"),
        ("real_share=2", "real_share: input should be less than or equal to 1"),
        ("averaging", "expected SETTING=VALUE such as real_share=0.5, got 'averaging'"),
        ("loss=ham", "arms.x.changes: loss: unknown loss 'ham'"),
        ("real_weight=ham", "arms.x.changes: loss.real_weight: expected a number"),
    ],
)
def test_wrong_changes_are_refused_at_birth(change, message):
    with pytest.raises(ValueError, match=r"test: ") as error:
        with_arms(x=Arm(changes=(change,)))
    assert message in str(error.value).replace("Input", "input") and "\n" not in str(error.value)


def test_what_an_arm_changes_must_fit_the_rest_of_the_recipe():
    content = RECIPES["digits-certified"].to_json()
    content["arms"]["real"]["changes"] = ["noise.sigma=0.5"]
    with pytest.raises(ValueError, match=r"loss.sigma \(0.5\) and certification.sigma \(0.25\)"):
        from_content(content, "test")


def test_recipes_from_before_there_were_changes_and_seeds_are_read():
    content = SMOKE.to_json()
    del content["seeds"]
    for arm in content["arms"].values():
        del arm["changes"]
    assert from_content(content, "old") == SMOKE
    assert name_of(content, "edm") == "real + edm" and changes_of(content["arms"]["edm"]) == {}


def test_arms_are_named_by_what_they_change_and_the_baseline_changes_nothing():
    recipe = with_arms(
        raw=Arm(changes=("averaging=0",)), real=Arm(), half=Arm(proxy="edm", changes=("real_share=0.5",))
    ).to_json()
    assert [name_of(recipe, arm) for arm in recipe["arms"]] == [
        "real only, averaging=0",
        "real only",
        "real + edm, real_share=0.5",
    ]
    assert baseline_of(recipe, recipe["arms"]) == "real" and baseline_of(recipe, ["half", "raw"]) == "raw"
    assert changes_of(recipe["arms"]["half"]) == {"real_share": "0.5"}


@pytest.mark.parametrize("seeds", ["[1]", "[1,2,1]"])
def test_a_study_has_two_seeds_or_more(seeds):
    with pytest.raises(ValueError, match="seeds: a study needs two or more different seeds"):
        override(SMOKE, [f"seeds={seeds}"])
    assert override(SMOKE, ["seeds=1,2"]).seeds == (1, 2)


def test_yaml_may_name_seeds_and_changes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: digits-smoke\nseeds: [3, 4]\narms:\n  raw: {changes: [averaging=0]}\n")
    recipe = read_recipe(path, RECIPES)
    assert recipe.seeds == (3, 4) and recipe.training("raw").ema_decay == 0 and "edm" in recipe.arms


def test_mean_deviation_and_interval_of_three_seeds_are_those_on_paper():
    one = SeedStatistics((1.0, 2.0, 3.0))
    assert (one.mean, one.deviation, one.range) == (2.0, 1.0, (1.0, 3.0))
    half = 4.302652730 / math.sqrt(3)  # t of 2 degrees of freedom at 0.975
    assert one.interval == pytest.approx((2 - half, 2 + half), abs=1e-7)
    assert math.isnan(SeedStatistics((1.0,)).deviation) and math.isnan(SeedStatistics((1.0,)).interval[0])
    assert math.isnan(SeedStatistics(()).mean)


def test_the_interval_for_the_mean_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(5.0, 2.0, size=(2000, 3))
    covered = [low < 5.0 < high for low, high in (SeedStatistics(tuple(row)).interval for row in draws)]
    assert abs(np.mean(covered) - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)


def test_rank_correlations_are_spearmans_with_ties_and_without():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 4, 9).astype(float), rng.normal(size=9)
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))


def test_a_measure_that_orders_generators_in_every_seed_is_certain_and_noise_is_not():
    rng = np.random.default_rng(1)
    bought = np.arange(7.0) + 0.2 * rng.random((3, 7))
    sure = correlate(np.exp(-bought), bought)
    assert sure.value == -1 and sure.interval == pytest.approx((-1, -1)) and sure.each == pytest.approx((-1, -1, -1))
    loose = correlate(rng.normal(size=(3, 7)), bought)
    assert loose.interval[0] < 0 < loose.interval[1] and loose.interval[0] <= loose.value <= loose.interval[1]
    with pytest.raises(ValueError, match="G at least 3"):
        correlate(bought[:, :2], bought[:, :2])
    with pytest.raises(ValueError, match="finite"):
        correlate(np.full((3, 7), np.nan), bought)


def test_every_setting_that_the_study_of_digits_changes_is_known_to_its_family():
    from robustgen.augment import build_augmentation

    study = find_recipe(str(REPOSITORY / "docs/study/digits-study/recipe.yaml"))
    assert study.seeds == (0, 1, 2) and len(study.arms) == 37
    for arm in study.arms:
        build_augmentation(study.training(arm).augment)
    shares = {study.training(f"edm-{share}").real_share for share in ("0.1", "0.5", "0.7", "0.9")}
    assert shares | {study.train.real_share} == {0.1, 0.3, 0.5, 0.7, 0.9}
    assert sum(study.training(arm).ema_decay == 0 for arm in study.arms) == 5


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two seeds of a recipe without generators, run by one command: its folder, the recipe's file, what was said."""
    folder = tmp_path_factory.mktemp("study")
    fewer = ("labeller.schedule.total_images=128", "train.schedule.total_images=512")
    small = override(SMOKE, ["seeds=0,1", "data.test=40", "train.models=1", *fewer])
    arms = {"real": Arm(), "raw": Arm(changes=("averaging=0",))}
    recipe = small.model_copy(update={"name": "two", "arms": arms, "generators": {}})
    write_json(folder / "two.json", recipe.to_json())
    out = finish("run", folder / "two.json", "--into", folder / "runs", "--jobs", 1)
    return folder / "runs", folder / "two.json", out


def test_one_command_runs_every_seed_and_reports_all(study):
    folder, _, out = study
    assert is_study(folder) and folders_of([folder]) == [folder / "seed-0", folder / "seed-1"]
    assert (
        "Seed 0" in out and "Seed 1" in out and "real only, averaging=0" in out and str(folder / "report.html") in out
    )
    for seed in (0, 1):
        recipe = read_json(folder / f"seed-{seed}" / "recipe.json")
        assert recipe["seed"] == seed and recipe["seeds"] == []
    weights = [(folder / f"seed-{seed}" / "labeller" / "weights.safetensors").read_bytes() for seed in (0, 1)]
    assert weights[0] != weights[1]
    arms = [
        (folder / "seed-0" / "classifiers" / f"{arm}-0" / "weights.safetensors").read_bytes() for arm in ("real", "raw")
    ]
    assert arms[0] != arms[1]
    verdicts = [Verdicts.load(folder / f"seed-{seed}" / "evaluation" / "raw.quick.npz") for seed in (0, 1)]
    assert (verdicts[0].ids == verdicts[1].ids).all()
    page = (folder / "report.html").read_text()
    assert "two, 2 seeds" in page and 'href="seed-1/report.html"' in page


def test_a_study_shows_itself_and_is_taken_for_no_run(study):
    folder, _, _ = study
    assert "| real only, averaging=0 | 2 |" in finish("show", folder)
    done = subprocess.run(
        [sys.executable, "-m", "robustgen", "compare", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "is a study of several seeds; name one of its runs" in done.stderr


def test_a_study_is_gone_on_with_not_done_again(study):
    folder, path, _ = study
    (folder / "seed-1" / "evaluation" / "raw.quick.done").unlink()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("weights.safetensors")}
    out = finish("run", path, "--into", folder, "--jobs", 1)
    assert "evaluate raw: started" in out and "train raw-0: done before" in out and "train raw-0: started" not in out
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("weights.safetensors")}


def test_a_seed_of_a_study_is_the_run_that_this_seed_makes_alone(study, tmp_path):
    folder, path, _ = study
    finish("run", path, "--seed", 1, "--into", tmp_path / "one", "--jobs", 1)
    for name in ("recipe.json", "classifiers/raw-0/weights.safetensors", "evaluation/raw.quick.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (folder / "seed-1" / name).read_bytes(), name


def test_another_recipe_in_the_folder_of_a_study_is_refused(study):
    folder, path, _ = study
    done = subprocess.run(
        [sys.executable, "-m", "robustgen", "run", str(path), "--into", str(folder), "--set", "train.beta=5"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "train.loss.beta: stored 6.0, requested 5.0" in done.stderr


def test_a_dry_study_writes_nothing(tmp_path):
    out = finish("run", REPOSITORY / "docs/study/digits-study/recipe.yaml", "--dry-run", "--into", tmp_path / "x")
    assert "seed-2" in out and "train real-mixup-raw-0" in out and not (tmp_path / "x").exists()


def test_watching_shows_stages_curves_and_accuracies(study, tmp_path):
    folder, _, _ = study
    out = finish("watch", folder, "--once")
    assert out.count("finished; 7 of 7 stages done") == 2 and "real only, averaging=0" in out
    recipe = override(SMOKE, [])
    run = RunDir(tmp_path / "r")
    run.ensure_recipe(recipe.to_json())
    assert "not running; 0 of 20 stages done" in frame(run.root)
    lines = [{"step": step, "loss": 2.0 - step / 10} for step in range(1, 9)]
    lines.append({"step": 8, "averaged_clean": 0.75, "averaged_robust": 0.25})
    place = run.classifier("real", 1)
    place.mkdir(parents=True)
    (place / "progress.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 9, "lo')
    (run.root / ".lock").write_text("999999999")
    seen = frame(run.root)
    assert "stopped; repeat robustgen run" in seen
    assert f"step 8 of {recipe.train.schedule.steps}, loss █▇▆▅▄▃▂▁ 1.200" in seen and "robust ▄ 25.0 %" in seen
    with pytest.raises(ValueError, match="is not a run folder"):
        frame(tmp_path / "nowhere")


def test_watching_ends_with_the_run_and_is_left_by_ctrl_c(study, tmp_path):
    folder, _, _ = study
    assert "finished" in finish("watch", folder)
    RunDir(tmp_path / "r").ensure_recipe(SMOKE.to_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "robustgen", "watch", str(tmp_path / "r"), "--every", "0.2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # even where it is ignored
    )  # fmt: skip
    time.sleep(3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "0 of 20 stages done" in out and not err


def test_sparklines_reach_from_the_lowest_to_the_highest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█" and sparkline([7, 0]) == "█▁"
    assert sparkline([3, 3, 3]) == "▄▄▄" and sparkline([0, math.nan, 1]) == "▁ █" and len(sparkline(range(1000))) == 24


def test_the_seeds_of_a_study_are_ordinary_recipes(tmp_path):
    recipe = override(SMOKE, ["seeds=5,7"])
    runs = single_runs(recipe, tmp_path)
    assert [(one.seed, one.seeds, run.root.name) for one, run in runs] == [(5, (), "seed-5"), (7, (), "seed-7")]
    RunDir(tmp_path).ensure_recipe(recipe.to_json())
    with pytest.raises(ValueError, match="no seed of the study"):
        folders_of([tmp_path])


@pytest.mark.parametrize("name", STUDIES)
def test_studies_are_files_beside_their_records(name):
    """They are the recipes of the records: the same settings of every arm, whatever names they had then."""
    folder = REPOSITORY / "docs" / "study" / name
    recipe = find_recipe(str(folder / "recipe.yaml"))
    assert recipe.name == name and len(recipe.seeds) == 3
    recorded = from_content(read_json(folder / "records" / "recipe.json"), name)
    same = recipe.model_copy(update={"summary": recorded.summary, "arms": recorded.arms})
    assert same == recorded and recipe.arms.keys() == recorded.arms.keys()
    for arm in recipe.arms:
        assert recipe.training(arm) == recorded.training(arm) and recipe.arms[arm].proxies == recorded.arms[arm].proxies
    with pytest.raises(ValueError, match=rf"is a file of the repository: docs/study/{name}/recipe\.yaml"):
        find_recipe(name)
