"""A run on a real Slurm, which the tests start on this machine: jobs that are cancelled, killed, out of time."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_slurm import missing, running_slurm
from test_pipeline import SMOKE, contents

from robustgen.config.cluster import Cluster, Resources, cluster_of
from robustgen.pipeline import monitor
from robustgen.pipeline.graph import stages
from robustgen.pipeline.launchers import LAUNCHERS, attached, check_no_jobs
from robustgen.pipeline.launchers import slurm as slurm_module
from robustgen.pipeline.launchers.jobs import Job, keep_job, read_jobs, read_state
from robustgen.pipeline.launchers.slurm import describe_jobs, jobs_for
from robustgen.recipes import RECIPES
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir

PLAN = stages(SMOKE, RunDir("nowhere"))
ROW = RECIPES["rebuffi2021/cifar10-linf-wrn-28-10-cutmix-ddpm"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment of commands that use a Slurm of this machine; its node does not see the folder `hidden`."""
    pytest.importorskip("submitit")
    if missing():
        pytest.skip(missing())
    folder = tmp_path_factory.mktemp("slurm")
    with running_slurm(folder) as environment:
        yield environment


def words(folder, *options, recipe="digits-smoke"):
    return [sys.executable, "-m", "robustgen", "run", recipe, "--into", str(folder), *options]


def run(slurm, folder, *options, code=0, **more):
    done = subprocess.run(
        words(folder, *options, **more), env=slurm, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def wait_for(found, seconds=300):
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return value


def state_of(folder, stage):
    found = read_state(RunDir(folder), stage)
    return found.state if found else ""


def test_large_stages_take_what_was_asked_for_and_small_ones_one_process():
    cluster = Cluster().with_changes({"nodes": 2, "gpus_per_node": 8, "time": "12:00:00"}, ["train.nodes=4"])
    jobs = {job.stage.name: job.resources for job in jobs_for(cluster, ROW, stages(ROW, RunDir("nowhere")))}
    assert jobs["train ddpm-0"].processes == 32 and jobs["sample ddpm"].processes == 16
    assert jobs["labeller"].processes == 1 and jobs["labeller"].gpus_per_node == 1  # a third of an hour on one device
    assert jobs["data"].gpus_per_node == jobs["report"].gpus_per_node == 0
    told = cluster.with_changes({}, ["labeller.gpus_per_node=2", "labeller.nodes=1"])
    jobs = {job.stage.name: job.resources for job in jobs_for(told, ROW, stages(ROW, RunDir("nowhere")))}
    assert jobs["labeller"].processes == jobs["labeller"].gpus_per_node == 2
    lines = describe_jobs(jobs_for(cluster, ROW, stages(ROW, RunDir("nowhere"))))
    assert any(re.match(r"train ddpm-0 +4 x 8, 32 GPUs +12 h 0 min +11\.37 h +keep ddpm", line) for line in lines)


def test_on_nodes_without_gpus_every_stage_has_one_process_unless_told_otherwise():
    assert {job.resources.processes for job in jobs_for(Cluster(), SMOKE, PLAN)} == {1}
    told = Cluster().with_changes({}, ["train.tasks_per_node=2", "fit.tasks_per_node=2"])
    jobs = {job.stage.name: job.resources.processes for job in jobs_for(told, SMOKE, PLAN)}
    assert jobs["train real-0"] == jobs["fit edm"] == 2 and jobs["fit gaussian"] == jobs["keep edm"] == 1


def test_the_block_of_a_file_then_options_then_assignments():
    block = cluster_of({"partition": "a", "nodes": 3, "train": {"time": 43200, "qos": "long"}}, "mine.yaml: cluster")
    found = block.with_changes({"partition": "b", "nodes": None}, ["account=me", "train.qos=short"])
    assert found.of("train", True) == Resources(partition="b", nodes=3, time=43200, qos="short", account="me")
    assert found.of("keep", False) == Resources(partition="b", account="me", tasks_per_node=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--on", "moon"), "--on moon: unknown; known: slurm"),
        (("--nodes", "2"), "--nodes is for a cluster; add --on slurm"),
        (("--on", "slurm", "--gpus", "2"), "--gpus is for this machine; with --on slurm use --nodes"),
        (("--on", "slurm", "--time", "soon"), "time: expected a time such as 90m, 12h, 12:00:00 or 1-12:00:00, got"),
        (("--on", "slurm", "--set-resources", "tain.nodes=2"), "unknown kind of stage; known: data, labeller, fit"),
        (("--on", "slurm", "--set-resources", "train.node=2"), "unknown setting node; did you mean nodes?"),
        (
            ("--on", "slurm", "--nodes", "4", "--set-resources", "nodes.x=1"),
            "--set-resources nodes.x=1: expected NAME=VAL",
        ),
        (("--on", "slurm", "--device", "cuda:1"), "--device cuda:1: expected auto, cpu or cuda with --on slurm"),
        (("--on", "slurm", "--set-resources", "train.nodes=many"), "train.nodes: input should be a valid integer"),
    ],
)
def test_options_that_do_not_fit(robustgen, options, said):
    code, _, error = robustgen("run", "digits-smoke", "--dry-run", *options)
    assert code == 2 and said in error and error.count("\n") == 1


