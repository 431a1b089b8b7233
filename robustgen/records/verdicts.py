"""Verdicts of an evaluation: which attack broke each image; accuracies are methods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robustgen.stats.intervals import Proportion
from robustgen.storage.arrays import check_array, load_arrays, read_about, save_arrays

UNBROKEN = -1
"""`Verdicts.fell_to` of an image that no attack has broken."""


@dataclass
class Verdicts:
    """Which attack broke each test image, or that the image remains robust.

    The columns are the result, the active set of the cascade, and the state from which an evaluation resumes.

    suite, threat     names: "aa+mt", "linf:8/255"
    attacks           names in order; the first is "clean", the unchanged image
    ids               (N,) identity of each image, a hash of its content
    labels            (N,)
    clean_prediction  (N,) predicted class of the clean image; -1 before it is known
    clean_logits      (N, K) float32; targeted attacks choose their target classes from them
    faced             (N,) number of attacks that are finished for the image
    runs_faced        (N,) number of finished runs of its current attack
    fell_to           (N,) index of the attack that broke it, or UNBROKEN
    fell_in_run       (N,) run of that attack, from 0; -1 while unbroken
    fell_at_step      (N,) number of steps of that run; -1 while unbroken, or if the attack does not report it
    target            (N,) target class of that run; -1 while unbroken, or if the run was untargeted
    distance          (N,) norm of the perturbation that broke it; NaN while unbroken
    margin            (N,) largest other logit minus true logit of the adversarial example; NaN while unbroken
    broken_logits     (N, K) float32, logits of the adversarial example; NaN while unbroken
    passes            (attacks, 2) image passes through the model: without and with a gradient
    rejected          (attacks,) successes that an attack reported and the verification rejected
    flat              (attacks, 2) images whose first gradient of a run was zero everywhere, and all images checked
    flags             red flags: reasons to doubt the numbers, one sentence each
    notes             deviations from the suite's definition, one sentence each
    made_for          digest of the model's weights, seed and exact radius
    rows              (N,) int64: where each image lies in the test set, file or data set that it was taken from
    precision         in which the attacks searched; every result is verified in that of the model
    band              (N,) float32: twice the largest difference between the margins of an image in the two precisions,
                      at least that of all clean images; zeros in float32
    repeated          (attacks, 2) runs of images that were made again in float32, and all runs of images; zeros in
                      float32
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
    precision: str = "float32"
    band: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    repeated: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):  # not known: taken in order, from the first on
            self.rows = np.arange(len(self.labels))
        if len(self.band) != len(self.labels):
            self.band = np.zeros(len(self.labels), dtype=np.float32)
        if len(self.repeated) != len(self.attacks):
            self.repeated = np.zeros((len(self.attacks), 2), dtype=np.int64)

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
        """Merge the verdicts of P parallel processes; part p holds images p, p + P, p + 2 P, ...

        Raises:
            ValueError: the parts belong to different evaluations, or images are missing.
        """
        first, count = parts[0], sum(len(part) for part in parts)
        whole = cls.unjudged(
            first.suite, first.threat, first.attacks, np.zeros(count), np.zeros(count), first.clean_logits.shape[1]
        )
        for number, part in enumerate(parts):
            if any(getattr(part, name) != getattr(first, name) for name in _SAME):
                raise ValueError(
                    "parts of one evaluation agree in model, seed, suite, radius and precision: part 0 is "
                    f"{first.suite} at {first.threat} in {first.precision}, part {number} {part.suite} at "
                    f"{part.threat} in {part.precision}"
                )
            if len(part) != len(range(number, count, len(parts))):
                raise ValueError(
                    f"expected {len(range(number, count, len(parts)))} of {count} images in part {number} of "
                    f"{len(parts)}, got {len(part)}: images are missing"
                )
            for name in (*_ROWS, "rows", "band"):
                getattr(whole, name)[number :: len(parts)] = getattr(part, name)
            for name in (*_SUMS, "repeated"):
                getattr(whole, name)[...] += getattr(part, name)
        whole.flags = tuple(dict.fromkeys(flag for part in parts for flag in part.flags))
        whole.notes, whole.made_for, whole.precision = first.notes, first.made_for, first.precision
        return whole

    def __len__(self) -> int:
        return len(self.labels)

    def entrants(self, attack: int, run: int) -> np.ndarray:
        """Positions of the images whose next run is this run of this attack."""
        pending = (self.faced == attack) & (self.runs_faced == run)
        return np.flatnonzero((self.fell_to == UNBROKEN) & pending)

    def pass_on(self, attack: int) -> None:
        """Mark an attack as finished for all unbroken images, which enter the next attack."""
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
        """(N,) bool: classified correctly, and not broken by any attack so far."""
        return (self.fell_to == UNBROKEN) & self.right

    @property
    def precision_note(self) -> str:
        """How the two precisions were used, in a sentence; empty in float32."""
        if self.precision == "float32":
            return ""
        again, runs = (int(count) for count in self.repeated.sum(0))
        band = float(self.band.min()) if len(self) else 0.0
        return (
            f"attacks searched in {self.precision}, and float32 verified every result; an image's run was made again "
            f"in float32 where its margin came within {band:.3g} of 0 (twice the largest difference between the "
            f"precisions), or where float32 refused a success: {again:,} of {runs:,} runs"
        )

    @property
    def clean_accuracy(self) -> Proportion:
        return Proportion(int(self.right.sum()), len(self))

    @property
    def robust_accuracy(self) -> Proportion:
        return Proportion(int(self.robust.sum()), len(self))

    def robust_after(self, attack: int) -> Proportion:
        """Images that remain robust after the attacks up to and including this one."""
        fallen = (self.fell_to != UNBROKEN) & (self.fell_to <= attack)
        return Proportion(int((~fallen).sum()), len(self))

    def _check(self) -> None:
        """Raise ValueError where columns do not fit each other, or hold what no evaluation writes."""
        texts = (self.suite, self.threat, self.made_for, self.precision, *self.attacks, *self.flags, *self.notes)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("suite, threat, attacks, flags, notes and made_for must be text")
        count, classes = self.labels.shape[:1] or (1,), self.clean_logits.shape[1:] or (0,)
        for name in (*_ROWS, "rows"):
            kinds = "f" if name in _NUMBERS else "iu"
            check_array(name, getattr(self, name), kinds, count + (classes if name.endswith("_logits") else ()))
        attacks = len(self.attacks)
        check_array("band", self.band, "f", count)
        pairs = ("passes", "flat", "repeated")
        for name, shape in (*((name, (attacks, 2)) for name in pairs), ("rejected", (attacks,))):
            check_array(name, getattr(self, name), "iu", shape)
        known = (("labels", 0, classes[0]), ("clean_prediction", -1, classes[0]), ("target", -1, classes[0]),
                 ("fell_to", UNBROKEN, attacks), ("faced", 0, attacks + 1))  # fmt: skip
        for name, lowest, end in known:
            column = getattr(self, name)
            if len(column) and not (lowest <= int(column.min()) and int(column.max()) < end):
                raise ValueError(f"{name} must lie in {lowest}..{end - 1}, got {column.min()} to {column.max()}")

    def save(self, path: Path) -> None:
        names, columns = ["suite", "threat", "attacks", "flags", "notes", "made_for"], [*_ROWS, *_SUMS]
        if self.precision != "float32":  # left out in version 0.1, and where it says nothing; so are the rows
            names, columns = [*names, "precision"], [*columns, *_LOW]
        about = json.dumps({name: getattr(self, name) for name in names})
        rows = {name: getattr(self, name) for name in columns}
        if not np.array_equal(self.rows, np.arange(len(self))):
            rows["rows"] = self.rows
        save_arrays(path, {"about": np.array(about), **rows})

    @classmethod
    def load(cls, path: Path) -> Verdicts:
        arrays = load_arrays(path)
        try:
            about = read_about(arrays)
            rows = {name: arrays[name] for name in _ROWS + _SUMS}
            found = cls(
                suite=about["suite"],
                threat=about["threat"],
                attacks=tuple(about["attacks"]),
                flags=tuple(about["flags"]),
                notes=tuple(about["notes"]),
                made_for=about["made_for"],
                precision=about.get("precision", "float32"),
                **rows,
                **{name: arrays[name] for name in ("rows", *_LOW) if name in arrays},
            )
            found._check()
        except KeyError as error:
            raise ValueError(f"expected verdicts in {path}, but the file has no {error}; evaluate again") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected verdicts in {path}, but cannot read them ({error}); evaluate again") from None
        return found


def adversarial_file(path: Path) -> Path:
    """The file with the adversarial examples of the verdicts at `path`: `.npy` float32 (N, C, H, W)."""
    return path.with_name(f"{path.stem}.adversarial.npy")


def clean_file(path: Path) -> Path:
    """The file with the clean images of the verdicts at `path`: `.npy` (N, H, W, C), uint8 or float32."""
    return path.with_name(f"{path.stem}.clean.npy")


_ROWS = (
    "ids", "labels", "clean_prediction", "clean_logits", "faced", "runs_faced", "fell_to", "fell_in_run",
    "fell_at_step", "target", "distance", "margin", "broken_logits",
)  # fmt: skip
_NUMBERS = ("clean_logits", "distance", "margin", "broken_logits")
_SUMS = ("passes", "rejected", "flat")
_SAME = ("suite", "threat", "made_for", "precision")
"""What parts of one evaluation have in common."""
_LOW = ("band", "repeated")
"""Saved where attacks searched in a lower precision."""
