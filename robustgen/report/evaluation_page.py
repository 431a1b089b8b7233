"""The page of one file of verdicts or certificates, for whoever has to check a number. No torch."""

from __future__ import annotations

from pathlib import Path

from robustgen.report import by_class, figures
from robustgen.report.certificates import certificates_table, certified_figure
from robustgen.report.evaluation_tables import (
    Certification,
    Evaluation,
    accuracy_sentences,
    accuracy_table,
    attacks_table,
    certification_progress,
    certified_table,
    class_count,
    classes_table,
    evaluated_table,
    progress,
    repeat_command,
    robust_after,
    threat_text,
    weakest_class,
)
from robustgen.report.flag_texts import explain_flag
from robustgen.report.page import render_page, write_page

MOST_PIXELS = 1200
"""Width of a sheet of adversarial examples: fewer of large images."""


def write_result_page(found: Evaluation | Certification, path: Path) -> Path:
    """Write the page of verdicts or certificates."""
    text = render_certification(found) if isinstance(found, Certification) else render_evaluation(found)
    return write_page(text, path)


def render_evaluation(found: Evaluation) -> str:
    """The page of verdicts as text."""
    verdicts, classes = found.verdicts, found.classes
    few = len(classes) <= by_class.MOST_CLASSES
    many = class_count(found) > by_class.MOST_CLASSES
    return render_page(
        "evaluation.html.j2",
        title=f"Evaluation of {found.info.model or found.path.name}",
        subtitle=f"{len(verdicts):,} test images{_source(found)}; {verdicts.suite}, {threat_text(verdicts)}",
        answer=accuracy_sentences(found),
        progress=progress(found),
        accuracy=accuracy_table(found),
        suite=verdicts.suite,
        threat=threat_text(verdicts),
        bars=_bars(found),
        flags=[explain_flag(flag) for flag in verdicts.flags],
        attacks=attacks_table(found),
        weakest=weakest_class(found),
        by_class=classes_table(found, by_class.MOST_CLASSES),
        all_classes=classes_table(found) if many else None,
        left_out=class_count(found) - by_class.MOST_CLASSES if many else 0,
        confusion=by_class.heat(verdicts, classes) if few else None,
        examples=_examples(found),
        evaluated=evaluated_table(found),
        command=repeat_command(found),
        recorded=bool(found.info.command),
    )


def render_certification(found: Certification) -> str:
    """The page of certificates as text."""
    certificates = found.certificates
    at = certificates.accuracy(certificates.sigma)
    return render_page(
        "certification.html.j2",
        title=f"Certificates of {found.name}",
        subtitle=f"{len(certificates):,} test images{_source(found)}; randomized smoothing, "
        f"sigma {certificates.sigma:g}",
        answer=[
            f"Certified accuracy at l2 radius {certificates.sigma:g}: {at}, {at.count:,} of {at.total:,} images.",
            f"Average certified radius {certificates.average_radius:.3f}; abstained {certificates.abstained}.",
        ],
        progress=certification_progress(found),
        certificates=certificates_table({found.name: certificates}, "certified %"),
        svg=certified_figure({found.name: certificates}),
        about=certificates,
        evaluated=certified_table(found),
        command=repeat_command(found),
        recorded=bool(found.info.command),
    )


def _source(found: Evaluation | Certification) -> str:
    name = found.info.data.get("test_path") or found.info.data.get("name")
    return f" of {name}" if name else ""


def _bars(found: Evaluation) -> str:
    """Robust accuracy after each attack, above the clean accuracy."""
    verdicts = found.verdicts
    clean = verdicts.clean_accuracy
    rows = []
    for number, attack in enumerate(verdicts.attacks[1:], start=1):
        remain = robust_after(verdicts, number)
        rows.append((attack, clean.value, clean.interval, remain.value, remain.interval))
    return figures.accuracy_bars(rows)


def _examples(found: Evaluation) -> dict[str, str] | None:
    """A picture with a column per class: clean image, adversarial example, and perturbation scaled to full contrast.

    None where the images were not kept; without a picture where the files do not belong to the verdicts.
    """
    try:
        kept = by_class.broken_images(found.path)
        if kept is None:
            return None
        _, clean, adversarial = kept
        rows = by_class.examples_of(found.verdicts, clean, adversarial, len(found.classes))
        rows = rows[: max(3, MOST_PIXELS // clean.shape[2])]
        if not len(rows):
            return None
        picture, most = by_class.example_grid(clean[rows], adversarial[rows])
    except (ValueError, OSError, IndexError) as error:
        return {"uri": "", "text": f"The images cannot be shown: {error}."}
    seen = by_class.seen_as(found.verdicts)[rows]
    pairs = zip(found.verdicts.labels[rows], seen, strict=True)
    names = [*found.classes, "no class (NaN logits)"]
    changes = ", ".join(f"{names[label]} classified as {names[wrong]}" for label, wrong in pairs)
    return {
        "uri": figures.data_uri(picture),
        "text": "Clean images, adversarial examples and their differences. In the differences gray is zero, and black "
        f"and white are {most:.3g} of the pixel range. {changes[0].upper()}{changes[1:]}.",
    }
