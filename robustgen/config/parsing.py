"""Parse dotted settings from text. Errors are one line: which setting, what was expected, what came."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from robustgen.config.generator_base import TrainedGeneratorConfig
from robustgen.config.generators import GENERATOR_CONFIGS
from robustgen.config.losses import FLAT_NAMES, OLD_GROUPS, switched
from robustgen.config.training import TrainingConfig
from robustgen.units import show_value

OPEN_ENDED = ("generators", "arms", "published", "sampling.special", "keep.special")
"""Settings of a recipe whose entries have names of the user's choice. An entry set to none is removed."""


def explain(error: ValidationError, prefix: str = "") -> str:
    """A validation error as one line: which setting, what was expected, what came."""
    lines = []
    for problem in error.errors():
        place = ".".join(map(_shown, _without_kinds(problem["loc"])))
        place = ".".join(filter(None, [prefix, place]))
        message = problem["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        came = "" if problem["type"] in ("missing", "value_error") else f", got {show_value(problem['input'])}"
        lines.append(f"{place}: {message}{came}" if place else message)
    return "; ".join(lines)


def _without_kinds(place: tuple[int | str, ...]) -> list[int | str]:
    """A place without the kinds of generators that pydantic adds: first, or after the name of a generator."""
    added = {0} | {index + 2 for index, step in enumerate(place) if step == "generators"}
    return [step for index, step in enumerate(place) if not (index in added and step in GENERATOR_CONFIGS)]


def _shown(step: object) -> str:
    """The name of a setting as it is where it can be one."""
    text = str(step)
    return text if len(text) <= 60 and text.isprintable() else show_value(text)


def assign(
    content: dict[str, Any],
    assignments: Iterable[str],
    example: str = "train.loss.beta=5",
    defaults: Mapping[str, dict[str, Any]] = MappingProxyType({}),
) -> None:
    """Change JSON-like content in place by assignments "a.b=c"; a loss is changed before its settings.

    Args:
        defaults: settings of a new entry, by the place of its entries.

    Raises:
        ValueError: not of that form, or an unknown setting (the known ones are named).
    """
    pairs = []
    for assignment in assignments:
        place, equals, text = assignment.partition("=")
        if not equals or not place.strip():
            raise ValueError(f"expected SETTING=VALUE such as {example}, got {assignment!r}")
        pairs.append((place.strip(), text.strip()))
    for place, text in sorted(pairs, key=lambda pair: not _chooses_loss(pair[0])):
        _assign(content, place, text, defaults)


def _chooses_loss(place: str) -> bool:
    return place.split(".")[-1] == "loss" or place.split(".")[-2:] == ["loss", "kind"]


def _assign(content: dict[str, Any], place: str, text: str, defaults: Mapping[str, dict[str, Any]]) -> None:
    here, steps, walked = content, place.split("."), list[str]()
    while True:
        steps = [*todays_names(steps, here)]
        step, parent = steps.pop(0), ".".join(walked)
        walked.append(step)
        if steps and parent in defaults and step not in here:
            here[step] = dict(defaults[parent])
        if not steps and parent in OPEN_ENDED and _replaces_entry(here, step, _value(text, False)):
            return
        if step not in here or (steps and not isinstance(here[step], dict)):
            new = f'; a new one is JSON such as {{"proxy": "edm"}}, got {text!r}' if text[:1] in ("{", "[") else ""
            raise ValueError(unknown(place, ".".join(walked), step, here) + (new if parent in OPEN_ENDED else ""))
        if step == "loss" and is_loss(here[step]) and steps in ([], ["kind"]):
            here[step] = switched(here[step], text)
            return
        if not steps:
            here[step] = _value(text, isinstance(here[step], list))
            return
        here = here[step]


def _replaces_entry(entries: dict[str, Any], name: str, value: Any) -> bool:
    """Set an entry to a whole object or list, or remove it if the value is none; whether it was one of these."""
    if isinstance(value, dict | list):
        entries[name] = value
        return True
    return value is None and entries.pop(name, None) is not None


def is_loss(content: object) -> bool:
    """Whether JSON-like content is the settings of a loss, not another value of the name `loss`."""
    return isinstance(content, dict) and "kind" in content


def todays_names(steps: Sequence[str], here: Mapping[str, Any]) -> Sequence[str]:
    """The current path to a setting, if its first step is a name of version 0.1."""
    first, *rest = steps
    if first in here:
        return steps
    renamed = {**TrainedGeneratorConfig.RENAMED, **TrainingConfig.RENAMED, "optimiser": "optimizer"}
    if renamed.get(first) in here:
        return [renamed[first], *rest]
    if is_loss(here.get("loss")) and first in FLAT_NAMES:
        return ["loss", *steps]
    if is_loss(here.get("loss")) and first in OLD_GROUPS and rest:
        return ["loss", *rest]
    return steps


def unknown(place: str, upto: str, step: str, here: Mapping[str, Any]) -> str:
    """Error text for an unknown setting, with the closest known one and all known ones."""
    parent = upto.rpartition(".")[0]
    prefix = f"{parent}." if parent else ""
    names = {name: f"{prefix}{name}" for name in here}
    if is_loss(here.get("loss")):
        names |= {name: f"{prefix}loss.{name}" for name in here["loss"]}
    close = difflib.get_close_matches(step, list(names), n=1)
    hint = f"did you mean {names[close[0]]}? " if close else ""
    member = f" of the loss {here['kind']}" if parent.split(".")[-1] == "loss" and is_loss(here) else ""
    return f"unknown setting {place}{member}; {hint}known{' under ' + parent if parent else ''}: {', '.join(here)}"


def _value(text: str, is_list: bool) -> Any:
    """Parse text as JSON if possible, "none" as None, comma-separated text as a list if one is expected."""
    if text.lower() in ("none", "null"):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [_value(item, False) for item in text.split(",") if item] if is_list else text
