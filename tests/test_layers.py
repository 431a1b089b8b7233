"""Imports go down, never up, never sideways between siblings."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "robustgen"

FLOORS = [
    {
        "units",
        "assignments",
        "spreads",
        "downloads",
        "randomness",
        "threat",
        "objectives",
        "modes",
        "runs",
        "records",
        "images",
        "display",
        "recipe",
        "weights",
        "distributed",
        "overrides",
        "parts",
        "fits",
        "trainings",
        "checkpoints",
        "interruption",
        "tracking",
        "planner",
        "costs",
    },
    {"contracts", "comparison", "unpickling", "study"},
    {"datasets", "augment", "generators", "models", "attacks", "losses"},
    {"proxy", "training", "evaluation", "report", "analysis"},
    {"recipes"},
    {"verbs"},
    {"pipeline"},
    {"crew", "watching"},
    {"cli"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
# A loss brings its inner attack, augmented images their augmentation, mixtures read proxy sets, an analysis refuses the
# images and logits that an evaluation refuses, by the same checks, and trains its discriminators as classifiers are
# trained; everything else keeps to its own room.
SIDEWAYS = {
    ("losses", "attacks"),
    ("generators", "augment"),
    ("training", "proxy"),
    ("analysis", "evaluation"),
    ("analysis", "training"),
}
WITHOUT_TORCH = [
    "tracking",
    "planner",
    "costs",
    "interruption",
    "weights",
    "comparison",
    "runs",
    "assignments",
    "spreads",
    "study",
    "report",
    "recipe",
    "parts",
    "fits",
    "trainings",
    "units",
    "display",
    *(f"records.{file.stem}" for file in sorted((PACKAGE / "records").glob("*.py")) if file.stem != "__init__"),
    *(
        f"verbs.{file.stem}"
        for file in sorted((PACKAGE / "verbs").glob("*.py"))
        if file.stem not in ("__init__", "publishing")
    ),
    "downloads",
    "pipeline",
    "crew",
    "watching",
    "cli",
    "recipes",
]


def part_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports_of(path: Path) -> set[str]:
    """Parts of the package a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [node.module or ""]
            if node.module == "robustgen":
                names = [f"robustgen.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("robustgen.")}
    return found - {"__version__"}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__main__.py",) and path.parent != PACKAGE)
MODULES += sorted(path for path in PACKAGE.glob("*.py") if path.name not in ("__main__.py", "__init__.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = part_of(path)
    for there in imports_of(path) - {here}:
        if (here, there) in SIDEWAYS:
            continue
        below = FLOOR[there] < FLOOR[here]
        foundations = FLOOR[here] == FLOOR[there] <= 1
        assert below or foundations, f"{here} (floor {FLOOR[here]}) imports {there} (floor {FLOOR[there]})"


def test_every_part_has_a_floor():
    assert {part_of(path) for path in MODULES} == set(FLOOR)


def test_foundations_do_not_import_each_other_in_circles():
    order: list[str] = []
    foundations = FLOORS[0] | FLOORS[1]
    waiting: dict[str, set[str]] = {name: set() for name in foundations}
    for path in MODULES:
        if (here := part_of(path)) in foundations:
            waiting[here] |= imports_of(path) & (foundations - {here})
    while waiting:
        free = [name for name, needs in waiting.items() if needs <= set(order)]
        assert free, f"a circle among {sorted(waiting)}"
        order += free
        waiting = {name: needs for name, needs in waiting.items() if name not in free}


def test_reports_recipes_and_the_command_line_do_without_torch():
    modules = ", ".join(f"robustgen.{name}" for name in WITHOUT_TORCH)
    code = f"import sys, {modules}, robustgen.report.page\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_torchvision_is_imported_nowhere():
    assert not [path for path in PACKAGE.rglob("*.py") if "torchvision" in path.read_text()]
