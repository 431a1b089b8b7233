"""Imports go down the list of folders, never up, never sideways between siblings."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "robustgen"

FLOORS = [
    {"units"},
    {"randomness", "objectives", "modes"},
    {"threat", "images"},
    {"config", "storage", "stats", "runtime", "contracts"},
    {"records", "planning"},
    {"datasets", "augment", "generators", "models", "attacks", "losses"},
    {"proxy", "training", "evaluation", "report", "analysis"},
    {"recipes"},
    {"stages"},
    {"pipeline"},
    {"cli", "api", "testing"},
]
"""Folders and modules of the package from the ground up; those of one set do not import each other."""

FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

SIDEWAYS = {
    ("losses", "attacks"): "a loss brings its inner attack",
    ("losses", "augment"): "a loss knows whether the augmentation mixes labels",
    ("losses", "models"): "HAT labels its helper examples by a standard classifier",
    ("generators", "augment"): "the augmented training images are a generator",
    ("training", "proxy"): "mixtures read proxy sets",
    ("analysis", "evaluation"): "an analysis refuses the images and logits that an evaluation refuses",
    ("analysis", "training"): "discriminators are trained like classifiers",
    ("runtime", "storage"): "logs and previews are files that appear whole",
}
"""Imports between siblings, each with its reason."""

WITHOUT_TORCH = ("config", "records", "stats", "report", "recipes", "planning", "pipeline", "cli")
"""Folders every module of which loads without torch: help answers at once, reports are rebuilt on a laptop."""

ALSO_WITHOUT_TORCH = (
    "units", "storage.files", "storage.run_folder", "storage.arrays", "storage.downloads", "storage.provenance",
    "runtime.preemption", "runtime.progress", "runtime.trackers", "storage.feature_weights",
)  # fmt: skip


def folder_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that a file imports at any place, as dotted names without the package's."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if is_package(module) else [module]
        found |= {name.removeprefix("robustgen.") for name in names if name.startswith("robustgen.")}
    return found - {"__version__"}


def is_package(module: str) -> bool:
    """Whether a dotted name is a folder of the package, from which modules may be imported by name."""
    return module == "robustgen" or PACKAGE.joinpath(*module.split(".")[1:]).is_dir()


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or "__" not in path.name)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = folder_of(path)
    for there in {name.split(".")[0] for name in imported_modules(path)} - {here}:
        if (here, there) in SIDEWAYS:
            continue
        assert FLOOR[there] < FLOOR[here], f"{here} (floor {FLOOR[here]}) imports {there} (floor {FLOOR[there]})"


def test_every_folder_has_a_floor():
    assert {folder_of(path) for path in MODULES} == set(FLOOR)


def test_every_exception_is_used():
    used = {(folder_of(path), name.split(".")[0]) for path in MODULES for name in imported_modules(path)}
    assert set(SIDEWAYS) <= used


def test_modules_of_a_folder_do_not_import_each_other_in_circles():
    names = {
        path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in MODULES
    }
    waiting = {name: imported_modules(path) & set(names.values()) - {name} for path, name in names.items()}
    done: set[str] = set()
    while waiting:
        free = {name for name, needs in waiting.items() if needs <= done}
        assert free, f"a circle among {sorted(waiting)}"
        done |= free
        waiting = {name: needs for name, needs in waiting.items() if name not in free}


def closure(start: Path) -> set[Path]:
    """The files of the package that somebody stands on who opens one: it, and all it imports at its top."""
    found, todo = set(), [start]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robustgen"):
                todo += [file for alias in node.names if (file := file_of(f"{node.module}.{alias.name}")) is not None]
    return found


@pytest.mark.parametrize(("start", "most"), [("losses/trades.py", 10), ("attacks/pgd.py", 8), ("stages/train.py", 80)])
def test_a_reader_needs_few_files(start, most):
    """To understand a member, a reader opens it and what it imports."""
    files = sorted(str(path.relative_to(PACKAGE)) for path in closure(PACKAGE / start))
    print(f"{start} stands on {len(files)} files: {', '.join(files)}")
    assert len(files) <= most


def file_of(name: str) -> Path | None:
    """The file of a module, or of the module that holds a name."""
    for parts in (name.split(".")[1:], name.split(".")[1:-1]):
        if not parts:
            return None
        file, folder = PACKAGE.joinpath(*parts).with_suffix(".py"), PACKAGE.joinpath(*parts)
        if file.exists():
            return file
        if (folder / "__init__.py").exists():
            return folder / "__init__.py"
    return None


def test_folders_that_do_without_torch():
    """Also with every module of theirs loaded."""
    modules = [
        f"robustgen.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}".removesuffix(".__init__")
        for path in MODULES
        if folder_of(path) in WITHOUT_TORCH
    ]
    modules += [f"robustgen.{name}" for name in ALSO_WITHOUT_TORCH]
    modules += [f"robustgen.stages.{path.stem}" for path in MODULES if folder_of(path) == "stages"]
    modules.remove("robustgen.stages.publish")
    code = f"import sys, {', '.join(modules)}\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_torchvision_is_imported_nowhere():
    assert not [path for path in PACKAGE.rglob("*.py") if "torchvision" in path.read_text()]


CONTRACTS = {
    "FORMAT": "proxy/formats", "fits": "proxy/formats", "read": "proxy/formats", "write": "proxy/formats",
    "INFO": "datasets", "load": "datasets", "BASE": "recipes", "ROWS": "recipes",
}  # fmt: skip
"""Names that all members of a folder may have, since the folder looks them up."""

REGISTERS = {"EXAMPLES": {"models/__init__", "augment/__init__"}}
"""Names of what several families list in the same way."""


def test_a_public_name_has_one_home():
    homes: dict[str, set[str]] = {}
    for path in MODULES:
        for name in public_names(path):
            homes.setdefault(name, set()).add(str(path.relative_to(PACKAGE).with_suffix("")))
    twice = {name: places for name, places in homes.items() if len(places) > 1}
    assert set(CONTRACTS) <= set(twice)
    for name, folder in CONTRACTS.items():
        assert all(Path(place).parent == Path(folder) for place in twice.pop(name))
    assert twice == REGISTERS


def public_names(path: Path) -> set[str]:
    """Functions, classes and variables that a module defines at its top."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}
