"""Run the commands of a tutorial in order, and put what they print into its page.

python docs/make_tutorials.py docs/tutorials/digits.md

A command is an indented line; the block ```text below it holds its output. A block of Python with a title is a file,
which is written before the commands below it run. Pictures that the page shows are copied next to it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PIECE = re.compile(
    r'^```(?!text)\w+ title="(?P<file>[^"]+)"\n(?P<content>.*?)^```\n'
    r"|^(?P<commands>(?:^    \S[^\n]*\n)+)(?:\n^```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
PROGRESS = re.compile(r"started$|\d images?/s|\bleft\b")
"""Lines that depend on the speed of the machine: they are left out."""
DURATION = re.compile(r"(?:\d+ (?:h|min|s)\b ?)+")


def run_page(text: str, folder: Path) -> Iterator[tuple[re.Match[str], str]]:
    """Run a page in a folder: each block of commands, and what it printed. A command that fails stops it."""
    for piece in PIECE.finditer(text):
        if piece["file"]:
            (folder / piece["file"]).write_text(piece["content"])
        else:
            lines = [line.strip() for line in piece["commands"].splitlines()]
            yield piece, "".join(run_command(line, folder) for line in lines)


def run_command(line: str, folder: Path) -> str:
    """What a command prints, without progress, durations at the end of lines, and the folder's own path."""
    words = shlex.split(line.split(" #")[0])
    if words[0] not in ("robustgen", "python"):
        raise ValueError(f"a tutorial runs robustgen and python, not {line!r}")
    command = [sys.executable, *(["-m", "robustgen"] if words[0] == "robustgen" else []), *words[1:]]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "100"}
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{line} failed with code {done.returncode}:\n{done.stdout}")
    lines = done.stdout.replace(f"{folder}/", "").splitlines()
    kept = (re.sub(rf" \({DURATION.pattern}\)$", "", text.rstrip()) for text in lines if not PROGRESS.search(text))
    return "".join(f"{text}\n" for text in kept)


def without_numbers(text: str) -> str:
    """The text with every duration and number as #, and one space for many: what is the same on every machine."""
    text = DURATION.sub("# ", text)
    return re.sub(r"[ -]+", " ", re.sub(r"[+-]?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?", "#", text))


def main(page: Path) -> None:
    text = page.read_text()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new = text
        for piece, printed in run_page(text, folder):
            print(piece["commands"], printed, sep="\n", flush=True)
            if piece["output"] is not None:
                old = piece[0]
                new = new.replace(old, old.replace(f"```text\n{piece['output']}```", f"```text\n{printed}```"))
        for picture in re.findall(r"!\[[^\]]*\]\(([\w.-]+)\)", text):
            shutil.copy(folder / picture, page.parent / picture)
    page.write_text(new)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
