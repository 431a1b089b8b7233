"""Following a training run while it goes on: JSON lines always, TensorBoard or Weights & Biases where asked for.

`history.npz` and `validation.npz` are the record, equal for equal recipes. `progress.jsonl` beside them is the log:
a line a second at most and one for each validation, with the clock in it. No torch here.
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
    """Told numbers by name as steps are done."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """A line of JSON for each call, on the disk when the call returns.

    What a killed process left of a line is dropped when the file is opened, and so is what came after `step`, for
    these steps will be made again.
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
    """Scalars in TensorBoard's event files; what came after `step` is marked as gone."""

    def __init__(self, folder: Path, step: int = 0):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError("tensorboard is not installed; pip install tensorboard") from None
        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A Weights & Biases run. Without an account or network set WANDB_MODE=offline; `wandb sync` sends it later."""

    def __init__(self, folder: Path, step: int = 0):
        try:
            import wandb
        except ImportError:
            raise ValueError("wandb is not installed; pip install wandb") from None
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
    """What the training loop tells: passed on to all trackers, with images a second and seconds since the start.

    Nothing is opened before the first step is told of, which says where the run goes on.
    """

    def __init__(self, folder: Path, asked: Sequence[str] = ()):
        self._folder, self._asked = folder, asked
        self._trackers: list[Tracker] = []
        self._began = self._check_losses = time.monotonic()
        self._at = 0

    def log(self, step: int, images_per_step: int, values: Mapping[str, float], now: bool = False) -> None:
        """Tell of a step unless one was told of within the last second; `now`: in any case."""
        clock = time.monotonic()
        if not self._trackers:
            self._at = step - 1
            self._trackers.append(JsonLines(self._folder / LINES, self._at))
            for name in self._asked:
                self._trackers.append(TRACKERS[name](self._folder / name, self._at))
        if not now and clock - self._check_losses < EVERY_SECONDS:
            return
        told = dict(values)
        if step > self._at:
            told["images_per_second"] = round(
                (step - self._at) * images_per_step / max(clock - self._check_losses, 1e-9), 3
            )
        for tracker in self._trackers:
            tracker.log(step, {"seconds": round(clock - self._began, 3), **told})
        self._check_losses, self._at = clock, step

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def check_trackers(names: Sequence[str]) -> None:
    """Raises ValueError for a name that is not known, or whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}; known: {', '.join(TRACKERS)} (JSON lines are always written)")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is not installed; pip install {name}")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file: what is half-written is left out, and where there is no file there are none."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(content, dict) and "step" in content:
            found.append(content)
    return found
