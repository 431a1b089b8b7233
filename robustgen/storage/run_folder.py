"""A run folder: the name of every file in it, and the recipe it belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustgen.storage.files import differences, read_json, write_json
from robustgen.storage.provenance import environment


class RunDir:
    """Paths of a run's files. Names only: nothing is created before something is written."""

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
    def failed_stages_file(self) -> Path:
        return self.root / "unmade.json"

    @property
    def jobs_file(self) -> Path:
        """The jobs of a cluster that work on this run, by stage."""
        return self.root / "jobs.json"

    @property
    def jobs(self) -> Path:
        """The state and the logs of the jobs of a cluster."""
        return self.root / "jobs"

    @property
    def data(self) -> Path:
        return self.root / "data.json"

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

    def ensure_recipe(self, recipe: Mapping[str, Any], migrate: Callable[[Any], Any] = lambda content: content) -> None:
        """Store the recipe in this folder, or verify that the stored recipe is the same.

        Args:
            recipe: the settings, as JSON-like content.
            migrate: converts a stored recipe of an older version: fills in settings that it lacks.

        Raises:
            ValueError: the folder holds a run of another recipe (lists the differences), or other files.
        """
        if not self.recipe.exists():
            others = (
                [p.name for p in self.root.iterdir() if p.name not in (".lock", ".jobs.lock", "auto.yaml")]
                if self.root.exists()
                else []
            )
            if others:
                raise ValueError(
                    f"{self.root} holds other files ({', '.join(sorted(others)[:3])}) and no recipe.json; "
                    "choose an empty or new folder with --into"
                )
            write_json(self.recipe, recipe)
        stored = read_json(self.recipe)
        found = migrate(stored)
        wanted = json.loads(json.dumps(recipe))
        if "summary" in wanted:  # a description of the recipe, which changes no result
            found = {**found, "summary": wanted["summary"]}
        if found != wanted:
            changes = "; ".join(differences(found, wanted)[:4])
            raise ValueError(
                f"{self.root} holds a run of another recipe: {changes}; choose another folder with --into, or remove it"
            )
        if stored != wanted:
            write_json(self.recipe, recipe)
        write_json(self.environment, environment())

    def add_timing(self, stage: str, seconds: float) -> None:
        """Add seconds to the time of a stage, which sums over all resumptions."""
        taken = read_json(self.timings) if self.timings.exists() else {}
        taken[stage] = round(taken.get(stage, 0.0) + seconds, 3)
        write_json(self.timings, taken)

    def set_timing(self, stage: str, seconds: float) -> None:
        """Set the time of a stage, where it is known to be the sum over all resumptions."""
        taken = read_json(self.timings) if self.timings.exists() else {}
        if taken.get(stage) != seconds:
            write_json(self.timings, {**taken, stage: seconds})

    def failed_stages(self) -> dict[str, str]:
        """Stages that failed while the run continued, with the reason."""
        found: dict[str, str] = read_json(self.failed_stages_file) if self.failed_stages_file.exists() else {}
        return found

    def record_failure(self, stage: str, why: str | None) -> None:
        """Record why a stage failed; with None, that it succeeded."""
        found = self.failed_stages()
        if found.pop(stage, None) == why:
            return
        write_json(self.failed_stages_file, found if why is None else {**found, stage: why})
