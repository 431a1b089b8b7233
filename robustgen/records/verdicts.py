"""How every image of an evaluation fell, or stood; accuracies are methods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robustgen.stats.intervals import Proportion
from robustgen.storage.arrays import load_arrays, save_arrays

UNBROKEN = -1
"""`Verdicts.fell_to` of an image that no attack has broken."""


@dataclass
class Verdicts:
    """How each test image fell, or that it still stands.

    The columns are at once the result, the active set of the cascade, and the state from which it resumes.
    Passes count images: one image through the network once.

    suite, threat     names: "aa+mt", "linf:8/255"
    attacks           names, in order; the first is "clean", which changes nothing
    ids               (N,) identity of each image, from its content
    labels            (N,)
    clean_prediction  (N,) predicted class of the clean image; -1 before it is known
    clean_logits      (N, K) float32; targeted attacks aim by them
    faced             (N,) how many of the attacks the image has met
    runs_faced        (N,) how many runs of the attack it is meeting now
    fell_to           (N,) index of the attack that broke it, or UNBROKEN
    fell_in_run       (N,) which run of that attack, from 0; -1 while standing
    fell_at_step      (N,) after how many steps of that run; -1 while standing, or where the attack does not tell
    target            (N,) class that the run aimed at; -1 while standing, or where it aimed at none
    distance          (N,) norm of the perturbation that broke it; NaN while standing
    margin            (N,) best wrong logit minus the true one where it fell; NaN while standing
    broken_logits     (N, K) float32, of the image that broke it; NaN while standing
    passes            (attacks, 2) images through the model: without and with a gradient
    rejected          (attacks,) successes that an attack claimed and the check refused
    flat              (attacks, 2) images whose first gradient in a run was zero everywhere, and all that were looked at
    flags             what makes the numbers doubtful, a sentence each
    notes             what was done otherwise than the suite's name says, a sentence each
    made_for          digest of the model's weights, seed and exact radius
    rows              (N,) int64: where each image lies in the test set, file or data set that it was taken from
    """

    suite: str
    threat: str
    attacks: tuple[str, ...]
    ids: np.ndarray
    labels: np.ndarray
    clean_prediction: np.ndarray
    clean_logits: np.ndarray
    faced: np.ndarray
    runs_faced: np.ndarray
    fell_to: np.ndarray
    fell_in_run: np.ndarray
    fell_at_step: np.ndarray
    target: np.ndarray
    distance: np.ndarray
    margin: np.ndarray
    broken_logits: np.ndarray
    passes: np.ndarray
    rejected: np.ndarray
    flat: np.ndarray
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    made_for: str = ""
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):  # not known: taken in order, from the first on
            self.rows = np.arange(len(self.labels))

    @classmethod
    def unjudged(
        cls, suite: str, threat: str, attacks: Sequence[str], ids: np.ndarray, labels: np.ndarray, classes: int
    ) -> Verdicts:
        """The state before the first attack."""
        count = len(labels)
        return cls(
            suite=suite,
            threat=threat,
            attacks=tuple(attacks),
            ids=np.asarray(ids, dtype=np.int64),
            labels=np.asarray(labels, dtype=np.int64),
            clean_prediction=np.full(count, -1, dtype=np.int64),
            clean_logits=np.full((count, classes), np.nan, dtype=np.float32),
            faced=np.zeros(count, dtype=np.int16),
            runs_faced=np.zeros(count, dtype=np.int16),
            fell_to=np.full(count, UNBROKEN, dtype=np.int16),
            fell_in_run=np.full(count, -1, dtype=np.int16),
            fell_at_step=np.full(count, -1, dtype=np.int32),
            target=np.full(count, -1, dtype=np.int32),
            distance=np.full(count, np.nan, dtype=np.float32),
            margin=np.full(count, np.nan, dtype=np.float32),
            broken_logits=np.full((count, classes), np.nan, dtype=np.float32),
            passes=np.zeros((len(attacks), 2), dtype=np.int64),
            rejected=np.zeros(len(attacks), dtype=np.int64),
            flat=np.zeros((len(attacks), 2), dtype=np.int64),
        )

    @classmethod
    def merge(cls, parts: Sequence[Verdicts]) -> Verdicts:
        """One set of verdicts from parts made side by side: part p of P holds every P-th image, from p on.

        Raises:
            ValueError: the parts are not of one evaluation, or not all of it.
        """
        first, count = parts[0], sum(len(part) for part in parts)
        whole = cls.unjudged(
            first.suite, first.threat, first.attacks, np.zeros(count), np.zeros(count), first.clean_logits.shape[1]
        )
        for number, part in enumerate(parts):
            if (part.suite, part.threat, part.made_for) != (first.suite, first.threat, first.made_for):
                raise ValueError(f"part {number} is of another evaluation: {part.suite} at {part.threat}")
            if len(part) != len(range(number, count, len(parts))):
                raise ValueError(f"part {number} of {len(parts)} holds {len(part)} images of {count}: some are missing")
            for name in (*_ROWS, "rows"):
                getattr(whole, name)[number :: len(parts)] = getattr(part, name)
            for name in _SUMS:
                getattr(whole, name)[...] += getattr(part, name)
        whole.flags = tuple(dict.fromkeys(flag for part in parts for flag in part.flags))
        whole.notes, whole.made_for = first.notes, first.made_for
        return whole

    def __len__(self) -> int:
        return len(self.labels)

    def entrants(self, attack: int, run: int) -> np.ndarray:
        """Positions of the images that are pending a run of an attack next."""
        pending = (self.faced == attack) & (self.runs_faced == run)
        return np.flatnonzero((self.fell_to == UNBROKEN) & pending)

    def pass_on(self, attack: int) -> None:
        """Whoever stands has met this attack; on to the next."""
        through = (self.fell_to == UNBROKEN) & (self.faced == attack)
        self.faced[through] = attack + 1
        self.runs_faced[through] = 0

    @property
    def finished(self) -> bool:
        return bool(np.all((self.fell_to != UNBROKEN) | (self.faced == len(self.attacks))))

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: the clean image is classified correctly."""
        return self.clean_prediction == self.labels

    @property
    def robust(self) -> np.ndarray:
        """(N,) bool: correct, and survived every attack so far."""
        return (self.fell_to == UNBROKEN) & self.right

    @property
    def clean_accuracy(self) -> Proportion:
        return Proportion(int(self.right.sum()), len(self))

    @property
    def robust_accuracy(self) -> Proportion:
        return Proportion(int(self.robust.sum()), len(self))

    def standing_after(self, attack: int) -> Proportion:
        """Images left standing by the attacks up to and including this one."""
        fallen = (self.fell_to != UNBROKEN) & (self.fell_to <= attack)
        return Proportion(int((~fallen).sum()), len(self))

    def save(self, path: Path) -> None:
        names = ("suite", "threat", "attacks", "flags", "notes", "made_for")
        about = json.dumps({name: getattr(self, name) for name in names})
        rows = {name: getattr(self, name) for name in _ROWS + _SUMS}
        if not np.array_equal(self.rows, np.arange(len(self))):  # left out in version 0.1, and where it says nothing
            rows["rows"] = self.rows
        save_arrays(path, {"about": np.array(about), **rows})

    @classmethod
    def load(cls, path: Path) -> Verdicts:
        arrays = load_arrays(path)
        try:
            about = json.loads(str(arrays["about"]))
            rows = {name: arrays[name] for name in _ROWS + _SUMS}
            return cls(
                suite=about["suite"],
                threat=about["threat"],
                attacks=tuple(about["attacks"]),
                flags=tuple(about["flags"]),
                notes=tuple(about["notes"]),
                made_for=about["made_for"],
                **rows,
                **({"rows": arrays["rows"]} if "rows" in arrays else {}),
            )
        except (KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a verdicts file (no {error})") from None


def adversarial_file(path: Path) -> Path:
    """Where the images of verdicts at `path` are kept as they were broken: `.npy` float32 (N, C, H, W)."""
    return path.with_name(f"{path.stem}.adversarial.npy")


def clean_file(path: Path) -> Path:
    """Where the same images are kept as they were before: `.npy` (N, H, W, C), uint8 or float32."""
    return path.with_name(f"{path.stem}.clean.npy")


_ROWS = (
    "ids", "labels", "clean_prediction", "clean_logits", "faced", "runs_faced", "fell_to", "fell_in_run",
    "fell_at_step", "target", "distance", "margin", "broken_logits",
)  # fmt: skip
_SUMS = ("passes", "rejected", "flat")
