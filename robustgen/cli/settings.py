"""Settings from the command line: the recipe, the changes to it, and the settings that each command uses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustgen.config.recipe import DataConfig, Recipe, ThreatConfig

_TEST_IMAGES = tuple(
    f"data.{name}"
    for name in (
        "name", "path", "resize", "test", "split_seed", "test_path", "balanced_test", "image_key", "label_key", "color",
        "skip_bad",
    )
)  # fmt: skip

_CERTIFICATION = ("sigma", "selection", "samples", "alpha", "every", "images")

USED_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "fit": ("data", "generators", "seed", "threads"),
    "train": ("data", "threat", "train", "seed", "threads"),
    "train --plain": ("data", "labeller", "seed", "threads"),
    "evaluate": (*_TEST_IMAGES, "threat", "evaluation", "seed", "threads"),
    "certify": (*_TEST_IMAGES, *(f"certification.{name}" for name in _CERTIFICATION), "seed", "threads"),
    "analyse": (*_TEST_IMAGES, "threat", "seed", "threads"),
    "analyse of a proxy set": ("data", "threat", "seed", "threads"),
    "measure": ("data", "measure", "seed", "threads"),
    "score": ("data", "threat", "seed", "threads"),
    "check": ("data",),
    "publish": (*_TEST_IMAGES,),
}
"""Settings of a recipe that each command uses: a name, or all below it. Any other is an error, never ignored."""


def whole_recipe(
    name: str, sets: Iterable[str] | None, data: str | None = None, seed: int | None = None, scale: str | None = None
) -> Recipe:
    """A recipe with the changes of the command line: the data, then the scale, then single settings."""
    from robustgen.config.loading import override
    from robustgen.recipes import find_recipe
    from robustgen.recipes.scaling import scaled

    settings = find_recipe(name)
    if data:
        kind, _, path = data.partition("=")
        settings = override(settings, [f"data.name={kind}", f"data.path={path or 'none'}", "data.test_path=none"])
    if scale:
        settings = scaled(settings, scale)
    return override(settings, [*(sets or []), *([] if seed is None else [f"seed={seed}"])])


def command_settings(
    command: str, recipe: Recipe, sets: Iterable[str] | None, data: str | None = None, seed: int | None = None
) -> Recipe:
    """A recipe for a command that uses a part of it: only that part can change, and only that part is validated.

    Raises:
        ValueError: a setting that is unknown, invalid, or not used by the command.
    """
    from robustgen.config.parsing import assign

    content = recipe.to_json()
    changed: dict[str, None] = {}
    if data:
        kind, _, path = data.partition("=")
        content["data"] |= {"name": kind, "path": path or None, "test_path": None}
        changed["data"] = None
    assignments = [*(sets or []), *([] if seed is None else [f"seed={seed}"])]
    assign(content, assignments)
    for text in assignments:
        name = text.partition("=")[0].strip()
        if not any(name == used or name.startswith(f"{used}.") for used in USED_SETTINGS[command]):
            raise ValueError(f"{command} does not use {name}; it uses: {', '.join(USED_SETTINGS[command])}")
        changed[name.partition(".")[0]] = None
    return recipe.model_copy(update={section: _validated(recipe, section, content[section]) for section in changed})


def _validated(recipe: Recipe, section: str, content: Any) -> Any:
    """One section of a recipe from JSON-like content."""
    from typing import Annotated

    from pydantic import TypeAdapter, ValidationError

    from robustgen.config.parsing import explain

    field = type(recipe).model_fields[section]
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise ValueError(f"--set: {explain(error, section)}") from None


def data_of(text: str | None) -> DataConfig | None:
    """All images of "NAME" or "NAME=PATH"."""
    from robustgen.config.recipe import DataConfig

    if text is None:
        return None
    name, _, path = text.partition("=")
    config: DataConfig = checked(DataConfig, name=name, path=path or None)
    return config


def threat_of(text: str | None) -> ThreatConfig | None:
    """The threat model of "NORM:EPS"."""
    from robustgen.config.recipe import ThreatConfig

    if text is None:
        return None
    config: ThreatConfig = checked(ThreatConfig.model_validate, obj=text)
    return config


def of_analysis(sets: list[str] | None, threat: str | None) -> tuple[tuple[str, ...], list[str]]:
    """Split `--set` into settings of the analysis and of the recipe; the threat model is added to the latter."""
    own = tuple(text.removeprefix("analysis.") for text in sets or [] if text.startswith("analysis."))
    rest = [text for text in sets or [] if not text.startswith("analysis.")]
    return own, [*rest, *([f"threat={threat}"] if threat else [])]


def image_settings(
    image_key: str | None, label_key: str | None, balanced: bool = False, skip_bad: bool = False
) -> list[str]:
    """The options of images of one's own as settings."""
    given = {"image_key": image_key, "label_key": label_key}
    settings = [f"data.{name}={json.dumps(value)}" for name, value in given.items() if value is not None]
    settings += ["data.balanced_test=true"] if balanced else []
    return settings + (["data.skip_bad=true"] if skip_bad else [])


