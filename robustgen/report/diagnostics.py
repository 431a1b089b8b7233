"""The report's section on what the evaluation might hide, from the findings in a run's folder. No torch."""

from __future__ import annotations

from typing import Any, TypeVar

from robustgen.records.landscapes import Landscapes
from robustgen.records.loading import KINDS, load_findings
from robustgen.records.record import Findings
from robustgen.records.sweeps import RadiusSweep, StepSweep, Sweep
from robustgen.records.tables import Table
from robustgen.report import figures
from robustgen.report.tables import Results, name_of

Diagnostics = dict[str, dict[str, Findings]]
"""Kind of findings, then arm, in the recipe's order."""

Kind = TypeVar("Kind", bound=Findings)


def read_diagnostics(results: Results) -> Diagnostics:
    """All finished findings of a run."""
    found: Diagnostics = {}
    for kind in KINDS:
        for arm in results.verdicts:
            path = results.run.findings(arm, kind)
            if path.exists() and (findings := load_findings(path)).finished:
                found.setdefault(kind, {})[arm] = findings
    return found


def flags(results: Results, found: Diagnostics) -> list[str]:
    """The red flags of all findings, each with whose it is."""
    return [
        f"{name_of(results.recipe, arm)}, {kind.replace('-', ' ')}: {flag}"
        for kind, arms in found.items()
        for arm, findings in arms.items()
        for flag in findings.flags
    ]


def looked_for(found: Diagnostics) -> str:
    """What else was looked for, to be said where no flag was found."""
    sentences = {
        RadiusSweep.kind: "robust accuracy that falls to 0 as the radius grows",
        StepSweep.kind: "attacks that converge",
        Landscapes.kind: "landscapes without plateaus",
    }
    return "".join(f", {sentence}" for kind, sentence in sentences.items() if kind in found)


def sections(results: Results, found: Diagnostics, classes: list[str]) -> list[dict[str, Any]]:
    """A title, a figure, a caption and perhaps a table for each kind of findings."""
    parts = []
    if radius := _of(results, found, RadiusSweep):
        parts.append(_radius_part(results, radius))
    if steps := _of(results, found, StepSweep):
        parts.append(_step_part(steps))
    if landscapes := _of(results, found, Landscapes):
        parts.append(_landscape_part(landscapes, classes))
    return parts


def _of(results: Results, found: Diagnostics, kind: type[Kind]) -> dict[str, Kind]:
    """Findings of one kind by the arm's name in figures."""
    arms = found.get(kind.kind, {})
    return {name_of(results.recipe, arm): findings for arm, findings in arms.items() if isinstance(findings, kind)}


def _radius_part(results: Results, sweeps: dict[str, RadiusSweep]) -> dict[str, Any]:
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
        "text": f"Auto-PGD on the cross-entropy, each radius from scratch, on {_images(sweeps)}, with 95 % bands. "
        f"It must fall, and reach about 0 before {first.grey:.4g}, where every image can be made the same grey. "
        "Dotted: the threat model's radius"
        + ("; crosses: what the suite of the evaluation leaves standing there." if crosses else "."),
        "table": _table(sweeps),
    }


def _fallen(sweeps: dict[str, RadiusSweep]) -> float:
    """The first radius at which nearly nothing stands in any sweep: where the figure may end."""
    ends = []
    for sweep in sweeps.values():
        low = [float(sweep.values[at]) for at in range(len(sweep.values)) if sweep.accuracy(at).value < 0.005]
        ends.append(low[0] if low else float(sweep.values[-1]))
    return max(ends)


def _step_part(sweeps: dict[str, StepSweep]) -> dict[str, Any]:
    first = next(iter(sweeps.values()))
    usual = 100 if first.values[0] <= 100 <= first.values[-1] else None
    return {
        "title": "Robust accuracy over the attack's steps",
        "wide": False,
        "svg": figures.sweep_curves(dict(sweeps), usual, {}, logarithmic=True),
        "text": f"Auto-PGD on the cross-entropy within {first.about.threat}, on {_images(sweeps)}, with 95 % bands. "
        "It must fall, and then stay: where it still falls at the right end the attack has not converged."
        + (" Dotted: the 100 steps of the suites." if usual else ""),
        "table": _table(sweeps),
    }


def _landscape_part(landscapes: dict[str, Landscapes], classes: list[str]) -> dict[str, Any]:
    first = next(iter(landscapes.values()))
    return {
        "title": "Loss landscapes",
        "wide": True,
        "svg": figures.landscape_maps(landscapes, classes),
        "text": f"The margin (true logit minus the best wrong one) around the first test images within "
        f"{first.about.threat}: u = 1 is what PGD found, v = 1 a random pattern of signs of full length. Blue is "
        "classified correctly, red is not, the black curve lies between; dots are the image and the attacked image. A "
        "sound network is smooth here; plateaus and cliffs hide attacks.",
        "table": None,
    }


def _images(sweeps: dict[str, Any]) -> str:
    counts = sorted({len(sweep) for sweep in sweeps.values()})
    return " or ".join(str(count) for count in counts) + " test images"


def _table(sweeps: dict[str, Any]) -> Table | None:
    """A row a classifier, a column a value; none where they were swept over different values."""
    shown: list[tuple[str, Sweep]] = list(sweeps.items())
    columns = {tuple(sweep.show(at) for at in range(len(sweep.values))) for _, sweep in shown}
    if len(columns) > 1:
        return None
    rows = (
        (name, *(f"{100 * sweep.accuracy(at).value:.1f}" for at in range(len(sweep.values)))) for name, sweep in shown
    )
    return Table((shown[0][1].axis, *columns.pop()), tuple(rows))
