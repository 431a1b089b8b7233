"""One file of verdicts as sentences and tables, for the terminal and for its page. No torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustgen.records.certificates import Certificates
from robustgen.records.evaluation_info import EvaluationInfo, read_evaluation_info
from robustgen.records.results import load_result
from robustgen.records.tables import Table
from robustgen.records.verdicts import UNBROKEN, Verdicts
from robustgen.report import by_class
from robustgen.stats.formatting import percent, percent_range
from robustgen.stats.intervals import Proportion
from robustgen.storage.files import read_json
from robustgen.units import show_duration

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Evaluation:
    """A file of verdicts, with what is recorded about it.

    seconds  of each attack, where they are recorded
    digest   SHA-256 of the file
    """

    path: Path
    verdicts: Verdicts
    info: EvaluationInfo
    seconds: dict[str, float]
    digest: str

    @property
    def classes(self) -> list[str]:
        """Names of the classes; their numbers where no names are recorded."""
        count = self.verdicts.clean_logits.shape[1]
        return list(self.info.classes) if len(self.info.classes) == count else [str(k) for k in range(count)]

    @property
    def pending(self) -> int:
        """Images that have neither been broken nor attacked by all attacks."""
        verdicts = self.verdicts
        return int(((verdicts.fell_to == UNBROKEN) & (verdicts.faced < len(verdicts.attacks))).sum())


@dataclass(frozen=True)
class Certification:
    """A file of certificates, with what is recorded about it; `digest` is the SHA-256 of the file."""

    path: Path
    certificates: Certificates
    info: EvaluationInfo
    digest: str

    @property
    def name(self) -> str:
        return self.info.model or self.path.name


def read_result(path: Path) -> Evaluation | Certification:
    """A file of verdicts or certificates and its provenance.

    Raises:
        ValueError: the file is missing, damaged or holds something else.
    """
    found = load_result(path)
    info, digest = read_evaluation_info(path), hashlib.sha256(path.read_bytes()).hexdigest()
    if isinstance(found, Certificates):
        return Certification(path, found, info, digest)
    times = path.with_name(f"{path.stem}.times.json")
    return Evaluation(path, found, info, read_json(times) if times.exists() else {}, digest)


def accuracy_sentences(found: Evaluation) -> list[str]:
    """Robust and clean accuracy with their intervals, in sentences."""
    verdicts = found.verdicts
    robust, clean = verdicts.robust_accuracy, verdicts.clean_accuracy
    return [
        f"Robust accuracy {robust}: {robust.count:,} of {robust.total:,} {_images(robust.total)} classified correctly "
        f"under every attack of {verdicts.suite} within {threat_text(verdicts)}.",
        f"Clean accuracy {clean}: {clean.count:,} of {clean.total:,}.",
    ]


def progress(found: Evaluation) -> str:
    """A sentence on how far an unfinished evaluation is; empty for a finished one."""
    verdicts = found.verdicts
    if verdicts.finished:
        return ""
    pending = (verdicts.fell_to == UNBROKEN) & (verdicts.faced < len(verdicts.attacks))
    at = min(int(verdicts.faced[pending].min()), len(verdicts.attacks) - 1)
    begun = f"attack {at} of {len(verdicts.attacks) - 1} ({verdicts.attacks[at]})" if at else "the clean images"
    return (
        f"This evaluation is unfinished: it is at {begun}, and {found.pending:,} of {len(verdicts):,} images are not "
        "decided yet. The robust accuracy is an upper bound. Run the command again to finish it."
    )


def accuracy_table(found: Evaluation) -> Table:
    """Clean and robust accuracy with their 95 % intervals."""
    shares = {"clean": found.verdicts.clean_accuracy, "robust": found.verdicts.robust_accuracy}
    rows = ((name, percent(s.value), percent_range(s.interval), f"{s.count:,}", f"{s.total:,}")
            for name, s in shares.items())  # fmt: skip
    return Table(("accuracy", "%", "95 %", "correct", "images"), tuple(rows))


def attacks_table(found: Evaluation) -> Table:
    """For each attack: images that it attacked and broke, images that remain robust after it, and its cost."""
    verdicts, rows = found.verdicts, []
    refused = bool(verdicts.rejected.any())
    for number, attack in enumerate(verdicts.attacks):
        attacked = attacked_by(verdicts, number)
        begun = number == 0 or bool(attacked.any()) or verdicts.finished
        remain = robust_after(verdicts, number)
        cells = [f"{int(attacked.sum()):,}", f"{int((verdicts.fell_to == number).sum()):,}"]
        cells += [f"{remain.count:,}", percent(remain.value)] if begun else ["", ""]
        if refused:
            cells.append(f"{int(verdicts.rejected[number]):,}")
        cells.append(f"{int(verdicts.passes[number].sum()):,}")
        if found.seconds:
            cells.append(_time(found.seconds[attack]) if attack in found.seconds else "")
        rows.append((attack, *cells))
    columns = ["attack", "attacked", "broken", "robust after it", "%"]
    columns += [*(["refused"] if refused else []), "image passes", *(["time"] if found.seconds else [])]
    return Table(tuple(columns), tuple(rows))


def attacked_by(verdicts: Verdicts, number: int) -> np.ndarray:
    """(N,) bool: images that an attack has begun to attack; attack 0 is the classification of the clean image."""
    if number == 0:
        return verdicts.faced >= 0
    unbroken = verdicts.fell_to == UNBROKEN
    reached = np.where(unbroken, verdicts.faced, verdicts.fell_to)
    here = (reached == number) & (~unbroken | (verdicts.runs_faced > 0))
    return here | (reached > number)


def robust_after(verdicts: Verdicts, number: int) -> Proportion:
    """Images that remain robust after the attacks up to and including this one."""
    broken = (verdicts.fell_to != UNBROKEN) & (verdicts.fell_to <= number)
    return Proportion(int((~broken).sum()), len(verdicts))


def classes_table(found: Evaluation, most: int | None = None) -> Table:
    """Clean and robust accuracy within each class, the weakest first; of many classes the first `most`."""
    verdicts, names = found.verdicts, found.classes
    robust, counts = by_class.robust_by_class(verdicts), by_class.confusion(verdicts)
    clean = np.bincount(verdicts.labels[verdicts.right], minlength=len(names))
    wrong = counts * (1 - np.eye(len(names), dtype=counts.dtype))
    order = [k for k in sorted(range(len(names)), key=lambda k: robust[k].value) if robust[k].total]
    rows = []
    for k in order[:most]:
        share, other = robust[k], int(wrong[k].argmax())
        mistake = f"{names[other]} ({wrong[k, other]})" if wrong[k, other] else ""
        cells = (percent(clean[k] / share.total), percent(share.value), percent_range(share.interval), mistake)
        rows.append((names[k], f"{share.total:,}", *cells))
    columns = ("class", "images", "clean %", "robust %", "95 %", "confused with")
    return Table(columns, tuple(rows))


def class_count(found: Evaluation) -> int:
    """Number of classes that the images have."""
    return len(np.unique(found.verdicts.labels))


def weakest_class(found: Evaluation) -> str:
    """A sentence on the weakest class and the most frequent confusion."""
    text = by_class.worst(found.verdicts, found.classes)
    return f"{text[0].upper()}{text[1:]}."


def evaluated_table(found: Evaluation) -> Table:
    """What was evaluated and how: model, images, threat model, suite, precision, versions."""
    verdicts = found.verdicts
    digest, seed, eps = made_for(verdicts)
    rows = [
        *_model_rows(found.info, digest),
        ("threat model", threat_text(verdicts) + (f" (radius {eps})" if "/" in verdicts.threat and eps else "")),
        ("suite", f"{verdicts.suite}: {', '.join(verdicts.attacks[1:])}"),
        *(("note", note) for note in (*verdicts.notes, *filter(None, [verdicts.precision_note]))),
        *_image_rows(found.info, verdicts.ids, verdicts.labels, verdicts.clean_logits.shape[1]),
        ("seed", seed or NOT_RECORDED),
        *_session_rows(found.info),
        ("verdicts file", str(found.path)),
        ("SHA-256 of the file", found.digest),
    ]
    return Table(("what", "which"), tuple(rows))


def certified_table(found: Certification) -> Table:
    """What was certified and how."""
    certificates = found.certificates
    rows = [
        *_model_rows(found.info, certificates.model),
        *([("denoiser", found.info.denoiser)] if found.info.denoiser else []),
        ("noise", f"Gaussian, standard deviation {certificates.sigma:g}, in pixels of [0, 1]"),
        ("noise samples", f"{certificates.selection:,} to select the class, {certificates.samples:,} to certify it"),
        ("alpha", f"{certificates.alpha:g}"),
        *_image_rows(found.info, certificates.ids, certificates.labels, None),
        ("seed", str(certificates.seed)),
        *_session_rows(found.info),
        ("certificates file", str(found.path)),
        ("SHA-256 of the file", found.digest),
    ]
    return Table(("what", "which"), tuple(rows))


def certification_progress(found: Certification) -> str:
    """A sentence on how far an unfinished certification is; empty for a finished one."""
    certificates = found.certificates
    if certificates.finished:
        return ""
    return (
        f"This certification is unfinished: {int(certificates.done.sum()):,} of {len(certificates):,} images are "
        "certified. All others count as not certified. Run the command again to finish it."
    )


def repeat_command(found: Evaluation | Certification) -> str:
    """The command line that repeats an evaluation, with words in capitals for what is not recorded."""
    if found.info.command:
        return found.info.command
    model = found.info.model or "MODEL"
    if isinstance(found, Certification):
        own = found.certificates
        return (
            f"robustgen certify {model} --data NAME=PATH --sigma {own.sigma:g} --selection {own.selection} "
            f"--samples {own.samples} --alpha {own.alpha:g} --seed {own.seed}"
        )
    verdicts, (_, seed, eps) = found.verdicts, made_for(found.verdicts)
    norm, _, shown = verdicts.threat.partition(":")
    return (
        f"robustgen evaluate {model} --data NAME=PATH --threat {norm}:{_exact(shown, eps)} "
        f"--suite {verdicts.suite} --seed {seed or 'N'}"
    )


def _exact(shown: str, eps: str) -> str:
    """A radius as it is shown, such as 8/255, where that is all of it; else with all its digits, where recorded."""
    above, _, below = shown.partition("/")
    return shown if not eps or float(above) / float(below or 1) == float(eps) else eps


def made_for(verdicts: Verdicts) -> tuple[str, str, str]:
    """Digest of the weights, seed and exact radius, as the verdicts have them; empty where they have none."""
    words = verdicts.made_for.split()
    if len(words) == 5 and (words[1], words[3]) == ("seed", "eps"):
        return words[0], words[2], words[4]
    return verdicts.made_for, "", ""


def images_digest(ids: np.ndarray, labels: np.ndarray) -> str:
    """Digest of images and labels in their order: equal for two files that are about the same images."""
    rows = np.stack([ids.astype("<i8"), labels.astype("<i8")])
    return hashlib.sha256(rows.tobytes()).hexdigest()[:16]


def _model_rows(info: EvaluationInfo, digest: str) -> list[tuple[str, str]]:
    details = {"weights file": info.weights, "architecture": info.architecture, "normalization": info.normalize}
    return [
        ("model", info.model or NOT_RECORDED),
        *((name, value) for name, value in details.items() if value and value != "none"),
        ("digest of the model", digest or NOT_RECORDED),
    ]


def _image_rows(
    info: EvaluationInfo, ids: np.ndarray, labels: np.ndarray, classes: int | None
) -> list[tuple[str, str]]:
    settings = {name: value for name, value in info.data.items() if value is not None}
    source = settings.pop("test_path", None) or settings.pop("name", "")
    source = ", ".join([str(source), *(f"{name} {value}" for name, value in settings.items())])
    of = f"of {classes:,} " if classes is not None else ""
    return [
        ("source of the images", source if info.data else NOT_RECORDED),
        ("images", f"{len(ids):,}, of {len(np.unique(labels)):,} {of}classes"),
        ("digest of the images", images_digest(ids, labels)),
    ]


def _session_rows(info: EvaluationInfo) -> list[tuple[str, str]]:
    return [
        ("precision of the model", info.precision or NOT_RECORDED),
        ("device", info.device or NOT_RECORDED),
        ("date", info.date or NOT_RECORDED),
        *(("resumed", session) for session in info.resumed),
        ("versions", ", ".join(f"{name} {value}" for name, value in info.versions.items()) or NOT_RECORDED),
    ]


def threat_text(verdicts: Verdicts) -> str:
    """The threat model as in sentences: "linf 8/255"."""
    norm, _, eps = verdicts.threat.partition(":")
    return f"{norm} {eps}"


def _time(seconds: float) -> str:
    return show_duration(seconds) if seconds >= 1 else "under 1 s"


def _images(count: int) -> str:
    return "image is" if count == 1 else "images are"
