"""A run folder: the name of every file in it, and the recipe it belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustgen.storage.files import differences, read_json, write_json
from robustgen.storage.provenance import environment


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

    def claim(self, recipe: Mapping[str, Any], migrate: Callable[[Any], Any] = lambda content: content) -> None:
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
        found = migrate(stored)
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

    def failed_stages(self) -> dict[str, str]:
        """Stages that the run went on without, and why."""
        found: dict[str, str] = read_json(self.unmade) if self.unmade.exists() else {}
        return found

    def record_failure(self, stage: str, why: str | None) -> None:
        """Note why a stage could not be made, or with None that it has been."""
        found = self.failed_stages()
        if found.pop(stage, None) == why:
            return
        write_json(self.unmade, found if why is None else {**found, stage: why})
