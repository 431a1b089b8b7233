"""The report's section on diagnostics of classifiers: sweeps and loss landscapes. No torch."""

from __future__ import annotations

from typing import Any, TypeVar

from robustgen.records.landscapes import LandscapesRecord
from robustgen.records.loading import OF_CLASSIFIERS
from robustgen.records.record import ClassifierRecord
from robustgen.records.sweeps import RadiusSweepRecord, StepSweepRecord, SweepRecord
from robustgen.records.tables import Table
from robustgen.report import figures
from robustgen.report.tables import Results, name_of
from robustgen.stats.formatting import percent

Diagnostics = dict[str, dict[str, ClassifierRecord]]
"""Records by kind of analysis, then by arm in the recipe's order."""

Kind = TypeVar("Kind", bound=ClassifierRecord)


def read_diagnostics(results: Results) -> Diagnostics:
    """All finished diagnostics of a run."""
    found: Diagnostics = {}
    for kind, record in OF_CLASSIFIERS.items():
        for arm in results.verdicts:
            path = results.run.findings(arm, kind)
            if path.exists() and (findings := record.load(path)).finished:
                found.setdefault(kind, {})[arm] = findings
    return found


def flags(results: Results, found: Diagnostics) -> list[str]:
    """All red flags, each prefixed with its arm and analysis."""
    return [
        f"{name_of(results.recipe, arm)}, {kind.replace('-', ' ')}: {flag}"
        for kind, arms in found.items()
        for arm, findings in arms.items()
        for flag in findings.flags
    ]


def also_checked(found: Diagnostics) -> str:
    """What the diagnostics checked, continuing the sentence that the report shows when there is no red flag."""
    sentences = {
        RadiusSweepRecord.kind: "robust accuracy falls to 0 as the radius grows",
        StepSweepRecord.kind: "attacks converge",
        LandscapesRecord.kind: "loss landscapes have no plateaus",
    }
    return "".join(f"; {sentence}" for kind, sentence in sentences.items() if kind in found)


def sections(results: Results, found: Diagnostics, classes: list[str]) -> list[dict[str, Any]]:
    """Title, figure, caption and optional table of each kind of analysis."""
    parts = []
    if radius := _of(results, found, RadiusSweepRecord):
        parts.append(_radius_part(results, radius))
    if steps := _of(results, found, StepSweepRecord):
        parts.append(_step_part(steps))
    if landscapes := _of(results, found, LandscapesRecord):
        parts.append(_landscape_part(landscapes, classes))
    return parts


def _of(results: Results, found: Diagnostics, kind: type[Kind]) -> dict[str, Kind]:
    """Records of one kind by the arm's name in figures."""
    arms = found.get(kind.kind, {})
    return {name_of(results.recipe, arm): findings for arm, findings in arms.items() if isinstance(findings, kind)}


def _radius_part(results: Results, sweeps: dict[str, RadiusSweepRecord]) -> dict[str, Any]:
    first = next(iter(sweeps.values()))
    crosses = {
        name_of(results.recipe, arm): verdicts.robust_accuracy.value
        for arm, verdicts in results.verdicts.items()
        if verdicts.threat == first.about.threat
    }
    return {
        "title": "Robust accuracy over the radius",
        "wide": False,
        "svg": figures.sweep_curves(dict(sweeps), first.about.eps, crosses, until=_fallen(sweeps)),
        "text": f"Auto-PGD on the cross-entropy, run from scratch at each radius, on {_images(sweeps)}, with 95 % "
        f"bands. Robust accuracy must fall and reach about 0 before radius {first.grey:.4g}, at which every image can "
        "be turned into the same gray image. Dotted line: radius of the threat model"
        + ("; crosses: robust accuracy of the evaluation at that radius." if crosses else "."),
        "table": _table(sweeps),
    }


def _fallen(sweeps: dict[str, RadiusSweepRecord]) -> float:
    """The radius at which all sweeps have fallen below 0.5 % robust accuracy: the end of the figure's axis."""
    ends = []
    for sweep in sweeps.values():
        low = [float(sweep.values[at]) for at in range(len(sweep.values)) if sweep.accuracy(at).value < 0.005]
        ends.append(low[0] if low else float(sweep.values[-1]))
    return max(ends)


def _step_part(sweeps: dict[str, StepSweepRecord]) -> dict[str, Any]:
    first = next(iter(sweeps.values()))
    usual = 100 if first.values[0] <= 100 <= first.values[-1] else None
    return {
        "title": "Robust accuracy over the number of attack steps",
        "wide": False,
        "svg": figures.sweep_curves(dict(sweeps), usual, {}, logarithmic=True),
        "text": f"Auto-PGD on the cross-entropy within {first.about.threat}, on {_images(sweeps)}, with 95 % bands. "
        "Robust accuracy must fall and then level off. If it still falls at the end, the attack has not converged."
        + (" Dotted line: 100 steps, as in the suites." if usual else ""),
        "table": _table(sweeps),
    }


def _landscape_part(landscapes: dict[str, LandscapesRecord], classes: list[str]) -> dict[str, Any]:
    first = next(iter(landscapes.values()))
    return {
        "title": "Loss landscapes",
        "wide": True,
        "svg": figures.landscape_maps(landscapes, classes),
        "text": f"Margin (true logit minus the largest other logit) around the first test images within "
        f"{first.about.threat}. u = 1 is the adversarial example found by PGD, v = 1 a random sign pattern of length "
        "eps. Blue points are classified correctly, red ones are not; the black curve is the decision boundary. Dots "
        "mark the clean image and the adversarial example. Plateaus and cliffs are signs of gradient masking.",
        "table": None,
    }


def _images(sweeps: dict[str, Any]) -> str:
    counts = sorted({len(sweep) for sweep in sweeps.values()})
    return " or ".join(str(count) for count in counts) + " test images"


def _table(sweeps: dict[str, Any]) -> Table | None:
    """A row per classifier and a column per swept value; None when classifiers were swept over different values."""
    shown: list[tuple[str, SweepRecord]] = list(sweeps.items())
    columns = {tuple(sweep.show(at) for at in range(len(sweep.values))) for _, sweep in shown}
    if len(columns) > 1:
        return None
    rows = ((name, *(percent(sweep.accuracy(at).value) for at in range(len(sweep.values)))) for name, sweep in shown)
    return Table((shown[0][1].axis, *columns.pop()), tuple(rows))
