"""Training by several processes, and what befalls processes; the training itself is in small_training.py."""

import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_training import STEPS

from robustgen.randomness import rng_for
from robustgen.records.history import History
from robustgen.runtime import distributed
from robustgen.runtime.preemption import EXIT_CODE, Preempted
from robustgen.training.loop import Holder, Loop

PROGRAM = Path(__file__).with_name("small_training.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def environment(fault="", **more):
    return {**os.environ, "PYTHONPATH": str(PROGRAM.parents[2]), "ROBUSTGEN_TEST_FAULT": fault, **more}


def start(folder, *jobs, processes=1, fault="", program=PROGRAM):
    """The processes of a job, as srun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, str(program), str(folder), *jobs],
            env=environment(
                fault, RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def ended(started):
    """Exit codes and error outputs."""
    said = [process.communicate(timeout=240)[1] for process in started]
    return [process.returncode for process in started], said


def run(*arguments, **more):
    codes, said = ended(start(*arguments, **more))
    assert not any(codes), said


def weights(folder):
    return load_file(folder / "weights.safetensors")


def apart(one, other):
    """The largest difference of weights and statistics, and of losses."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    floats = [name for name in first if first[name].is_floating_point()]
    losses = [History.load(folder / "history.npz")["loss"] for folder in (one, other)]
    return max(float((first[name] - second[name]).abs().max()) for name in floats), abs(losses[0] - losses[1]).max()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The same training by one process and by two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    run(two, "plain", "norms of a process", "norms of all", processes=2)
    run(one, "plain", "plain in 2 passes", "norms of a process", "norms of a pass")
    return one, two


def test_two_processes_or_two_passes_make_the_steps_of_one(made):
    one, two = made
    for other in (two / "plain", one / "plain in 2 passes"):
        moved, lost = apart(one / "plain", other)
        assert moved < 1e-12 and lost < 1e-12  # float64


def test_norms_see_their_process_as_they_see_a_pass_or_with_all_see_the_whole_batch(made):
    one, two = made
    assert max(apart(two / "norms of a process", one / "norms of a pass")) < 1e-6
    assert max(apart(two / "norms of all", one / "norms of a process")) < 2e-4  # other sums, ten ascents
    assert min(apart(two / "norms of a process", one / "norms of a process")) > 1e-3


def test_one_process_writes_and_all_read(made):
    _, two = made
    names = {path.name for path in (two / "plain").iterdir() if not path.name.startswith(".")}
    assert names == {"checkpoint.pt", "history.npz", "progress.jsonl", "validation.npz", "weights.safetensors"}
    assert len(History.load(two / "plain" / "history.npz")) == STEPS


def test_shares_of_random_numbers_make_up_the_whole():
    whole = rng_for(0, "x")
    for shape, copies in (((12, 3, 2), 1), ((24, 5), 2), ((12,), 1)):
        for draw in ("uniform", "normal"):
            drawn = getattr(rng_for(0, "x"), draw)(shape)
            for which in range(3):
                share = rng_for(0, "x").share(which, 3, 4)
                own = getattr(share, draw)((shape[0] // 3, *shape[1:]))
                expected = drawn.unflatten(0, (copies, 12))[:, which::3].flatten(0, 1)
                assert torch.equal(own, expected)
    share = whole.share(1, 3, 4)
    assert torch.equal(share.integers(9, (4,)), rng_for(0, "x").integers(9, (12,))[1::3])
    assert torch.equal(share.at("y").uniform((4, 2)), rng_for(0, "x").at("y").uniform((12, 2))[1::3])
    assert torch.equal(
        rng_for(0, "x").share(2, 3, 4).each(range(4)).uniform((4, 2)),
        rng_for(0, "x").each(range(12)).uniform((12, 2))[2::3],
    )
    assert rng_for(0).share(0, 1, 4).uniform(()) == rng_for(0).share(1, 3, 4).uniform(()) == rng_for(0).uniform(())


def test_the_message_of_a_process_that_fails_reaches_the_others(tmp_path):
    codes, said = ended(start(tmp_path, "plain", processes=2, fault=f"error 1 3 {tmp_path / 'marker'}"))
    assert codes == [1, 1]
    assert said[1].strip() == "process 1 says: the disk of process 1 is full of tests"
    assert "process 1 of 2 stopped: the disk of process 1 is full of tests" in said[0]
    assert len(said[0].strip().splitlines()) == 1


@pytest.mark.slow
def test_sigterm_saves_and_says_that_it_can_be_repeated(tmp_path, made):
    one, _ = made
    (process,) = start(tmp_path, "plain", fault=f"SIGTERM 0 3 {tmp_path / 'marker'}")
    process.communicate(timeout=240)
    assert process.returncode == EXIT_CODE == 75
    kept = torch.load(tmp_path / "plain" / "checkpoint.pt", weights_only=True)
    assert kept["place"]["step"] == 3
    run(tmp_path, "plain")
    assert weights_equal(tmp_path / "plain", one / "plain")


def weights_equal(one, other):
    first, second = weights(one), weights(other)
    same = all(torch.equal(first[name], second[name]) for name in first)
    return same and (one / "history.npz").read_bytes() == (other / "history.npz").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_any_step_and_repeated_equals_unbroken(tmp_path, made, processes):
    chance = random.Random(processes)
    for turn in range(2):
        step = chance.randrange(1, STEPS)
        rank = chance.randrange(processes)
        folder = tmp_path / str(turn)
        codes, _ = ended(start(folder, "norms of a process", processes=processes, fault=fault_at(folder, rank, step)))
        assert codes[rank] == -signal.SIGKILL and all(codes)
        run(folder, "norms of a process", processes=processes)
        assert weights_equal(folder / "norms of a process", made[processes - 1] / "norms of a process")


def fault_at(folder, rank, step, kind="SIGKILL"):
    folder.mkdir()
    return f"{kind} {rank} {step} {folder / 'marker'}"


@pytest.mark.slow
def test_sigterm_to_one_of_two_stops_both_at_the_same_step(tmp_path, made):
    folder = tmp_path / "two"
    codes, _ = ended(start(folder, "plain", processes=2, fault=fault_at(folder, 1, 4, "SIGTERM")))
    assert codes == [EXIT_CODE, EXIT_CODE]
    run(folder, "plain", processes=2)
    assert weights_equal(folder / "plain", made[1] / "plain")


@pytest.mark.slow
def test_torchrun_starts_anew_and_the_training_goes_on(tmp_path, made):
    folder = tmp_path / "two"
    done = subprocess.run(
        [sys.executable, *TORCHRUN, "--max-restarts=2", str(PROGRAM), str(folder), "norms of a process"],
        env=environment(fault_at(folder, 1, 5)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[:3000]
    assert (folder / "marker").exists()
    assert weights_equal(folder / "norms of a process", made[1] / "norms of a process")


LATE = """
import os
import signal
import sys
import time
from datetime import timedelta

from torch.distributed import distributed_c10d

distributed_c10d.default_pg_timeout = timedelta(seconds=1)  # half an hour, unless a test is in a hurry
from robustgen.runtime.distributed import from_first, gathered, leave, place, wait_for_all
from robustgen.runtime.preemption import listening

rank, _ = place()
works = {
    "wait": lambda: time.sleep(3 * rank) or wait_for_all(),
    "gathered": lambda: time.sleep(3 * rank) or print(gathered(rank)),
    "first": lambda: print(from_first(lambda: time.sleep(3) or "made")),
    "others": lambda: time.sleep(3 * rank) or print(from_first(lambda: "made")),
    "killed": lambda: wait_for_all() if rank == 0 else os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: signal.alarm(1) or wait_for_all() if rank == 0 else time.sleep(3),
}
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
wait_for_all()
try:
    with listening():
        for name in sys.argv[1:]:
            works[name]()
except ValueError as error:
    sys.exit(str(error))
leave()
"""


@pytest.mark.slow
def test_processes_wait_for_late_ones_but_not_for_dead_ones(tmp_path):
    """Shares of a stage may take hours longer than others; torch gives operations half an hour."""
    program = tmp_path / "late.py"
    program.write_text(LATE)
    run("wait", "gathered", "first", "others", program=program, processes=2)
    codes, said = ended(start("killed", program=program, processes=2))
    assert codes == [1, -signal.SIGKILL] and said[0].startswith("another process died or cannot be reached")
    codes, _ = ended(start("SIGTERM", program=program, processes=2))
    assert codes[0] == EXIT_CODE


@pytest.mark.parametrize("others", [signal.SIGTERM, signal.SIGUSR2])
def test_processes_agree_on_the_signal_that_stopped_them(tmp_path, monkeypatch, others):
    """The first process may not have received it yet; only after SIGTERM its job must not go back into the queue."""
    monkeypatch.setattr(distributed, "total_over_all", lambda *counts: (1,))
    monkeypatch.setattr(distributed, "gathered", lambda thing: [thing, others])
    with (
        pytest.raises(Preempted) as stopped,
        Loop(tmp_path / "checkpoint.pt", 5, {"state": Holder()}, unit_per_step=1) as loop,
    ):
        for _ in loop:
            loop.record(torch.tensor(1.0))
    assert stopped.value.received == others and others.name in str(stopped.value)
