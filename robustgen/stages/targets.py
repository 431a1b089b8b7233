"""The classifiers that a command works on, and the images and threat model that each was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustgen.config.recipe import DataConfig, Recipe, ThreatConfig
from robustgen.config.source import not_there
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir


@dataclass(frozen=True)
class Target:
    """One classifier that a command works on.

    title  its name for the user: an arm of a run, or its place
    place  a folder made by train, a weights file, a function, or hub:NAME
    path   where the result goes
    """

    title: str
    place: str
    path: Path


@dataclass(frozen=True)
class Origin:
    """Data and threat model that a classifier was trained for, as far as known; `where` is the file that says so."""

    data: DataConfig | None = None
    threat: ThreatConfig | None = None
    where: str = ""


def is_run(place: str | Path) -> bool:
    """Whether this is the folder of a run."""
    return RunDir(Path(place)).recipe.exists()


def arms_of(folder: Path, command: str, into: Path | None) -> dict[str, Path]:
    """The classifier of every arm that a run has evaluated.

    Raises:
        ValueError: the run has evaluated nothing yet, or the results of a run are sent elsewhere.
    """
    from robustgen.report.tables import read_results

    if into is not None:
        raise ValueError(f"results of {command} on a run go into its folder {folder}; leave out --into")
    return {arm: folder / "classifiers" / name for arm, name in read_results(RunDir(folder)).chosen.items()}


def name_of_file(place: str) -> str:
    """A name for the results of a classifier that has no folder: its function's, its file's or its hub name."""
    return place.rpartition(":")[2] if ":" in place else Path(place).stem


def trained_for(place: str) -> Origin:
    """The images and the threat model that a classifier was trained for; empty for models from elsewhere.

    A folder made by the command train keeps them in `asked.json`, a classifier of a run in the run's recipe, a
    published folder in `model.json`, a model of the hub in the catalog.

    Raises:
        ValueError: there is no such file, folder or published model.
    """
    folder = Path(place)
    if place.startswith("hub:"):
        return _of_the_hub(place)
    if ":" not in place and not folder.exists():
        raise ValueError(not_there(place))
    if not (folder / "model.json").exists():
        return Origin()
    model = read_json(folder / "model.json")
    own = ThreatConfig.model_validate(model["threat"]) if model.get("threat") else None
    if (folder / "asked.json").exists():
        asked = read_json(folder / "asked.json")
        if "data" in asked:
            return Origin(DataConfig.model_validate(asked["data"]), own, str(folder / "asked.json"))
    above = folder.resolve().parent
    recipe = (above.parent if above.name == "classifiers" else above) / "recipe.json"
    if recipe.exists():
        content = read_json(recipe)
        return Origin(DataConfig.model_validate(content["data"]), own, str(recipe))
    where = f"{folder / 'model.json'}, which does not name the split: all test images"
    return Origin(DataConfig(name=model["dataset"]), own, where)


def _of_the_hub(place: str) -> Origin:
    from robustgen.models import hub
    from robustgen.models.catalog import RELEASE_INFOS

    full, release = hub.find_release(place.removeprefix(hub.PREFIX))
    data = DataConfig(name=RELEASE_INFOS[release.data].name)
    return Origin(data, ThreatConfig.model_validate(release.threat), f"the catalog's entry {full}")


def judged_on(
    place: str,
    command: str,
    settings: Recipe | None,
    data: DataConfig | None,
    threat: ThreatConfig | None,
    test: str | None = None,
) -> tuple[DataConfig, ThreatConfig | None, str]:
    """The images and the threat model to evaluate a classifier with, and a line that says so.

    The user's options have priority, then the recipe that the user names, then what the classifier was trained for.

    Args:
        settings: the recipe that the user names, if any.
        data, threat: options on the command line, if given.
        test: the file or folder of test images on the command line, if given.

    Raises:
        ValueError: the images or the threat model are unknown; says what to add.
    """
    origin = Origin(settings.data, settings.threat, f"recipe {settings.name}") if settings else trained_for(place)
    images, adversary = data or origin.data, threat or origin.threat
    missing = [] if images else ["--data NAME[=PATH] (see: robustgen list datasets)"]
    if adversary is None and command != "certify":
        missing.append("--threat NORM:EPS such as linf:8/255")
    if missing or images is None:
        raise ValueError(
            f"unknown what {place} was trained for: {command} needs {' and '.join(missing)}, or --recipe NAME"
        )
    said = f"{test or images.name} ({'the command line' if data else origin.where})"
    if adversary is not None and command != "certify":
        said += f", {adversary} ({'the command line' if threat else origin.where})"
    return images, adversary, f"{command} {place}: {said}"
