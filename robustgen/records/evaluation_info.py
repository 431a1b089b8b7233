"""Provenance of an evaluation: model, images, command, versions, date; a file next to the verdicts. NumPy only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from robustgen.storage.files import read_json, write_json


@dataclass(frozen=True)
class EvaluationInfo:
    """Provenance of a file of verdicts or certificates; empty where it is not recorded.

    The file itself stays free of dates and versions, so that a repeated evaluation gives equal bytes.

    command       the command line that made the file
    model         folder, weights file, function or hub:NAME
    weights       file that was loaded into the model
    architecture  of a weights file
    normalize     normalization in front of the model
    denoiser      diffusion model in front of the model
    data          settings that decide which images are used: of --data, or test_path for the file of --test
    classes       names of the classes, in the order of the logits
    precision     data types of the model's parameters, and whether TF32 was allowed
    device        processor or GPU
    date          start of the evaluation, ISO 8601 in UTC
    versions      of packages, Python and the commit
    resumed       later sessions in which versions were different: their dates and versions
    """

    command: str = ""
    model: str = ""
    weights: str = ""
    architecture: str = ""
    normalize: str = ""
    denoiser: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    precision: str = ""
    device: str = ""
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    resumed: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> EvaluationInfo:
        """Read a file that `save` has written; fields of other versions are ignored.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            stored: Mapping[str, Any] = read_json(path)
            known = {name: stored[name] for name in (own.name for own in fields(cls)) if name in stored}
            lists: dict[str, tuple[str, ...]] = {
                name: tuple(map(str, known[name])) for name in ("classes", "resumed") if name in known
            }
            maps: dict[str, dict[str, Any]] = {
                name: dict(known[name]) for name in ("data", "versions") if name in known
            }
            text = {name: str(value) for name, value in known.items() if name not in {**lists, **maps}}
            return cls(**text, **lists, **maps)  # type: ignore[arg-type]
        except (TypeError, ValueError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove it to go on without it") from None


def info_file(path: Path) -> Path:
    """The file with the provenance of the verdicts or certificates at `path`."""
    return path.with_name(f"{path.stem}.info.json")


def read_evaluation_info(path: Path) -> EvaluationInfo:
    """Provenance of verdicts or certificates: from the file next to them; what that lacks, from the run they are in."""
    own = EvaluationInfo.load(info_file(path)) if info_file(path).exists() else EvaluationInfo()
    if (path.parent.parent / "recipe.json").exists() and path.parent.name in ("evaluation", "certification"):
        of_run = _of_run(path.parent.parent, path)
        lacking = {one.name: getattr(of_run, one.name) for one in fields(own) if not getattr(own, one.name)}
        return replace(own, **lacking)
    if not own.model and (path.parent / "model.json").exists():
        return replace(own, model=str(path.parent))
    return own


def _of_run(root: Path, path: Path) -> EvaluationInfo:
    """What a run's own files say: its recipe, its data, its versions and which classifier was selected."""
    recipe = read_json(root / "recipe.json")
    data, versions, done = (
        read_json(file) if file.exists() else {}
        for file in (root / "data.json", root / "environment.json", path.with_suffix(".done"))
    )
    return EvaluationInfo(
        command=f"robustgen run {recipe['name']}",
        model=str(root / "classifiers" / done["classifier"]) if "classifier" in done else "",
        data={name: recipe["data"].get(name) for name in ("name", "path", "resize", "test", "split_seed")},
        classes=tuple(map(str, data.get("classes", ()))),
        versions={name: str(value) for name, value in versions.items()},
    )
