"""What analyses leave on disk: plain arrays, one row an image; tables and red flags are made from them. NumPy only."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from robustgen.records import PairedDifference, Share, Table, load_arrays, save_arrays
from robustgen.runs import differences
from robustgen.units import parse_number, show_number

FELL, STANDS, OWED = 0, 1, -1
"""`Sweep.stands` of an image: broken, still right after the attack, not attacked yet."""


@dataclass(frozen=True)
class About:
    """What findings are of; findings of something else in the same place are refused.

    analysis  with its settings: "StepSweep(steps=(5, 10))"
    threat    "linf:8/255"
    seed      of the attacks' starts
    made_for  which classifier: a digest of its weights, or nothing
    """

    analysis: str
    threat: str
    seed: int
    made_for: str = ""

    @property
    def eps(self) -> float:
        """The threat model's radius."""
        return parse_number(self.threat.partition(":")[2])


@dataclass
class Findings(ABC):
    """What every analysis of images leaves, and how it is kept: a file is JSON about it, and arrays.

    ids     (N,) identity of each image, from its content
    labels  (N,)
    """

    kind: ClassVar[str]

    about: About
    ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def finished(self) -> bool:
        return True

    @property
    @abstractmethod
    def flags(self) -> tuple[str, ...]:
        """What makes the evaluation doubtful, a sentence each."""

    @abstractmethod
    def table(self) -> Table:
        """The findings in short."""

    def save(self, path: Path) -> None:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        about = asdict(columns.pop("about"))
        save_arrays(path, {"about": np.array(json.dumps({"kind": self.kind, **about})), **columns})

    def check_same(self, wanted: About, ids: np.ndarray, labels: np.ndarray, path: Path) -> Self:
        """Itself, if it is of this analysis of these images.

        Raises:
            ValueError: it is of something else; says of what.
        """
        found = differences(asdict(self.about), asdict(wanted))
        if not (np.array_equal(self.ids, ids) and np.array_equal(self.labels, labels)):
            found.append(f"{len(self)} {'other ' if len(self) == len(ids) else ''}images there, {len(ids)} here")
        if found:
            raise ValueError(
                f"{path} holds another analysis: {'; '.join(found)}; choose another place with --into, or remove it"
            )
        return self


@dataclass
class Sweep(Findings):
    """Which images stand as one quantity of the attack grows; each value is attacked from scratch.

    values  (P,) what was varied, ascending
    right   (N,) bool: the clean image is classified correctly
    stands  (N, P) int8: STANDS, FELL or OWED; what is wrong when clean fell everywhere
    margin  (N, P) float32: best wrong logit minus the true one at what the attack found; NaN where none was tried
    """

    axis: ClassVar[str]

    values: np.ndarray
    right: np.ndarray
    stands: np.ndarray
    margin: np.ndarray

    @property
    def finished(self) -> bool:
        return not (self.stands == OWED).any()

    def accuracy(self, at: int) -> Share:
        """Images that stand at one value."""
        return Share(int((self.stands[:, at] == STANDS).sum()), len(self))

    def change(self, before: int, after: int) -> PairedDifference:
        """How many more images stand at one value than at another, paired."""
        return PairedDifference.of(self.stands[:, after] == STANDS, self.stands[:, before] == STANDS)

    def show(self, at: int) -> str:
        """A value as people write it."""
        text = show_number(float(self.values[at]))
        return text if "/" in text else f"{self.values[at]:.4g}"

    def rise(self) -> tuple[int, int] | None:
        """Where accuracy rises most over an earlier value, if more than chance among these images explains.

        What breaks an image at one value breaks it at every larger one, so a perfect attack never lets it rise.
        """
        counts = (self.stands == STANDS).sum(0)
        pairs = [(int(np.argmin(counts[:after])), after) for after in range(1, len(counts))]
        sure = [pair for pair in pairs if self.change(*pair).interval[0] > 0]
        return max(sure, key=lambda pair: counts[pair[1]] - counts[pair[0]], default=None)

    def _rise_flag(self) -> list[str]:
        found = self.rise()
        if found is None:
            return []
        before, after = found
        return [
            f"robust accuracy rises by {_points(self.change(before, after).value)} from {self.axis} "
            f"{self.show(before)} to {self.show(after)}: the attack misses what is there; masked gradients"
        ]


