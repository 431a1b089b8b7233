"""Write the provenance of verdicts and certificates next to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import DataConfig
from robustgen.config.source import Source
from robustgen.records.evaluation_info import EvaluationInfo, info_file
from robustgen.storage.provenance import environment

if TYPE_CHECKING:
    from torch import nn


def current_info(
    command: str, source: Source, data: DataConfig, classes: tuple[str, ...], model: nn.Module, device: str
) -> EvaluationInfo:
    """Provenance of an evaluation that starts now."""
    versions = environment()
    processor = versions.pop("processor")
    return EvaluationInfo(
        command=command,
        model=source.place,
        weights=str(source.weights or ""),
        architecture=source.architecture or "",
        normalize=source.normalize,
        data=_images_of(data),
        classes=classes,
        precision=_precision(model, device),
        device=f"cpu, {processor}" if device == "cpu" else _gpu(device),
        date=_now(),
        versions=versions,
    )


def _images_of(data: DataConfig) -> dict[str, object]:
    """The settings that decide which test images are used; with `test_path` that file does, and no data set."""
    content = data.to_json()
    always = ("test_path", "resize", "test") if data.test_path else ("name", "path", "resize", "test", "split_seed")
    others = ("image_key", "label_key", "color", "balanced_test", "skip_bad")
    chosen = {name: content[name] for name in always}
    return chosen | {name: content[name] for name in others if content[name]}


@contextmanager
def recording(path: Path, info: EvaluationInfo, begun: bool, finished: bool) -> Iterator[None]:
    """Save the provenance of the file at `path`, which is written in the block.

    A session that finds the file begun keeps the stored provenance, and notes its date where its versions are
    different. It knows nothing about the sessions before it where they stored none.

    Args:
        begun: the file, or a part of it, was there before the block.
        finished: it was complete before the block, which then computes nothing.
    """
    place = info_file(path)
    if not begun:
        info.save(place)
    same = True
    try:
        yield
    except ValueError:  # the file is of another evaluation
        same = False
        raise
    finally:
        if begun and same:
            _continue(place, info, finished)


def _continue(place: Path, info: EvaluationInfo, finished: bool) -> None:
    if not place.exists():
        replace(info, command="", precision="", device="", date="", versions={}).save(place)
        return
    stored = EvaluationInfo.load(place)
    changed = [f"{name} {value}" for name, value in info.versions.items() if stored.versions.get(name) != value]
    if changed and not finished:
        replace(stored, resumed=(*stored.resumed, f"{info.date}: {', '.join(changed)}")).save(place)


def _precision(model: nn.Module, device: str) -> str:
    import torch

    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})
    if device != "cpu":
        allowed = {"convolutions": torch.backends.cudnn.allow_tf32, "matmul": torch.backends.cuda.matmul.allow_tf32}
        kinds += [f"TF32 allowed in {name}" for name, allows in allowed.items() if allows]
    return ", ".join(kinds)


def _gpu(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
