"""One page about several runs: a study over seeds, or different runs side by side. Rebuilt from records. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustgen.config.losses import purpose_of
from robustgen.records.comparison import compare_arms
from robustgen.records.tables import Table
from robustgen.report import gap, study_certificates, study_figures
from robustgen.report.figures import portions
from robustgen.report.headline import first_screen, headline_figure, headline_of_study, title_of
from robustgen.report.page import failed_stages, render_page, write_page
from robustgen.report.questions import by_question
from robustgen.report.study_summary import (
    Study,
    arms_table,
    by_real_share,
    correlations_table,
    curves,
    grouped,
    measured,
    overfitting_table,
    read_study,
    seeds_table,
    study_generators_table,
    study_sentences,
)
from robustgen.report.tables import Results, loss_of, name_of, read_results, results_table, settings_table, shortened
from robustgen.stats.formatting import percent
from robustgen.storage.files import differences, read_json
from robustgen.storage.run_folder import RunDir

_CERTIFIED = "Certified accuracy over the l2 radius: lines are means over seeds, bands span the seeds."


def write_reports(folders: Sequence[Path], into: Path, command: str) -> Path:
    """Write one page about several runs: a study if they differ in the seed only, else a page side by side.

    Runs without any finished evaluation are left out and listed on the page.

    Raises:
        ValueError: a folder without a run, or no run has a finished evaluation.
    """
    results, missing, reasons = [], [], []
    for folder in folders:
        try:
            results.append(read_results(RunDir(folder)))
        except ValueError as error:
            if not (folder / "recipe.json").exists():
                raise
            missing.append(f"{folder.name}: nothing evaluated yet")
            reasons.append(str(error))
    if not results:
        raise ValueError(reasons[0])
    study = read_study(results)
    text = (
        render_study(study, missing, command, into.parent.resolve())
        if study
        else render_side_by_side(results, missing, command)
    )
    return write_page(text, into)


def render_study(study: Study, missing: Sequence[str], command: str, folder: Path) -> str:
    """The page of several seeds as HTML text; `folder` is where it will be written (for links)."""
    recipe, first = study.recipe, next(iter(study.results.values()))
    about = read_json(first.run.root / "data.json")
    seeds = ", ".join(map(str, study.results))
    noun = "seeds" if len(study.results) > 1 else "seed"
    others = [arm for arm in study.arms if arm != study.baseline]
    rows = headline_of_study(study)
    closed = gap.gap_section(study)
    certificates = study_certificates.certificates_section(study)
    loss = recipe["train"]["loss"]
    noisy = purpose_of(loss["kind"]) == "smoothed"
    against = f"at sigma {loss['sigma']:g}" if noisy else f"against {first.threat}"
    return render_page(
        "study.html.j2",
        title=f"robustgen: {recipe['name']}, {len(study.results)} {noun}",
        headline=recipe["name"] if noisy else (closed and closed["title"]) or title_of(rows),
        first=first_screen(rows, closed, certificates if noisy else None, _CERTIFIED),
        subtitle=f"{recipe['data']['name']}: {about['counts']['train']} training, {about['counts']['validation']} "
        f"validation, {about['counts']['test']} test images; {recipe['train']['architecture']}, "
        f"{loss['kind']} {against}; {noun} {seeds}",
        answer=[*(certificates["sentences"] if noisy and certificates else []), *study_sentences(study)],
        gap=closed,
        arms=_by_question(study),
        chance=round(0.05 * len(others), 1),
        others=len(others),
        several=len(study.results) > 1,
        count=about["counts"]["test"],
        suite=recipe["evaluation"]["suite"],
        threat=first.threat,
        baseline=study.name(study.baseline),
        seeds=seeds_table(study),
        shortened=shortened(recipe, study.arms),
        flags=[*missing, *_incomplete(study), *_flags(study)],
        shares=_shares(study),
        certificates=certificates,
        certificates_first=noisy and bool(certificates),
        certified_caption=_CERTIFIED,
        training=_training(study),
        generators=_generators(study),
        runs=_linked(folder, study.results.values()),
        command=command,
        settings=settings_table({**recipe, "seed": seeds}),
    )


def _incomplete(study: Study) -> list[str]:
    absent = [
        f"seed {seed}: not evaluated yet: {', '.join(absent)}"
        for seed, run in study.results.items()
        if (absent := [arm for arm in study.recipe["arms"] if arm not in run.verdicts])
    ]
    return [*absent, *(f"seed {seed}: {text}" for seed, run in study.results.items() for text in failed_stages(run))]


def _flags(study: Study) -> list[str]:
    """The red flags of all verdicts, each listed once with the seeds that raised it."""
    raised: dict[str, list[int]] = {}
    for seed, run in study.results.items():
        for arm, verdicts in run.verdicts.items():
            for flag in verdicts.flags:
                raised.setdefault(f"{study.name(arm)}: {flag}", []).append(seed)
    return [f"{flag} (seed {', '.join(map(str, seeds))})" for flag, seeds in raised.items()]


def _shares(study: Study) -> str:
    found = by_real_share(study)
    return study_figures.share_curves(found, study.robust(study.baseline)) if found else ""


def _training(study: Study) -> dict[str, Any] | None:
    """Validation curves of all arms, a few per figure, and a table of robust overfitting."""
    found = curves(study)
    if not found:
        return None
    what = "accuracy under noise" if purpose_of(loss_of(study.recipe)) == "smoothed" else "robust accuracy"
    return {
        "svgs": [
            study_figures.banded_curves(part, what) for group in grouped(study, found) for part in portions(group, 4)
        ],
        "table": overfitting_table(found),
    }


def _generators(study: Study) -> dict[str, Any] | None:
    found = measured(study)
    if found is None:
        return None
    correlations = found.correlations()
    return {
        "table": study_generators_table(found),
        "count": len(found.generators),
        "correlations": correlations_table(correlations) if correlations else None,
        "svg": study_figures.correlation_dots(correlations) if correlations else "",
    }


def figures_of(study: Study) -> dict[str, str]:
    """The figures of the page as SVG text, by name."""
    training, generators = _training(study), _generators(study)
    certificates = study_certificates.certificates_section(study)
    closed = gap.gap_section(study)
    found = {
        "robust": _dots(study),
        "gap" if closed else "headline": closed["svg"] if closed else headline_figure(headline_of_study(study)),
        "shares": _shares(study),
        "correlations": generators["svg"] if generators else "",
        "certified": certificates["svg"] if certificates else "",
        **{f"training-{i}": svg for i, svg in enumerate(training["svgs"] if training else [], start=1)},
    }
    return {name: svg for name, svg in found.items() if svg}


def _by_question(study: Study) -> dict[str, dict[str, Any]]:
    """A table for each question that the arms answer, and a figure where they are compared with the baseline."""
    parts = {}
    for question, arms in by_question(study.recipe, study.arms, study.baseline).items():
        alike = [arm for arm in arms if arm in study.alike]
        parts[question] = {
            "table": arms_table(study, arms),
            "svg": _dots(study, alike) if question and len(alike) > 2 else "",
        }
    return parts


def _dots(study: Study, arms: Sequence[str] | None = None) -> str:
    rows = {study.name(arm): study.robust(arm) for arm in arms or study.alike}
    return study_figures.seed_dots(rows, study.name(study.baseline))


def _linked(folder: Path, runs: Any) -> list[tuple[str, str]]:
    """Names of the single runs, and links to their reports where these are in subfolders of `folder`."""
    return [
        (run.run.root.name, f"{run.run.root.name}/report.html" if run.run.root.parent.resolve() == folder else "")
        for run in runs
    ]


def render_side_by_side(results: Sequence[Results], missing: Sequence[str], command: str) -> str:
    """The page of different runs as HTML text: results, and paired differences of each run to the first one."""
    names = run_names([run.run.root for run in results])
    pairs, refused = [], []
    first = results[0]
    for name, run in zip(names[1:], results[1:], strict=True):
        try:
            found = compare_arms(first.verdicts, run.verdicts, (names[0], name))
        except ValueError as error:
            refused.append(str(error))
            continue
        for arm, comparison in found.items():
            pairs.append((f"{arm}: {names[0]} and {name}, {comparison.judged}", comparison))
    return render_page(
        "side_by_side.html.j2",
        title=f"robustgen: {len(results)} runs",
        subtitle=", ".join(names),
        answer=[f"{title.split(':')[0]}: {comparison.summary}." for title, comparison in pairs],
        table=side_by_side_table(names, results),
        runs=[
            {
                "name": name,
                "about": f"{run.recipe['name']}, {run.recipe['data']['name']}, {run.threat}, "
                f"{run.recipe['evaluation']['suite']}, seed {run.recipe['seed']}",
                "table": results_table(run),
                "differs": differences(first.recipe, run.recipe, terms=("first", "here"))[:40],
            }
            for name, run in zip(names, results, strict=True)
        ],
        first=names[0],
        pairs=[(title, comparison.table()) for title, comparison in pairs],
        flags=[
            *missing,
            *refused,
            *(f"{title}: {flag}" for title, comparison in pairs for flag in comparison.flags),
            *(
                f"{name}, {name_of(run.recipe, arm)}: {flag}"
                for name, run in zip(names, results, strict=True)
                for arm, verdicts in run.verdicts.items()
                for flag in verdicts.flags
            ),
        ],
        command=command,
    )


def run_names(folders: Sequence[Path]) -> list[str]:
    """The shortest path suffixes that make the folders' names unique; equal folders are numbered."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


def side_by_side_table(names: Sequence[str], results: Sequence[Results]) -> Table:
    """A row per arm, and per run two columns: clean and robust accuracy in percent."""
    arms = list(dict.fromkeys(name_of(run.recipe, arm) for run in results for arm in run.verdicts))
    named = [{name_of(run.recipe, arm): verdicts for arm, verdicts in run.verdicts.items()} for run in results]
    rows = []
    for arm in arms:
        cells = []
        for of_run in named:
            found = of_run.get(arm)
            shares = (found.clean_accuracy, found.robust_accuracy) if found else ()
            cells += [percent(share.value) for share in shares] or ["", ""]
        rows.append((arm, *cells))
    return Table(
        ("training images", *(f"{name}, {kind} %" for name in names for kind in ("clean", "robust"))), tuple(rows)
    )
