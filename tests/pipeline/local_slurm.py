"""A real Slurm on this machine, for tests: munged, slurmctld and slurmd on 127.0.0.1 with files in one folder.

The node has as many processors as this machine, and two GPUs that are only counted: no device belongs to them.
"""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "unshare")
PATHS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Where daemons are installed, which is not always on the PATH."""

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
KillWait=20
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=2000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why no Slurm can be started here; empty if it can."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=search_path())]
    if absent:
        return f"needs {', '.join(absent)}: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "needs root, as slurmd does"


def search_path():
    return os.pathsep.join([os.environ.get("PATH", ""), *PATHS])


@contextmanager
def running_slurm(folder: Path):
    """The environment of commands that use the Slurm started for the block.

    Its node does not see the folder HIDDEN_FOLDER of that environment, where the system lets a mount be its own.
    """
    hidden = folder / "hidden"
    environment = {
        **os.environ,
        "PATH": search_path(),
        "SLURM_CONF": str(folder / "slurm.conf"),
        "HIDDEN_FOLDER": str(hidden),
    }
    for name in ("state", "spool", "hidden"):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    controller, daemon = free_port(), free_port()
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            controller=controller,
            daemon=daemon,
            folder=folder,
            user="root",
            cores=os.cpu_count(),
        )
    )
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    started = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
        ["slurmctld", "-D", "-f", str(folder / "slurm.conf")],
        ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {hidden}; exec slurmd -D -f {folder}/slurm.conf"],
    ]
    processes = []
    try:
        for words in started:
            with (folder / f"{words[0]}.out").open("wb") as log:
                processes.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
            time.sleep(1)
        _wait_until_idle(environment, folder)
        yield environment
        subprocess.run(["scancel", "--me", "--signal=KILL"], env=environment, capture_output=True, check=False)
        subprocess.run(["scancel", "--me"], env=environment, capture_output=True, check=False)
        time.sleep(2)
    finally:
        for process in reversed(processes):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _wait_until_idle(environment, folder):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
        )
        if found.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    raise RuntimeError("\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log"))))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
