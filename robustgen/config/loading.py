"""Load recipes from JSON, YAML and `--set`. Errors name the unknown or invalid setting, and the known ones."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from robustgen.config.cluster import Cluster, cluster_of
from robustgen.config.losses import switched
from robustgen.config.parsing import OPEN_ENDED, assign, explain, is_loss, todays_names, unknown
from robustgen.config.recipe import Recipe, SelectionConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.units import show_value


def from_content(content: Mapping[str, Any], origin: str) -> Recipe:
    """A recipe from JSON-like content.

    Raises:
        ValueError: one line that names the setting, and `origin`.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{origin}: {explain(error)}") from None


def with_defaults(content: Any) -> Any:
    """JSON-like content of a recipe of an older version, completed with new settings; unchanged if it is invalid."""
    try:
        return Recipe.model_validate(content).to_json()
    except ValidationError:
        return content


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """A recipe with dotted settings changed: `override(recipe, ["train.loss.beta=5", "threat=linf:8/255"])`.

    Arms, generators, published sets and special settings may be added as a whole, 'arms.name={"proxy": "edm"}', and
    removed: "arms.name=none". Special settings of a generator begin with the defaults.

    Raises:
        ValueError: not of the form a.b=c, an unknown setting (the known ones are named), or an invalid value.
    """
    content = recipe.to_json()
    defaults = {"sampling.special": SamplerConfig().to_json(), "keep.special": SelectionConfig().to_json()}
    assign(content, assignments, defaults=defaults)
    return from_content(content, "--set")


def read_recipe(path: Path, known: Mapping[str, Recipe]) -> Recipe:
    """A user's recipe from a YAML or JSON file: complete, or `base: NAME` and the settings that differ.

    Its block `cluster:` is not part of it: `read_cluster`.

    Raises:
        ValueError: not readable, an unknown base, or invalid settings.
    """
    content = _read(path)
    content.pop("cluster", None)
    base = content.pop("base", None)
    if base is None:
        return from_content(content, str(path))
    if not isinstance(base, str) or base not in known:
        raise ValueError(f"{path}: unknown base {show_value(base)}; {unknown_recipe(str(base), known)}")
    merged = known[base].to_json()
    _merge(merged, content, str(path), "")
    return from_content({**merged, "name": content.get("name", path.stem)}, str(path))


def read_cluster(path: Path) -> Cluster:
    """The block `cluster:` of a recipe's file: what its jobs ask a cluster for; the defaults without one.

    Raises:
        ValueError: not readable, or invalid settings.
    """
    return cluster_of(_read(path).get("cluster", {}), f"{path}: cluster")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    except Exception as error:  # PyYAML passes on what dates, numbers and keys that cannot be made raise
        if isinstance(error, MemoryError):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} cannot be read as a recipe ({first})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected settings by name, got {type(content).__name__}")
    return content


def unknown_recipe(name: str, known: Mapping[str, Recipe]) -> str:
    """Suggestions for an unknown recipe: the closest paper rows, then all other recipes."""
    close = difflib.get_close_matches(name, [row for row in known if "/" in row], n=3) if "/" in name else []
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    rows = sum("/" in row for row in known)
    others = f", and {rows} recipes of papers (robustgen list recipes)" if rows else ""
    return f"{hint}known: {', '.join(row for row in known if '/' not in row)}{others}"


def _merge(content: dict[str, Any], changes: Mapping[str, Any], origin: str, parent: str) -> None:
    for name, value in sorted(changes.items(), key=lambda item: item[0] != "loss"):
        key, *inner, _ = todays_names([str(name), ""], content)
        place = f"{parent}.{key}" if parent else key
        open_ended = parent in OPEN_ENDED
        if key not in content and not open_ended:
            raise ValueError(f"{origin}: {unknown(place, place, key, content)}")
        if open_ended and value is None and key in content:
            del content[key]
            continue
        if inner:
            value = {inner[0]: value}
        if key == name == "loss" and is_loss(content[key]):
            kind = value.get("kind", content[key]["kind"]) if isinstance(value, dict) else value
            content[key] = switched(content[key], kind)
            value = {k: v for k, v in value.items() if k != "kind"} if isinstance(value, dict) else {}
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            _merge(content[key], value, origin, place)
        else:
            content[key] = value
