"""Dotted settings written as text, and what is wrong with them in one line: which setting, what is known, what came."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from robustgen.config.generators import GENERATOR_CONFIGS


def explain(error: ValidationError, prefix: str = "") -> str:
    """A validation error as one line: which setting, what was expected, what came."""
    lines = []
    for problem in error.errors():
        place = ".".join(str(step) for step in problem["loc"] if step not in GENERATOR_CONFIGS)
        place = ".".join(filter(None, [prefix, place]))
        message = problem["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        came = "" if problem["type"] in ("missing", "value_error") else f", got {problem['input']!r}"
        lines.append(f"{place}: {message}{came}" if place else message)
    return "; ".join(lines)


def assign(content: dict[str, Any], assignment: str, example: str = "train.beta=5") -> None:
    """Change JSON-like content in place by "a.b=c".

    Raises:
        ValueError: not of that form, or an unknown setting; names the known ones.
    """
    place, equals, text = assignment.partition("=")
    if not equals or not place.strip():
        raise ValueError(f"expected SETTING=VALUE such as {example}, got {assignment!r}")
    _assign(content, place.strip(), text.strip())


def _assign(content: dict[str, Any], place: str, text: str) -> None:
    *path, last = place.split(".")
    here = content
    for depth, step in enumerate(path):
        if not isinstance(here.get(step), dict):
            raise ValueError(unknown(place, ".".join(path[: depth + 1]), step, here))
        here = here[step]
    last = todays_name(last, here)
    if last not in here:
        raise ValueError(unknown(place, place, last, here))
    here[last] = _value(text, isinstance(here[last], list))


def todays_name(name: str, here: Mapping[str, Any]) -> str:
    """The name of a setting today, where it is one of version 0.1."""
    return "optimizer" if name == "optimiser" and "optimizer" in here else name


def unknown(place: str, upto: str, step: str, here: Mapping[str, Any]) -> str:
    parent = upto.rpartition(".")[0]
    prefix = f"{parent}." if parent else ""
    close = difflib.get_close_matches(step, list(here), n=1)
    hint = f"did you mean {prefix}{close[0]}? " if close else ""
    return f"unknown setting {place}; {hint}known{' under ' + parent if parent else ''}: {', '.join(here)}"


def _value(text: str, is_list: bool) -> Any:
    """JSON where it is JSON, None for none, a list for commas where a list is expected, else the text."""
    if text.lower() in ("none", "null"):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [_value(item, False) for item in text.split(",") if item] if is_list else text
