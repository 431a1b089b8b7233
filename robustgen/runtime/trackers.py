"""Experiment trackers: JSON lines always, TensorBoard and Weights & Biases on request. No torch at import.

`history.npz` and `validation.npz` are the record of a training run and equal for equal recipes. `progress.jsonl` in the
same folder is its log with wall-clock times: at most one line per second, and one for each validation.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from robustgen.storage.files import atomic_write, writing_to

LINES = "progress.jsonl"
EVERY_SECONDS = 1.0


class Tracker(Protocol):
    """Receives named scalars of training steps."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """Writes a line of JSON for each call, immediately to disk.

    Opening the file removes a line that a killed process left incomplete, and lines after `step`, because training
    resumes from there.
    """

    def __init__(self, path: Path, step: int = 0):
        kept = [line for line in read_lines(path) if line["step"] <= step]
        with atomic_write(path) as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept).encode())
        self._path = path
        with writing_to(path):
            self._file = path.open("ab", buffering=0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        line = (json.dumps({"step": step, **values}) + "\n").encode()
        with writing_to(self._path):
            while line:
                line = line[self._file.write(line) :]

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Writes scalars to TensorBoard's event files; scalars after `step` are purged."""

    def __init__(self, folder: Path, step: int = 0):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError("tensorboard is not installed; run: pip install tensorboard") from None
        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A Weights & Biases run. Without account or network set WANDB_MODE=offline, and upload later with `wandb sync`."""

    def __init__(self, folder: Path, step: int = 0):
        try:
            import wandb
        except ImportError:
            raise ValueError("wandb is not installed; run: pip install wandb") from None
        place = folder.resolve()
        place.mkdir(parents=True, exist_ok=True)
        same = hashlib.blake2b(str(place).encode(), digest_size=6).hexdigest()
        self._run: Any = wandb.init(
            project="robustgen", name=place.parent.name, id=same, dir=str(place), resume="allow"
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, int], Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb}


class Tracking:
    """Passes scalars of the training loop to all trackers, with images per second and seconds since the start.

    Trackers open at the first logged step, which determines the step to resume from.
    """

    def __init__(self, folder: Path, names: Sequence[str] = ()):
        self._folder, self._names = folder, names
        self._trackers: list[Tracker] = []
        self._began = self._last = time.monotonic()
        self._at = 0

    def log(self, step: int, images_per_step: int, values: Mapping[str, float], now: bool = False) -> None:
        """Log a step, unless a step was logged within the last second; with `now` log it in any case."""
        clock = time.monotonic()
        if not self._trackers:
            self._at = step - 1
            self._trackers.append(JsonLines(self._folder / LINES, self._at))
            for name in self._names:
                self._trackers.append(TRACKERS[name](self._folder / name, self._at))
        if not now and clock - self._last < EVERY_SECONDS:
            return
        scalars = dict(values)
        if step > self._at:
            rate = (step - self._at) * images_per_step / max(clock - self._last, 1e-9)
            scalars["images_per_second"] = round(rate, 3)
        for tracker in self._trackers:
            tracker.log(step, {"seconds": round(clock - self._began, 3), **scalars})
        self._last, self._at = clock, step

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def check_trackers(names: Sequence[str]) -> None:
    """Check names of trackers.

    Raises:
        ValueError: a name is unknown, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}; known: {', '.join(TRACKERS)} (JSON lines are always written)")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is not installed; run: pip install {name}")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file; none if the file does not exist."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(content, dict) and "step" in content:
            found.append(content)
    return found