@dataclass
class RadiusSweep(Sweep):
    """A sweep over the threat model's radius.

    grey  the radius within which every image can be made the same grey: from there on nothing may stand, but images
          of the one class that grey is taken for
    """

    kind: ClassVar[str] = "radius-sweep"
    axis: ClassVar[str] = "radius"

    grey: np.ndarray

    @property
    def flags(self) -> tuple[str, ...]:
        last = self.accuracy(-1)
        flags = self._rise_flag()
        if self.values[-1] >= self.grey and last.interval[0] > 0.01:
            flags.append(
                f"{100 * last.value:.1f} % still stand at radius {self.show(-1)}, where every image can be made grey: "
                "gradients are masked"
            )
        return tuple(flags)

    def table(self) -> Table:
        eps = self.about.eps
        rows = []
        for at, radius in enumerate(self.values):
            share = self.accuracy(at)
            multiple = f"{radius / eps:.4g}" if eps else ""
            rows.append((self.show(at), multiple, f"{100 * share.value:.1f}", _percent(share)))
        return Table(("radius", "of eps", "robust %", "95 %"), tuple(rows))


@dataclass
class StepSweep(Sweep):
    """A sweep over the attack's steps, at the threat model's radius."""

    kind: ClassVar[str] = "step-sweep"
    axis: ClassVar[str] = "steps"

    @property
    def flags(self) -> tuple[str, ...]:
        flags = self._rise_flag()
        if len(self.values) > 1:
            last = self.change(-2, -1)
            # Half a point: the papers' cascades differ by less among themselves (arXiv:2103.01946, Table 4).
            if last.interval[1] < 0 and last.value <= -0.005:
                flags.append(
                    f"not converged: from {self.show(-2)} to {self.show(-1)} steps robust accuracy still falls by "
                    f"{_points(-last.value)}; more steps would find more"
                )
        return tuple(flags)

    def table(self) -> Table:
        rows = []
        for at in range(len(self.values)):
            share = self.accuracy(at)
            change = f"{100 * self.change(at - 1, at).value:+.1f}" if at else ""
            rows.append((self.show(at), f"{100 * share.value:.1f}", _percent(share), change))
        return Table(("steps", "robust %", "95 %", "change"), tuple(rows))


@dataclass
class Landscapes(Findings):
    """The margin around some images, over a plane: image + u * worst + v * random, not brought into the box.

    axis     (G,) values of u and of v; 1 is a whole perturbation, of length eps at most
    heights  (N, G, G) float32: true logit minus the best wrong one, [image, v, u]; below 0 is misclassified
    allowed  (N, G, G) bool: points that the threat model allows
    length   (N,) norm of the worst perturbation found
    """

    kind: ClassVar[str] = "landscapes"

    axis: np.ndarray
    heights: np.ndarray
    allowed: np.ndarray
    length: np.ndarray

    def _at(self, u: float) -> np.ndarray:
        return self.heights[:, int(np.abs(self.axis).argmin()), int(np.abs(self.axis - u).argmin())]

    @property
    def flat(self) -> np.ndarray:
        """(N,) share of neighbouring points with exactly equal heights; a sound network has next to none."""
        along_u, along_v = np.diff(self.heights, axis=2) == 0, np.diff(self.heights, axis=1) == 0
        return (along_u.mean((1, 2)) + along_v.mean((1, 2))) / 2

    @property
    def lowest_allowed(self) -> np.ndarray:
        """(N,) the lowest point of the plane that the threat model allows."""
        return np.where(self.allowed, self.heights, np.inf).min((1, 2))

    @property
    def flags(self) -> tuple[str, ...]:
        flags = []
        for i in range(len(self)):
            if not np.isfinite(self.heights[i]).all():
                flags.append(f"image {i}: NaN or infinite logits near it")
            elif self.flat[i] > 0.1:
                flags.append(
                    f"image {i}: {100 * self.flat[i]:.0f} % of its landscape is exactly flat: no gradient there"
                )
            if self._at(1.0)[i] >= 0 > self.lowest_allowed[i]:
                flags.append(f"image {i}: a point of the plane is misclassified and the attack did not find it")
        return tuple(flags)

    def table(self) -> Table:
        heights = self._at(0.0), self._at(1.0), self.heights.min((1, 2))
        rows = [(str(i), str(self.labels[i]), *(f"{height[i]:.3g}" for height in heights)) for i in range(len(self))]
        return Table(("image", "label", "margin", "at the attack", "lowest"), tuple(rows))


KINDS: dict[str, type[Findings]] = {kind.kind: kind for kind in (RadiusSweep, StepSweep, Landscapes)}


def load_findings(path: Path) -> Findings:
    """Findings of any kind.

    Raises:
        ValueError: missing, damaged, or not findings.
    """
    arrays = load_arrays(path)
    try:
        about: dict[str, Any] = json.loads(str(arrays.pop("about")))
        return KINDS[about.pop("kind")](about=About(**about), **arrays)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} does not hold findings of an analysis ({error})") from None


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"


def _percent(share: Share) -> str:
    low, high = share.interval
    return f"{100 * low:.1f} to {100 * high:.1f}"
