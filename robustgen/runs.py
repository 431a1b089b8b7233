"""Run folders: every file name of a run, files that appear whole, locks, provenance. No torch here."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

_PART = ".part"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name complete or not at all: written aside, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises ValueError with the file's name when it is not JSON."""
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file ({error}); restore it or remove it") from None


class Pace:
    """Says when to save: as often as costs a fiftieth of the time, at most once a second."""

    def __init__(self) -> None:
        self._last, self._cost = time.monotonic(), 0.0

    def due(self) -> bool:
        return time.monotonic() - self._last > max(1.0, 50 * self._cost)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save: what it costs sets the pace."""
        began = time.monotonic()
        yield
        self._last = time.monotonic()
        self._cost = self._last - began


@contextmanager
def locked(folder: Path, file_name: str = "") -> Iterator[None]:
    """Keep other processes from writing into a folder, or one file of it; the system lifts the lock of the dead.

    What killed processes left half-written there is removed first.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":  # pragma: no cover - flock is POSIX; elsewhere nothing guards
        yield
        return
    import fcntl

    parts = folder.glob(f".{file_name}.*{_PART}") if file_name else folder.rglob(f".*{_PART}")
    with (folder / (f".{file_name}.lock" if file_name else ".lock")).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ValueError(
                f"{folder / file_name} is in use by process {holder}; wait for it, or choose another place with --into"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        for aside in parts:
            aside.unlink(missing_ok=True)
        yield


class RunDir:
    """Where the parts of a run lie. Names only: nothing is created before something is written."""

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def __repr__(self) -> str:
        return f"RunDir({str(self.root)!r})"

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.json"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def timings(self) -> Path:
        return self.root / "timings.json"

    @property
    def unmade(self) -> Path:
        return self.root / "unmade.json"

    @property
    def labeller(self) -> Path:
        return self.root / "labeller"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def real_samples(self) -> Path:
        return self.root / "real.npz"

    def generator(self, name: str) -> Path:
        return self.root / "generators" / name

    def proxy(self, name: str) -> Path:
        return self.root / "proxies" / name

    def classifier(self, arm: str, model: int) -> Path:
        return self.root / "classifiers" / f"{arm}-{model}"

    def verdicts(self, arm: str, suite: str) -> Path:
        return self.root / "evaluation" / f"{arm}.{suite}.npz"

    def findings(self, arm: str, analysis: str) -> Path:
        return self.root / "analysis" / f"{arm}.{analysis}.npz"

    def quality(self, name: str) -> Path:
        return self.root / "quality" / f"{name}.npz"

    def closeness(self, name: str, analysis: str) -> Path:
        return self.root / "analysis" / f"{name}.{analysis}.npz"

    def certificates(self, arm: str) -> Path:
        return self.root / "certification" / f"{arm}.npz"

    def claim(self, recipe: Mapping[str, Any], understood: Callable[[Any], Any] = lambda content: content) -> None:
        """Make this the folder of a recipe, or make sure that it is.

        Args:
            understood: fills in a stored recipe's settings that have come since it was written.

        Raises:
            ValueError: the folder holds a run of another recipe (the differences are listed), or other files.
        """
        if not self.recipe.exists():
            strangers = [p.name for p in self.root.iterdir() if p.name != ".lock"] if self.root.exists() else []
            if strangers:
                raise ValueError(
                    f"{self.root} holds other files ({', '.join(sorted(strangers)[:3])}) and no recipe.json; "
                    "choose an empty or new folder with --into"
                )
            write_json(self.recipe, recipe)
        stored = read_json(self.recipe)
        found = understood(stored)
        wanted = json.loads(json.dumps(recipe))
        if found != wanted:
            changes = "; ".join(differences(found, wanted)[:4])
            raise ValueError(
                f"{self.root} holds a run of another recipe: {changes}; choose another folder with --into, or remove it"
            )
        if stored != wanted:
            write_json(self.recipe, recipe)
        write_json(self.environment, environment())

    def add_timing(self, stage: str, seconds: float) -> None:
        """Add to the seconds a stage has taken, over all the times it was resumed."""
        taken = read_json(self.timings) if self.timings.exists() else {}
        taken[stage] = round(taken.get(stage, 0.0) + seconds, 3)
        write_json(self.timings, taken)

    def unmade_stages(self) -> dict[str, str]:
        """Stages that the run went on without, and why."""
        found: dict[str, str] = read_json(self.unmade) if self.unmade.exists() else {}
        return found

    def tell_unmade(self, stage: str, why: str | None) -> None:
        """Note why a stage could not be made, or with None that it has been."""
        found = self.unmade_stages()
        if found.pop(stage, None) == why:
            return
        write_json(self.unmade, found if why is None else {**found, stage: why})


def differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    """Where two recipes differ, a line each: "train.beta is 6.0 there, 5.0 here"."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        lines = []
        for key in sorted({*found, *wanted}):
            name = f"{path}.{key}" if path else str(key)
            if key not in found:
                lines.append(f"{name} is new here")
            elif key not in wanted:
                lines.append(f"{name} is only there")
            else:
                lines += differences(found[key], wanted[key], name)
        return lines
    return [] if found == wanted else [f"{path} is {json.dumps(found)} there, {json.dumps(wanted)} here"]


def environment() -> dict[str, str]:
    """What a result may depend on: versions, processor, commit."""
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
    """The commit of the source tree this package runs from, if it runs from one."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return "not in a git checkout"
    done = subprocess.run(
        ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def command_line() -> str:
    """The command that started this process, for the report."""
    return " ".join(["robustgen", *sys.argv[1:]])
