"""Files of every kind with bytes, fields and values changed at random: read as they are, or refused in one line.

The copies are read in a process of its own (damaged_files.py), whose memory and time are limited, and which notes what
is run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from damaged_files import TARGETS

PROGRAM = Path(__file__).with_name("damaged_files.py")
COPIES = int(os.environ.get("ROBUSTGEN_DAMAGED_COPIES", 2000))
"""Of each format, in the slow test; several forms of a format share them."""


def read_copies(folder, count, names):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(count), *names], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [one for one in found if "problem" in one], [one for one in found if "count" in one]


def test_damaged_files_are_read_or_refused(tmp_path):
    problems, counts = read_copies(tmp_path, 50, TARGETS)
    assert not problems, problems[:3]
    assert [one["target"] for one in counts] == list(TARGETS)
    assert all(one["refused"] for one in counts)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_thousands_of_damaged_files_are_read_or_refused(tmp_path, name):
    problems, (counted,) = read_copies(tmp_path, COPIES, [name])
    assert not problems, problems[:3]
    assert counted["count"] == round(COPIES * TARGETS[name].share) and counted["refused"] > counted["count"] / 4
