"""Compare the catalog of published models with a checkout of RobustBench: names, addresses, accuracies, papers.

    python dev/compare_hub.py FOLDER

FOLDER is a clone of github.com/RobustBench/robustbench. Its Python files are parsed, none is run. Prints one line for
every difference and exits with 1 if there is any. Where the authors publish the weights themselves, the catalog has
their address, which is not compared.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from robustgen.models.catalog import ABSENT, RELEASES, Release

NORMS = {"linf": "Linf", "l2": "L2"}
DATA = ("cifar10", "cifar100")
EXPLAINED = {
    ("cifar10/l2/Wang2023Better_WRN-28-10", "robust accuracy"): "the authors' figure, at 128/255",
    ("cifar10/l2/Wang2023Better_WRN-70-16", "robust accuracy"): "the authors' figure, at 128/255",
    ("cifar10/linf/Ding2020MMA", "paper"): "RobustBench links OpenReview, arXiv has it too",
    ("cifar10/l2/Ding2020MMA", "paper"): "RobustBench links OpenReview, arXiv has it too",
}
"""Differences that are meant to be."""


@dataclass(frozen=True)
class Entry:
    """A model of RobustBench: numbers in Google's drive, and what its JSON says."""

    numbers: tuple[str, ...]
    about: dict[str, object]


def zoo(folder: Path) -> dict[str, Entry]:
    """RobustBench's models by DATA/NORM/NAME.

    Raises:
        ValueError: not a checkout of RobustBench, or one of another form; says what is missing.
    """
    found = {}
    for data in DATA:
        path = folder / "robustbench" / "model_zoo" / f"{data}.py"
        if not path.is_file():
            raise ValueError(f"{folder} is not a checkout of RobustBench: it has no {path.relative_to(folder)}")
        tables = {
            target.id: node.value
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for norm, name_there in NORMS.items():
            if norm not in tables:
                continue  # CIFAR-100 has no l2 models
            for name, numbers in _pairs(tables[norm], path):
                about = folder / "model_info" / data / name_there / f"{name}.json"
                content = json.loads(about.read_text()) if about.is_file() else {}
                found[f"{data}/{norm}/{name}"] = Entry(numbers, content)
    return found


def _pairs(table: ast.expr, path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(name, numbers in Google's drive) of OrderedDict([(name, {"model": ..., "gdrive_id": ...}), ...])."""
    if not (isinstance(table, ast.Call) and len(table.args) == 1 and isinstance(table.args[0], ast.List)):
        raise ValueError(f"{path}:{table.lineno} is not an OrderedDict of a list of pairs")
    pairs = []
    for item in table.args[0].elts:
        if not (isinstance(item, ast.Tuple) and len(item.elts) == 2 and isinstance(item.elts[1], ast.Dict)):
            raise ValueError(f"{path}:{item.lineno} is not a pair of a name and a dictionary")
        settings = {
            ast.literal_eval(key): value
            for key, value in zip(item.elts[1].keys, item.elts[1].values, strict=True)
            if key is not None
        }
        if "gdrive_id" not in settings:
            raise ValueError(f"{path}:{item.lineno} has no 'gdrive_id'")
        numbers = ast.literal_eval(settings["gdrive_id"])
        pairs.append(
            (ast.literal_eval(item.elts[0]), tuple(numbers) if isinstance(numbers, list) else (numbers or "",))
        )
    return pairs


def differences(folder: Path) -> tuple[list[str], str]:
    """A line for every difference that `EXPLAINED` does not name, and a line of counts."""
    there = zoo(folder)
    lines = [f"{full}: in RobustBench, neither in RELEASES nor in ABSENT" for full in there.keys() - _ours()]
    lines += [f"{full}: in ABSENT, not in RobustBench" for full in ABSENT.keys() - there.keys()]
    addresses = 0
    for full in there.keys() & RELEASES.keys():
        release, entry = RELEASES[full], there[full]
        number = re.search(r"drive\.usercontent\.google\.com/.*[?&]id=([\w-]+)", release.files[0].url)
        addresses += number is not None
        if not release.files[0].url or (number and (number[1],) != entry.numbers):
            lines.append(
                f"{full}: address {number[1] if number else 'unknown'}, RobustBench {', '.join(entry.numbers)}"
            )
        if not entry.about:
            lines.append(f"{full}: RobustBench has no JSON about it")
            continue
        lines += [
            f"{full}: {what} {ours}, RobustBench {theirs}"
            for what, ours, theirs, equal in _figures(release, entry.about)
            if not equal and (full, what) not in EXPLAINED
        ]
    counts = (
        f"{len(there)} models of RobustBench: {len(there.keys() & RELEASES.keys())} in the catalog ({addresses} with "
        f"RobustBench's address), {len(there.keys() & ABSENT.keys())} absent with a reason"
    )
    return sorted(lines), counts


def _ours() -> set[str]:
    return {*RELEASES, *ABSENT}


def _figures(release: Release, about: dict[str, object]) -> list[tuple[str, str, str, bool]]:
    """(what, ours, theirs, whether they agree). 128/255 and 0.5 count as one radius, 8/255 and 0.031 do not."""
    eps = release.threat.partition(":")[2]
    theirs, paper = str(about["eps"]), re.search(r"arxiv\.org/\w+/(\d{4}\.\d{4,5})", str(about["link"]))
    link = paper[1] if paper else str(about["link"])
    clean, robust = str(about["clean_acc"]), str(about["autoattack_acc"])
    return [
        ("clean accuracy", f"{release.clean:.2f}", clean, release.clean == float(clean)),
        ("robust accuracy", f"{release.robust:.2f}", robust, release.robust == float(robust)),
        ("eps", eps, theirs, abs(Fraction(eps) / Fraction(theirs) - 1) < 0.005),
        ("paper", release.paper, link, release.paper == link),
    ]


def main(arguments: list[str]) -> int:
    """The exit code: 0 equal, 1 different, 2 misused."""
    if len(arguments) != 1:
        print(
            "usage: python dev/compare_hub.py FOLDER (a clone of github.com/RobustBench/robustbench)", file=sys.stderr
        )
        return 2
    try:
        lines, counts = differences(Path(arguments[0]))
    except (ValueError, SyntaxError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([*lines, counts]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