def checked(kind: Any, **values: Any) -> Any:
    """A configuration from options; an invalid value is an error of one line."""
    from pydantic import ValidationError

    from robustgen.config.parsing import explain

    try:
        return kind(**values)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def judged(
    command: str, place: str, recipe: str | None, sets: list[str] | None, data: str | None, threat: str | None,
    seed: int | None, images: int | None = None, test: str | None = None,
) -> Recipe:  # fmt: skip
    """The settings to evaluate a classifier with; prints images and threat model.

    These are the user's options, else those of the named recipe, else those that the classifier was trained for.

    Args:
        test: a file or folder whose images are all judged, instead of `data`.
    """
    from robustgen.config.recipe import CertificationConfig
    from robustgen.recipes import RECIPES, find_recipe
    from robustgen.runtime.distributed import place as process
    from robustgen.stages.targets import judged_on, trained_for

    named = None if recipe is None else find_recipe(recipe)
    words = (text.partition("=") for text in sets or [])
    assigned = {name.strip(): value.strip() for name, _, value in words}
    if test is not None:
        if data is not None:
            raise ValueError("--data and --test both say which images are judged; leave out one of them")
        data = "npz"  # of one's own; which kind is found when the file is read
    wanted = data_of(data or assigned.get("data.name")), threat_of(threat or assigned.get("threat"))
    images_of, adversary, said = judged_on(place, command, named, *wanted, test)
    base = (named or RECIPES["digits"]).model_copy(update={"data": images_of})
    if adversary is not None:
        base = base.model_copy(update={"threat": adversary})
    if base.certification is None:
        base = base.model_copy(update={"certification": CertificationConfig()})
    more = [f"data.test={images}"] if images else []
    more += [f"data.test_path={json.dumps(test)}"] if test is not None else []
    settings = command_settings(command, base, [*more, *(sets or [])], None, seed)
    known = named.data if named else trained_for(place).data
    if settings.data.path and wanted[0] is not None and not _same_files(settings.data, known):
        settings = settings.model_copy(update={"data": settings.data.model_copy(update={"only_test": True})})
    if process()[0] == 0:
        print(f"{said}{_which(settings.data)}", flush=True)
    return settings


def _which(data: DataConfig) -> str:
    """Which images of a file of test images are judged, where not all are."""
    if data.test is None or not (data.only_test or data.test_path):
        return ""
    return f", {data.test} images, the first of each class" if data.balanced_test else f", the first {data.test} images"


def _same_files(data: DataConfig, other: DataConfig | None) -> bool:
    """Whether both name the same files, so that some of the images may have been used for training."""
    return other is not None and data.name == other.name and Path(data.path or "") == Path(other.path or "")