def test_a_block_of_a_file_that_does_not_fit(robustgen):
    Path("mine.yaml").write_text("base: digits-smoke\ncluster:\n  train: {node: 2}\n")
    code, _, error = robustgen("run", "mine.yaml", "--on", "slurm", "--dry-run")
    assert code == 2 and "mine.yaml: cluster: train.node: extra inputs are not permitted" in error
    Path("mine.yaml").write_text("base: digits-smoke\ncluster:\n  time: 12:00:00\n  train: {nodes: 2}\n")
    code, out, _ = robustgen("run", "mine.yaml", "--on", "slurm", "--dry-run")
    assert code == 0 and "2 x 1" in out and "12 h 0 min" in out


def test_every_launcher_has_what_a_run_asks_of_it():
    from inspect import signature

    for module in LAUNCHERS.values():
        for name in (
            "check_here",
            "jobs_for",
            "describe_jobs",
            "submit",
            "queue",
            "jobs_at_work",
            "end_of_job",
            "cancel_all",
        ):
            assert signature(getattr(module, name)) == signature(getattr(slurm_module, name))


def test_where_there_is_no_slurm(robustgen, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, error = robustgen("run", "digits-smoke", "--on", "slurm")
    assert code == 2 and "no Slurm here" in error and error.count("\n") == 1
    assert not Path("runs/digits-smoke/jobs.json").exists()


def take_for_slurm(monkeypatch, folder, **programs):
    """Shell lines in the place of Slurm's programs."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_a_folder_with_jobs_is_left_alone_while_slurm_does_not_answer(monkeypatch, tmp_path):
    run = RunDir(tmp_path / "r")
    run.root.mkdir()
    keep_job(run, "data", Job("7"))
    take_for_slurm(monkeypatch, tmp_path, squeue="exit 1")
    for use in (lambda: check_no_jobs(run), attached("slurm", [run]).__enter__):
        with pytest.raises(ValueError, match=r"Slurm does not answer .* remove .*jobs\.json if they have ended"):
            use()
    assert not (run.root / ".lock").exists()
    monkeypatch.setenv("PATH", "/nowhere")  # another machine, which cannot know
    check_no_jobs(run)


def test_a_run_that_goes_on_here_after_its_jobs_is_watched_as_one_of_this_machine(monkeypatch, tmp_path):
    run = RunDir(tmp_path)
    run.ensure_recipe(SMOKE.to_json())
    keep_job(run, "data", Job("7"))
    (tmp_path / ".lock").write_text(str(os.getpid()))
    monkeypatch.setattr(monitor, "queue", lambda: {"7": ("PENDING", "Priority")})
    assert "1 jobs of a cluster" in monitor.frame(tmp_path) and "job 7: waiting (Priority)" in monitor.frame(tmp_path)
    monkeypatch.setattr(monitor, "queue", dict)
    assert f"running, process {os.getpid()};" in monitor.frame(tmp_path) and "job 7" not in monitor.frame(tmp_path)
    (tmp_path / ".lock").unlink()
    assert "job 7: gone, without a log; repeat robustgen run to go on" in monitor.frame(tmp_path)


def test_jobs_without_a_gpu_are_not_told_to_use_one(monkeypatch, tmp_path):
    devices = {}

    def kept(run, job, needed, device):
        devices[job.stage.kind] = device
        return str(len(devices))

    monkeypatch.setattr(slurm_module, "_sbatch", kept)
    monkeypatch.setattr(slurm_module, "_check_accepted", lambda planned: None)
    monkeypatch.setattr(slurm_module, "queue", dict)
    run = RunDir(tmp_path)
    plan = stages(SMOKE, run)
    slurm_module.submit(run, jobs_for(Cluster({"gpus_per_node": 1}), SMOKE, plan), "cuda")
    assert devices["data"] == devices["keep"] == devices["report"] == "cpu"
    assert devices["train"] == devices["sample"] == "cuda"


def test_the_first_job_that_slurm_refuses_is_named(robustgen, monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    refusal = "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1"
    take_for_slurm(monkeypatch, tmp_path, sbatch=refusal, squeue="exit 0", sinfo="echo main")
    code, _, error = robustgen("run", "digits-smoke", "--on", "slurm", "--partition", "nope")
    assert code == 2 and error.count("\n") == 1
    assert "Slurm refuses the job of data: invalid partition specified: nope; partitions: main" in error


@pytest.mark.slow
def test_what_slurm_refuses_is_one_line_and_leaves_no_jobs(slurm, tmp_path):
    for options, said in (
        (("--partition", "nope"), "Slurm refuses the job of data: invalid partition specified: nope; partitions: main"),
        (("--gpus-per-node", "3"), "Requested node configuration is not available (1 nodes with 3 GPUs and 3 proc"),
    ):
        done = run(slurm, tmp_path / "r", "--on", "slurm", *options, code=2)
        assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not subprocess.run(["squeue", "-h"], env=slurm, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run by the cores of this machine."""
    folder = tmp_path_factory.mktemp("alone") / "r"
    subprocess.run(words(folder), check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_a_run_whose_jobs_are_cancelled_and_killed_and_whose_submitter_dies(slurm, alone, tmp_path):
    folder = tmp_path / "r"
    submitter = subprocess.Popen(
        words(folder, "--on", "slurm"), env=slurm, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    jobs = wait_for(lambda: (found := read_jobs(RunDir(folder))) and len(found) == len(PLAN) and found)
    second = run(slurm, folder, "--on", "slurm", code=2).stderr
    assert f"in use by process {submitter.pid}" in second
    assert "jobs work on it; follow them with --on slurm, or cancel them" in run(slurm, folder, code=2).stderr
    submitter.kill()
    submitter.wait()

    again = subprocess.Popen(
        words(folder, "--on", "slurm"), env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: state_of(folder, "train real-0") == "running")
    assert read_jobs(RunDir(folder)) == jobs
    watched = subprocess.run(
        [sys.executable, "-m", "robustgen", "watch", folder, "--once"], capture_output=True, text=True, check=True
    ).stdout  # without the environment of Slurm: from the folder alone
    assert f"job {jobs['train real-0'].id}: running on" in watched and f"{len(PLAN)} jobs of a cluster" in watched
    subprocess.run(["scancel", jobs["train real-0"].id], env=slurm, check=True)
    wait_for(lambda: state_of(folder, "train gaussian-0") == "running")
    for pid in processes_with(f"SLURM_JOB_ID={jobs['train gaussian-0'].id}"):
        os.kill(pid, signal.SIGKILL)
    out, error = again.communicate(timeout=900)
    assert again.returncode == 2 and error.count("\n") == 1, error
    assert "train real-0: job" in error and "was cancelled" in error and "also failed: train gaussian-0" in error
    assert "Killed" in out  # the last lines of the log
    assert state_of(folder, "train edm-0") == "finished" and not (folder / "report.html").exists()

    done = run(slurm, folder, "--on", "slurm")
    assert "jobs submitted" in done.stdout and "Report:" in done.stdout
    assert read_jobs(RunDir(folder))["train real-0"].tries == 2 and read_jobs(RunDir(folder))["data"] == jobs["data"]
    assert contents(folder) == contents(alone)
    assert read_json(RunDir(folder).timings).keys() == {stage.name for stage in PLAN}


def processes_with(variable):
    """Python processes that were started with an environment variable."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0") and b"python" in command[0]:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_job_out_of_time_goes_back_into_the_queue(slurm, tmp_path):
    """A training longer than its jobs may be makes the same bytes as one without a limit."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "base: digits-smoke\narms: {gaussian: null, edm: null}\ntrain: {models: 1, schedule: {total_images: 76800}}\n"
    )
    folder = tmp_path / "r"
    options = ("--on", "slurm", "--set-resources", "train.time=1m")
    process = subprocess.Popen(
        words(folder, *options, recipe=str(recipe)),
        env=slurm,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: state_of(folder, "train real-0") == "requeued", 600)
    job = read_jobs(RunDir(folder))["train real-0"].id
    more_time = ["scontrol", "update", f"JobId={job}", "TimeLimit=60", "StartTime=now"]  # Slurm would wait two minutes
    wait_for(lambda: subprocess.run(more_time, env=slurm, capture_output=True, check=False).returncode == 0)
    said = process.communicate(timeout=1800)
    assert process.returncode == 0, said
    state = read_state(RunDir(folder), "train real-0")
    assert state.state == "finished" and state.starts == 2 and state.job == job
    run(slurm, tmp_path / "alone", recipe=str(recipe))
    assert contents(folder) == contents(tmp_path / "alone")


@pytest.mark.slow
def test_two_tasks_of_a_job_train_like_two_devices_of_a_machine(slurm, alone, tmp_path, monkeypatch):
    """Two processes of gloo stand in for two GPUs, which Slurm only counts here."""
    made = []
    for name, options in (
        ("jobs", ("--on", "slurm", "--gpus-per-node", "2", "--set-resources", "train.gpus_per_node=2")),
        ("devices", ("--gpus-per-stage", "2")),
    ):
        made.append(tmp_path / name)
        shutil.copytree(alone, made[-1])
        for path in (*made[-1].glob("classifiers/*-0"), *made[-1].glob("evaluation"), made[-1] / "report.html"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        run({**slurm, "ROBUSTGEN_DEVICES": "cpu:2"}, made[-1], *options)
    assert read_jobs(RunDir(made[0]))["train real-0"].processes == 2
    assert contents(made[0]) == contents(made[1]) != contents(alone)


@pytest.mark.slow
def test_stop_cancels_the_jobs_and_run_goes_on(slurm, alone, tmp_path):
    folder = tmp_path / "r"
    process = subprocess.Popen(
        words(folder, "--on", "slurm"), env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: state_of(folder, "labeller") == "running")
    stop = [sys.executable, "-m", "robustgen", "stop", str(folder)]
    said = subprocess.run(stop, env=slurm, capture_output=True, text=True, check=True).stdout
    assert "labeller: stopped" in said and "report: stopped" in said
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2 and "was cancelled; repeat the command to go on" in error
    assert "no jobs of a cluster" in subprocess.run(stop, env=slurm, capture_output=True, text=True, check=True).stdout
    run(slurm, folder)  # on this machine, where jobs began
    assert contents(folder) == contents(alone)


@pytest.mark.slow
def test_a_folder_that_nodes_do_not_see(slurm):
    folder = Path(slurm["HIDDEN_FOLDER"])
    done = run(slurm, folder / "r", "--on", "slurm", code=2)
    assert "data: job" in done.stderr and "put the run on a file system that all nodes share" in done.stderr
    assert done.stderr.count("\n") == 1
