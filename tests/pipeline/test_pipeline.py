"""A whole run: every stage, killed at any moment, in one process or several."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robustgen.config.generators import ECTConfig, EDMConfig
from robustgen.config.loading import override, read_recipe
from robustgen.config.recipe import (
    Arm,
    CertificationConfig,
    KeepConfig,
    MeasureConfig,
    Recipe,
    SamplingConfig,
    SelectionConfig,
)
from robustgen.config.sampler import SamplerConfig
from robustgen.pipeline.graph import stages
from robustgen.pipeline.scheduler import plan_jobs
from robustgen.recipes import RECIPES
from robustgen.records.history import History
from robustgen.records.loading import load_record
from robustgen.records.record import PENDING, About
from robustgen.records.sweeps import RadiusSweepRecord
from robustgen.records.verdicts import Verdicts
from robustgen.report.page import write_report
from robustgen.report.tables import read_results, results_table
from robustgen.storage.files import read_json, write_json
from robustgen.storage.run_folder import RunDir

SMOKE = RECIPES["digits-smoke"]
ALIKE = (
    ".npz",
    ".npy",
    ".safetensors",
    ".done",
    *(f"{x}.json" for x in ("manifest", "model", "generator", "data", "recipe")),
)
"""Files of a run that two runs of one recipe share byte for byte; timings, locks and the report differ."""


def command(*arguments):
    return [sys.executable, "-m", "robustgen", *map(str, arguments)]


def finish(*arguments, **options):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def contents(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name.endswith(ALIKE))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run, two stages at a time."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    finish("run", "digits-smoke", "--into", folder, "--jobs", 2)
    return folder


def test_leaves_what_the_design_says(whole):
    run = RunDir(whole)
    assert read_json(run.recipe) == SMOKE.to_json()
    assert {"torch", "numpy", "python", "commit"} <= read_json(run.environment).keys()
    for arm in SMOKE.arms:
        verdicts = Verdicts.load(run.verdicts(arm, "quick"))
        assert verdicts.finished and len(verdicts) == 64 and verdicts.threat == "linf:0.1"
        for model in range(2):
            folder = run.classifier(arm, model)
            assert read_json(folder / "model.json")["threat"] == "linf:0.1"
            assert len(History.load(folder / "history.npz")) == SMOKE.train.schedule.steps
            assert not (folder / "checkpoint.pt").exists()
    assert not list(whole.rglob("*.part"))


def test_the_better_model_of_each_arm_is_evaluated(whole):
    run = RunDir(whole)
    for arm in SMOKE.arms:
        scores = [read_json(run.classifier(arm, m) / "model.json")["validation"]["robust"][0] for m in range(2)]
        chosen = read_json(run.verdicts(arm, "quick").with_suffix(".done"))["classifier"]
        assert chosen == f"{arm}-{scores.index(max(scores))}"


def test_one_process_makes_the_same_bytes_as_several(whole, tmp_path):
    finish("run", "digits-smoke", "--into", tmp_path / "one", "--jobs", 1)
    assert contents(tmp_path / "one") == contents(whole)


def test_killed_at_any_moment_and_repeated_makes_the_same_bytes(whole, tmp_path):
    folder, kills = tmp_path / "killed", 0
    moments = random.Random(0)
    for attempt in range(12):
        process = subprocess.Popen(
            command("run", "digits-smoke", "--into", folder, "--jobs", 2),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Starting takes two or three seconds; then anything may be going on.
        try:
            process.wait(timeout=moments.uniform(2.0, 6.0) if attempt < 6 else 300)
        except subprocess.TimeoutExpired:
            kills += 1
            # Once the parent alone, so that its workers must notice; once all of them.
            process.kill() if attempt % 2 else os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            continue
        assert process.returncode == 0
        break
    assert kills >= 2 and (folder / "report.html").exists()
    assert contents(folder) == contents(whole)
    assert not list(folder.rglob("*.part")) and not list(folder.rglob("checkpoint.pt"))


def test_workers_die_with_their_parent(tmp_path):
    process = subprocess.Popen(
        command("run", "digits-smoke", "--into", tmp_path / "r", "--jobs", 2), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline()  # a stage has started, so workers are there
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs Linux's list of child processes")
    workers = [int(pid) for pid in children.read_text().split()]
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_ctrl_c_leaves_a_run_that_can_go_on_and_says_so(whole, tmp_path):
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        command("run", "digits-smoke", "--into", folder, "--jobs", 2),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # even where it is ignored
    )
    for line in process.stdout:
        if line.startswith("train real-0"):
            break
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip() == "Stopped. Everything finished is kept; repeat the command to resume."
    finish("run", "digits-smoke", "--into", folder, "--jobs", 2)
    assert contents(folder) == contents(whole)


def test_a_finished_run_is_not_done_again(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.name.endswith(ALIKE)}
    done = finish("run", "digits-smoke", "--into", whole)
    assert "started" not in done.stdout and "train edm-1: done before" in done.stdout
    assert "real + edm" in done.stdout and "report.html" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.name.endswith(ALIKE)}


def test_the_report_is_one_file_rebuilt_from_records(whole):
    run = RunDir(whole)
    kept = run.report.read_text()
    run.report.unlink()
    write_report(run)
    page = run.report.read_text()
    assert page == kept
    for word in ("http://", "https://", 'src="/', "<script ", "@import", "url(h", "url(/"):
        assert word not in page.replace("http://www.w3.org", ""), word
    assert page.count("<svg") == 4 and page.count("data:image/png") == 3 + 1 and "<h3>Adversarial examples" in page
    assert "real + edm" in page and "linf 0.1" in page and "torch" in page


def test_the_table_is_that_of_the_verdicts(whole):
    results = read_results(RunDir(whole))
    table = results_table(results)
    assert [row[0] for row in table.rows] == ["real only", "real + gaussian", "real + edm"]
    for row, verdicts in zip(table.rows, results.verdicts.values(), strict=True):
        assert row[1] == f"{100 * verdicts.right.mean():.1f}" and row[3] == f"{100 * verdicts.robust.mean():.1f}"
    base, last = results.verdicts["real"], results.verdicts["edm"]
    assert table.rows[2][5] == f"{100 * (last.robust.mean() - base.robust.mean()):+.1f}"
    assert table.rows[0][5:] == ("", "")


def test_stages_need_only_earlier_ones_and_unused_generators_are_left_out():
    recipe = SMOKE.model_copy(update={"arms": {"real": Arm(), "more": Arm(proxy="edm")}})
    plan = stages(recipe, RunDir("nowhere"))
    names = [stage.name for stage in plan]
    assert len(names) == len(set(names)) and not any("gaussian" in name for name in names)
    for i, stage in enumerate(plan):
        assert set(stage.needs) <= set(names[:i])
    assert names[-1] == "report"


def test_a_generator_may_have_its_own_rule_of_selection(tmp_path):
    special = KeepConfig(rule="all", special={"edm": SelectionConfig(per_class=5)})
    recipe = RECIPES["digits-smoke"].model_copy(update={"keep": special})
    rules = {stage.name: stage.stage.config for stage in stages(recipe, RunDir("r")) if stage.kind == "keep"}
    assert rules == {"keep gaussian": SelectionConfig(rule="all"), "keep edm": SelectionConfig(per_class=5)}
    (tmp_path / "mine.yaml").write_text("base: digits-smoke\nkeep: {special: {edm: {rule: balanced, per_class: 3}}}\n")
    read = read_recipe(tmp_path / "mine.yaml", RECIPES)
    assert read.keep.of("edm").rule == "balanced" and read.keep.of("gaussian").rule == "all"
    (tmp_path / "mine.yaml").write_text("base: digits-smoke\nkeep: {special: {nobody: {rule: all}}}\n")
    with pytest.raises(ValueError, match=r"keep\.special names generator .nobody."):
        read_recipe(tmp_path / "mine.yaml", RECIPES)


def test_only_what_some_arms_need_is_planned():
    run, recipe = RunDir("r"), RECIPES["digits-smoke"]
    names = [stage.name for stage in stages(recipe, run, ("real",))]
    assert names == ["data", "train real-0", "train real-1", "evaluate real"]
    both = [stage.name for stage in stages(recipe, run, ("edm", "real"))]
    assert "keep edm" in both and "labeller" in both and "train real-0" in both
    assert not {"fit gaussian", "measure edm", "report"} & set(both)
    with pytest.raises(ValueError, match="digits-smoke has no arm 'nope'; known: real, gaussian, edm"):
        stages(recipe, run, ("real", "nope"))


def test_what_ranks_by_discriminators_is_scored_first_and_certificates_are_of_the_arms_named(tmp_path):
    changes = {
        "keep": KeepConfig(rule="discriminator", per_class=5),
        "analyses": ("arc",),
        "certification": CertificationConfig(arms=("edm",)),
    }
    plan = {stage.name: stage for stage in stages(SMOKE.model_copy(update=changes), RunDir(tmp_path))}
    assert plan["keep edm"].needs == ("score edm",) and plan["score edm"].needs == ("label edm",)
    assert plan["score edm"].output.name == "discriminator.npy" and "arc edm" in plan
    assert [name for name in plan if name.startswith("certify")] == ["certify edm"]
    with pytest.raises(ValueError, match=r"certification\.arms: unknown arm 'none'; known: real, gaussian, edm"):
        Recipe.model_validate({**dict(SMOKE), "certification": CertificationConfig(arms=("none",))})


def test_generators_wait_for_those_they_start_from_or_are_guided_by(tmp_path):
    unet = {"channels": 8, "multipliers": (1, 1), "blocks": 1, "attention": (), "total_images": 64, "batch_size": 64}
    recipe = SMOKE.model_copy(
        update={
            "generators": {
                "big": EDMConfig(**unet, peak_lr=1e-3),
                "weak": EDMConfig(**unet, peak_lr=1e-3),
                "fast": ECTConfig(**unet, base="big"),
                "apart": ECTConfig(**unet, base="elsewhere/edm"),
                "unused": EDMConfig(**unet, peak_lr=1e-3),
            },
            "sampling": SamplingConfig(
                count=100,
                special={"fast": SamplerConfig(evaluations=1), "big": SamplerConfig(guidance=2.0, guide="weak")},
            ),
            "arms": {"a": Arm(proxy="big"), "b": Arm(proxy="fast"), "c": Arm(proxy="apart")},
            "measure": MeasureConfig(),
        }
    )
    needs = {stage.name: stage.needs for stage in stages(recipe, RunDir(tmp_path))}
    assert needs["fit fast"] == ("fit big",) and needs["fit apart"] == ("data",)
    assert needs["sample big"] == ("fit big", "fit weak") and needs["sample fast"] == ("fit fast",)
    assert "fit weak" in needs and "sample weak" not in needs and "fit unused" not in needs
    assert needs["measure fast"] == ("keep fast",) and "measure fast" in needs["report"]


def test_jobs_follow_cores_and_the_width_of_the_flow(monkeypatch):
    plan = stages(SMOKE, RunDir("nowhere"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert 3 <= plan_jobs(plan, "cpu", 1) <= 10
    assert plan_jobs(plan, "cpu", 32) == 2
    assert plan_jobs(plan, "cuda", 1) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert plan_jobs(plan, "cpu", 4) == 1


def test_other_seeds_are_other_runs_on_the_same_images(whole, tmp_path):
    finish("run", "digits-smoke", "--into", tmp_path / "r", "--seed", 1, "--set", "evaluation.suite=pgd-40")
    other, first = RunDir(tmp_path / "r"), RunDir(whole)
    ours = Verdicts.load(other.verdicts("real", "pgd-40"))
    assert (ours.ids == Verdicts.load(first.verdicts("real", "quick")).ids).all()
    for part in ("labeller", "generators/edm", "classifiers/real-0"):
        name = f"{part}/weights.safetensors"
        assert (other.root / name).read_bytes() != (whole / name).read_bytes()
    assert override(SMOKE, ["seed=1"]).data == SMOKE.data


def test_analyses_of_a_run_go_into_its_report(whole, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(whole, folder)
    plain = (folder / "report.html").read_text()
    assert "Diagnostics" not in plain
    dry = finish("analyse", "radius-sweep", folder, "--dry-run").stdout
    assert all(f"would analyse {arm} into" in dry for arm in SMOKE.arms) and not (folder / "analysis").exists()
    for name, settings in (
        ("radius-sweep", ("steps=5", "radii=0,0.1,0.2,0.5")),
        ("step-sweep", ("steps=2,5",)),
        ("landscapes", ("points=9", "steps=5")),
    ):
        sets = [word for setting in settings for word in ("--set", f"analysis.{setting}")]
        out = finish("analyse", name, folder, *sets).stdout
        assert "real: " in out and "edm: " in out and str(folder / "report.html") in out
    assert len(list((folder / "analysis").glob("*.npz"))) == 9
    run = RunDir(folder)
    for arm in SMOKE.arms:
        for name in ("radius-sweep", "step-sweep", "landscapes"):
            findings = load_record(run.findings(arm, name))
            assert findings.finished and findings.about.threat == "linf:0.1"
        sweep = load_record(run.findings(arm, "radius-sweep"))
        verdicts = Verdicts.load(run.verdicts(arm, "quick"))
        assert (sweep.ids == verdicts.ids).all() and (sweep.right == verdicts.right).all()
    page = run.report.read_text()
    assert page.count("<svg") == plain.count("<svg") + 3
    for words in (
        "Robust accuracy over the radius",
        "over the number of attack steps",
        "Loss landscapes",
        "u, along the attack",
    ):
        assert words in page.replace("&#39;", "'"), words
    for word in ("http://", "https://", 'src="/', "<script ", "@import", "url(h", "url(/"):
        assert word not in page.replace("http://www.w3.org", ""), word
    write_report(run)
    assert run.report.read_text() == page
    refused = subprocess.run(
        command("analyse", "radius-sweep", folder, "--into", tmp_path / "x.npz"), capture_output=True, text=True
    )
    assert refused.returncode == 2 and "leave out --into" in refused.stderr


def test_generators_are_set_beside_each_other_in_the_report(whole, tmp_path):
    """A finished run goes on with what a longer recipe asks for besides."""
    folder = tmp_path / "r"
    shutil.copytree(whole, folder)
    recipe = SMOKE.model_copy(update={"measure": MeasureConfig(), "analyses": ("transport", "conditions", "transfer")})
    write_json(folder / "recipe.json", recipe.to_json())
    (folder / "report.html").unlink()
    out = finish("run", folder / "recipe.json", "--into", folder).stdout
    assert "train edm-0: done before" in out and "measure edm: started" in out
    page = (folder / "report.html").read_text()
    assert "Comparison of the generators" in page and "classifier-fid" in page and "excess transport" in page
    assert "edm, transfer:" in page and "gaussian, conditions:" in page
    plain = (whole / "report.html").read_text()
    assert "Comparison of the generators" not in plain
    out = finish("compare", folder).stdout
    assert "McNemar" in out and "real and edm" in out


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_goes_on_without_an_analysis_that_cannot_be_made_and_says_so(whole, tmp_path, jobs):
    folder, run = tmp_path / "r", RunDir(tmp_path / "r")
    shutil.copytree(whole, folder)
    recipe = SMOKE.model_copy(update={"analyses": ("transport",)})
    write_json(run.recipe, recipe.to_json())
    labels = np.load(run.proxy("edm") / "label.npy")
    np.save(run.proxy("edm") / "label.npy", np.where(labels == 7, 1, labels))
    out = finish("run", run.recipe, "--into", folder, "--jobs", jobs).stdout
    why = run.failed_stages()["transport edm"]
    assert "label 7" in why and f"transport edm: not made: {why}" in out and f"Not made (transport edm): {why}" in out
    assert "transport gaussian: started" in out and list(run.failed_stages()) == ["transport edm"]
    page = run.report.read_text().replace("&#39;", "'")
    assert f"not made: transport edm: {why}" in page
    watched = finish("watch", folder, "--once").stdout
    assert "finished" in watched and f"not made: {why}" in watched
    np.save(run.proxy("edm") / "label.npy", labels)
    out = finish("run", run.recipe, "--into", folder, "--jobs", jobs).stdout
    assert "not made" not in out.lower() and not run.failed_stages()
    assert "not made" not in run.report.read_text() and ">excess transport</th>" in run.report.read_text()


def test_red_flags_of_analyses_reach_the_report_and_unfinished_ones_do_not(whole, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(whole, folder)
    run = RunDir(folder)
    verdicts = Verdicts.load(run.verdicts("real", "quick"))
    count = len(verdicts)
    sweep = RadiusSweepRecord(
        about=About("RadiusSweep()", verdicts.threat, 0),
        ids=verdicts.ids,
        labels=verdicts.labels,
        values=np.array([0.0, 0.1, 0.5]),
        right=np.ones(count, dtype=bool),
        stands=np.ones((count, 3), dtype=np.int8),
        margin=np.zeros((count, 3), dtype=np.float32),
        grey=np.array(0.5),
    )
    sweep.stands[:, 1] = 0
    sweep.save(run.findings("real", "radius-sweep"))
    sweep.stands[:, 2] = PENDING
    sweep.save(run.findings("edm", "radius-sweep"))
    write_report(run)
    page = run.report.read_text()
    assert "real only, radius sweep: robust accuracy rises by 100.0 points from radius 0.1 to 0.5" in page
    assert "real only, radius sweep: robust accuracy is still 100.0 % at radius 0.5" in page
    assert "real + edm, radius sweep" not in page
