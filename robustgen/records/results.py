"""Open a file of verdicts or certificates, and check that its content is consistent. NumPy only."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from robustgen.records.certificates import ABSTAINED, Certificates
from robustgen.records.verdicts import UNBROKEN, Verdicts


def load_result(path: Path) -> Verdicts | Certificates:
    """Verdicts or certificates, whichever the file holds.

    Raises:
        ValueError: the file is missing, damaged, or holds something else.
    """
    names = _names_in(path)
    if {"about", "fell_to", "clean_logits"} <= names:
        verdicts = Verdicts.load(path)
        _check_verdicts(verdicts, path)
        return verdicts
    if {"about", "radius", "votes"} <= names:
        certificates = Certificates.load(path)
        _check_certificates(certificates, path)
        return certificates
    held = ", ".join(sorted(names)[:5]) or "nothing"
    raise ValueError(
        f"expected verdicts or certificates in {path}, got {held}{', ...' if len(names) > 5 else ''}; name a file made "
        "by robustgen evaluate or certify"
    )


def _names_in(path: Path) -> set[str]:
    """Names of the arrays of an `.npz`, without reading them."""
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path} is damaged or not an .npz ({error})") from None


def _check_verdicts(verdicts: Verdicts, path: Path) -> None:
    """Raise ValueError unless all columns have one row per image, and indices are in range."""
    count, shape = len(verdicts), verdicts.clean_logits.shape
    if not count:
        raise ValueError(f"{path} holds verdicts on 0 images; evaluate again")
    columns = (
        "ids", "labels", "clean_prediction", "faced", "runs_faced", "fell_to", "fell_in_run", "fell_at_step", "target",
        "distance", "margin",
    )  # fmt: skip
    wrong = [name for name in columns if getattr(verdicts, name).shape != (count,)]
    attacks = len(verdicts.attacks)
    tables = {"passes": (attacks, 2), "flat": (attacks, 2), "rejected": (attacks,), "broken_logits": shape}
    wrong += [name for name, expected in tables.items() if getattr(verdicts, name).shape != expected]
    if len(shape) != 2 or shape[0] != count:
        wrong.append("clean_logits")
    if wrong:
        raise ValueError(f"{path} is damaged: expected {count} rows, got other shapes of {', '.join(wrong)}")
    classes = shape[1]
    ranges = {
        "labels": (verdicts.labels, 0, classes),
        "clean_prediction": (verdicts.clean_prediction, -1, classes),
        "fell_to": (verdicts.fell_to, UNBROKEN, attacks),
    }
    _check_ranges(ranges, path)


def _check_certificates(certificates: Certificates, path: Path) -> None:
    count = len(certificates)
    if not count:
        raise ValueError(f"{path} holds certificates of 0 images; certify again")
    columns = ("ids", "labels", "predicted", "votes", "spent", "lower", "radius")
    wrong = [name for name in columns if getattr(certificates, name).shape != (count,)]
    if wrong:
        raise ValueError(f"{path} is damaged: expected {count} rows, got other shapes of {', '.join(wrong)}")
    most = np.iinfo(np.int64).max
    _check_ranges(
        {"labels": (certificates.labels, 0, most), "predicted": (certificates.predicted, ABSTAINED, most)}, path
    )


def _check_ranges(ranges: dict[str, tuple[np.ndarray, int, int]], path: Path) -> None:
    for name, (values, low, end) in ranges.items():
        if not (values.min() >= low and values.max() < end):
            raise ValueError(
                f"{path} is damaged: expected {name} from {low} to {end - 1}, got {values.min()} to {values.max()}"
            )
