"""Provenance of a result: versions, processor, commit, command line."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def environment() -> dict[str, str]:
    """Versions, processor and commit: what a result may depend on."""
    packages = ("robustgen", "torch", "numpy", "scipy", "scikit-learn", "pillow")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()} {'-'.join(platform.libc_ver())}".strip(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "commit": _commit(),
        **versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the source tree, if this package runs from one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return "not in a git checkout"
    done = subprocess.run(
        ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def command_line() -> str:
    """The command that started this process, for the report."""
    return shlex.join(["robustgen", *sys.argv[1:]])
