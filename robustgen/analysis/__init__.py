"""Analyses by name, as on the command line. Their contract is `contracts.Analysis`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from robustgen.analysis.arc import ARC
from robustgen.analysis.conditions import Conditions
from robustgen.analysis.contracts import Analysis, ProxyAnalysis
from robustgen.analysis.landscapes import Landscapes
from robustgen.analysis.sweeps import RadiusSweep, StepSweep
from robustgen.analysis.transfer import Transfer
from robustgen.analysis.transport import Transport
from robustgen.units import parse_number

_T = TypeVar("_T")

ANALYSES: dict[str, Analysis] = {
    "radius-sweep": RadiusSweep(),
    "step-sweep": StepSweep(),
    "landscapes": Landscapes(),
}

PROXY_ANALYSES: dict[str, ProxyAnalysis] = {
    "arc": ARC(),
    "transport": Transport(),
    "transfer": Transfer(),
    "conditions": Conditions(),
}
"""Analyses that compare generated images with real ones. Their contract is `contracts.ProxyAnalysis`."""

RENAMED = {"neighbours": "neighbors"}
"""Old names of settings, still accepted."""


def find_analysis(name: str, changes: Iterable[str] = ()) -> Analysis:
    """Find an analysis of a classifier by name and change its settings: `find_analysis("step-sweep", ["steps=5,10"])`.

    Raises:
        ValueError: an unknown name or setting (the message lists the known ones), or an invalid value.
    """
    return _changed(ANALYSES, name, changes)


def find_proxy_analysis(name: str, changes: Iterable[str] = ()) -> ProxyAnalysis:
    """Find an analysis of generated images by name and change its settings: `find_proxy_analysis("arc", ["steps=10"])`.

    Raises:
        ValueError: as `find_analysis`.
    """
    return _changed(PROXY_ANALYSES, name, changes)


def _changed(family: Mapping[str, _T], name: str, changes: Iterable[str]) -> _T:
    if name not in family:
        raise ValueError(f"unknown analysis {name!r}; known: {', '.join([*ANALYSES, *PROXY_ANALYSES])}")
    analysis: Any = family[name]
    for change in changes:
        place, _, text = change.partition("=")
        place = RENAMED.get(place, place)
        known = [field.name for field in fields(analysis)]
        if place not in known:
            raise ValueError(f"unknown setting {place!r} of {name}; known: {', '.join(known)}")
        analysis = replace(analysis, **{place: _value(place, text, getattr(analysis, place))})
    return analysis


def _value(place: str, text: str, default: Any) -> Any:
    """Parse text as the type of the setting's default: text, a number, or numbers separated by commas."""
    if isinstance(default, str):
        return text
    if isinstance(default, tuple):
        return tuple(_number(place, part) for part in text.split(",") if part.strip())
    return _number(place, text)


def _number(place: str, text: str) -> int | float:
    try:
        number = parse_number(text)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return int(number) if number.is_integer() else number


__all__ = [
    "ANALYSES",
    "ARC",
    "PROXY_ANALYSES",
    "Conditions",
    "Landscapes",
    "RadiusSweep",
    "StepSweep",
    "Transfer",
    "Transport",
    "find_analysis",
    "find_proxy_analysis",
]
