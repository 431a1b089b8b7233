"""Run the commands of a tutorial in order, put what they print into its page, and make a notebook of the page.

python docs/make_tutorials.py docs/tutorials/digits.md
python docs/make_tutorials.py --notebooks

The second form runs nothing, and makes the notebooks of all pages. A command is an indented line; the block ```text
below it holds its output. A block of Python with a title is a file, which is written before the commands below it run.
Pictures that the page shows are copied next to it. In the notebook, files become cells that write them, commands become
cells that run them, and pictures are shown by a cell.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PIECE = re.compile(
    r'^```(?!text)\w+ title="(?P<file>[^"]+)"\n(?P<content>.*?)^```\n'
    r"|^(?P<commands>(?:^    \S[^\n]*\n)+)(?:\n^```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
PROGRESS = re.compile(r"started$|\d images?/s|\bleft\b")
"""Lines that depend on the speed of the machine: they are left out."""
PICTURE = re.compile(r"^!\[[^\]]*\]\(([\w.-]+)\)\n", re.MULTILINE)
NOTEBOOK_LINE = re.compile(r"\s*The lesson is also a \[notebook\]\([\w.-]+\)\.")
PREPARE = """\
import importlib.util
import os
import sys
from pathlib import Path

if importlib.util.find_spec("robustgen") is None:
    raise ModuleNotFoundError("install robustgen for this kernel first: pip install . in a clone of its repository")
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])"""
"""The first cell: commands of the cells below are those of the kernel's own environment."""
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


def notebook_of(text: str) -> dict[str, Any]:
    """The notebook of a page, in Jupyter's format 4.5."""
    text = NOTEBOOK_LINE.sub("", text)
    cells: list[dict[str, Any]] = []

    def add(kind: str, source: str, output: str = "") -> None:
        cell: dict[str, Any] = {
            "cell_type": kind,
            "id": f"cell-{len(cells)}",
            "metadata": {},
            "source": source.strip("\n").splitlines(keepends=True),
        }
        if kind == "code":
            shown = [{"name": "stdout", "output_type": "stream", "text": output.splitlines(keepends=True)}]
            cell |= {"execution_count": None, "outputs": shown if output else []}
        cells.append(cell)

    def add_prose(prose: str) -> None:
        """Prose, and a cell for each picture in it."""
        for number, part in enumerate(PICTURE.split(prose)):
            if number % 2:
                add("code", f'from IPython.display import Image\n\nImage("{part}")')
            elif part.strip():
                add("markdown", part)

    add("code", PREPARE)
    at = 0
    for piece in PIECE.finditer(text):
        add_prose(text[at : piece.start()])
        at = piece.end()
        if piece["file"]:
            add("code", f"%%writefile {piece['file']}\n{piece['content']}")
        else:
            lines = [line.strip() for line in piece["commands"].splitlines()]
            add("code", "\n".join(["%%sh -e", *lines]), piece["output"] or "")
    add_prose(text[at:])
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def write_notebook(page: Path) -> None:
    notebook = json.dumps(notebook_of(page.read_text()), indent=1, ensure_ascii=False)
    page.with_suffix(".ipynb").write_text(notebook + "\n")


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
    write_notebook(page)


if __name__ == "__main__":
    if sys.argv[1] == "--notebooks":
        for page in sorted((REPOSITORY / "docs" / "tutorials").glob("*.md")):
            write_notebook(page)
    else:
        main(Path(sys.argv[1]).resolve())
