"""Verdicts and certificates as CSV, one row per image. No torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.records.certificates import ABSTAINED
from robustgen.records.verdicts import UNBROKEN, Verdicts
from robustgen.report import by_class
from robustgen.report.evaluation_tables import Certification, Evaluation
from robustgen.storage.files import atomic_write

Cells = Sequence[Any]

VERDICT_COLUMNS = (
    "row", "image_id", "label", "label_name", "clean_prediction", "clean_prediction_name", "clean_correct", "robust",
    "broken_by", "run", "step", "target", "adversarial_prediction", "distance", "margin",
)  # fmt: skip
"""row: position in the source of the images. robust: 1, 0, or empty while undecided. broken_by: "clean" where the clean
image is misclassified. margin: largest other logit minus true logit of the adversarial example."""

CERTIFICATE_COLUMNS = (
    "position", "image_id", "label", "label_name", "prediction", "prediction_name", "certified_correct", "radius_l2",
    "probability_lower_bound", "votes", "samples_spent",
)  # fmt: skip
"""position: among the certified images. prediction: empty where the smoothed classifier abstained, or the image is not
certified yet."""


def write_csv(found: Evaluation | Certification, path: Path) -> Path:
    """Write a row per image; the file appears whole.

    Raises:
        ValueError: `path` is a folder, or the `.npz` itself.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; --csv takes the file, such as {path / 'rows.csv'}")
    if path.suffix == ".npz":
        raise ValueError(f"expected the name of a CSV file such as rows.csv, got {path}")
    verdicts = isinstance(found, Evaluation)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(VERDICT_COLUMNS if verdicts else CERTIFICATE_COLUMNS)
    writer.writerows(_verdict_rows(found) if isinstance(found, Evaluation) else _certificate_rows(found))
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
    return path


def _verdict_rows(found: Evaluation) -> Iterator[Cells]:
    verdicts, names = found.verdicts, found.classes
    sources = _source_rows(verdicts)
    seen = by_class.seen_as(verdicts)
    for i in range(len(verdicts)):
        fell, prediction = int(verdicts.fell_to[i]), int(verdicts.clean_prediction[i])
        pending = fell == UNBROKEN and verdicts.faced[i] < len(verdicts.attacks)
        attacked = fell > 0
        yield (
            int(sources[i]), _hex(verdicts.ids[i]), int(verdicts.labels[i]), names[int(verdicts.labels[i])],
            _known(prediction), names[prediction] if prediction >= 0 else "", int(verdicts.right[i]),
            "" if pending else int(verdicts.robust[i]),
            "" if fell == UNBROKEN else verdicts.attacks[fell],
            _known(int(verdicts.fell_in_run[i])) if attacked else "",
            _known(int(verdicts.fell_at_step[i])) if attacked else "",
            _known(int(verdicts.target[i])) if attacked else "",
            _known(int(seen[i])) if attacked else "",
            _number(verdicts.distance[i]), _number(verdicts.margin[i]),
        )  # fmt: skip


def _certificate_rows(found: Certification) -> Iterator[Cells]:
    own, names = found.certificates, list(found.info.classes)
    known = int(max(own.labels.max(), own.predicted.max())) < len(names)
    right = own.certified()
    for i in range(len(own)):
        label, predicted = int(own.labels[i]), int(own.predicted[i])
        answered = predicted != ABSTAINED
        yield (
            i, _hex(own.ids[i]), label, names[label] if known else label,
            predicted if answered else "", (names[predicted] if known else predicted) if answered else "",
            int(right[i]), _number(own.radius[i]), _number(own.lower[i]), int(own.votes[i]), int(own.spent[i]),
        )  # fmt: skip


def _source_rows(verdicts: Verdicts) -> np.ndarray:
    """(N,) position of each image in its source; 0 .. N - 1 where the verdicts do not say."""
    rows: np.ndarray | None = getattr(verdicts, "rows", None)
    return np.arange(len(verdicts)) if rows is None else rows


def _hex(identity: np.integer[Any]) -> str:
    """Hexadecimal, because spreadsheets round numbers of 19 digits."""
    return f"{int(identity) % 2**64:016x}"


def _known(value: int) -> int | str:
    return value if value >= 0 else ""


def _number(value: np.floating[Any]) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"
