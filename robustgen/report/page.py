"""The report: one self-contained HTML page, rebuilt from the records of a run. No torch."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from robustgen.config.losses import purpose_of
from robustgen.records.arc import ARCRecord
from robustgen.records.history import History
from robustgen.records.record import ProxyRecord
from robustgen.records.tables import Table
from robustgen.report import by_class, diagnostics, figures, gap
from robustgen.report.certificates import by_name, certificates_table, certified_figure, certified_gains
from robustgen.report.generators import (
    closeness_flags,
    generators_table,
    neighbors_figure,
    read_closeness,
    read_qualities,
)
from robustgen.report.headline import (
    first_screen,
    headline_of_run,
    title_of,
)
from robustgen.report.questions import by_question
from robustgen.report.study_summary import Study
from robustgen.report.tables import (
    Results,
    cascade_table,
    changes_of,
    latex,
    loss_of,
    mentioned_arms,
    name_of,
    proxies_of,
    proxy_facts,
    proxy_table,
    read_results,
    reported_table,
    results_table,
    settings_table,
    shortened,
    timings_table,
    used_generators,
)
from robustgen.stats.formatting import percent, points, points_range
from robustgen.stats.intervals import PairedDifference
from robustgen.storage.files import atomic_write, read_json
from robustgen.storage.run_folder import RunDir

_CERTIFIED = "Certified accuracy over the l2 radius; bands are 95 % Wilson intervals."


def write_report(run: RunDir) -> Path:
    """Write `report.html` of a run.

    Raises:
        ValueError: not a run folder, or nothing has been evaluated yet.
    """
    return write_page(render_run(read_results(run)), run.report)


def write_page(text: str, path: Path) -> Path:
    """Write a page atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())
    return path


def template(name: str) -> Template:
    """A template of this folder, with the functions that all templates use."""
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    jinja.globals["latex"] = latex
    return jinja.get_template(name)


def render_page(name: str, *, title: str, headline: str = "", **values: Any) -> str:
    """A page from a template that extends the frame, with a table of contents; the title is the heading by default."""
    text = template(name).render(title=title, headline=headline or title, **values)
    places: list[str] = []
    links: list[str] = []

    def anchored(found: re.Match[str]) -> str:
        words = re.sub(r"[^a-z0-9]+", "-", html.unescape(found[1]).lower()).strip("-") or "section"
        places.append(words if words not in places else f"{words}-{len(places)}")
        links.append(f'<li><a href="#{places[-1]}">{found[1]}</a></li>')
        return f'<h2 id="{places[-1]}">{found[1]}</h2>'

    text = re.sub(r"<h2>(.*?)</h2>", anchored, text)
    contents = f'<nav class="contents" aria-label="Contents"><ul>{"".join(links)}</ul></nav>'
    return text.replace("<!-- contents -->", contents if len(links) > 2 else "", 1)


def render_run(results: Results) -> str:
    """The page as HTML text."""
    recipe, run = results.recipe, results.run
    about = read_json(run.root / "data.json")
    certificates = _certificates(results)
    gains = certificates["sentences"] if certificates else []
    seed = f", seed {recipe['seed']}"
    found = diagnostics.read_diagnostics(results)
    close = read_closeness(results)
    loss = recipe["train"]["loss"]
    noisy = purpose_of(loss["kind"]) == "smoothed"
    against = f"at sigma {loss['sigma']:g}" if noisy else f"against {results.threat}"
    rows = headline_of_run(results)
    closed = gap.gap_section(Study({recipe["seed"]: results}))
    flags = [*_flags(results), *diagnostics.flags(results, found)]
    return render_page(
        "page.html.j2",
        title=f"robustgen: {recipe['name']}",
        headline=recipe["name"] if noisy else (closed and closed["title"]) or title_of(rows),
        first=first_screen(rows, closed, certificates if noisy else None, _CERTIFIED),
        subtitle=f"{recipe['data']['name']}: {about['counts']['train']} training, {about['counts']['validation']} "
        f"validation, {about['counts']['test']} test images of {'x'.join(map(str, about['shape'][1:]))}; "
        f"{recipe['train']['architecture']}, {loss['kind']} {against}{seed}",
        answer=[*gains, *gain_sentences(results)] if noisy else [*gain_sentences(results), *gains],
        gap=closed,
        results={
            question: results_table(results, arms)
            for question, arms in by_question(recipe, list(results.verdicts), results.baseline).items()
        },
        reported=reported_table(results),
        unsure=(recipe.get("reported") or {}).get("unsure", ""),
        counts=about["counts"],
        suite=recipe["evaluation"]["suite"],
        threat=results.threat,
        baseline=name_of(recipe, results.baseline),
        shortened=shortened(recipe, results.verdicts),
        certificates=certificates,
        certificates_first=noisy and bool(certificates),
        certified_caption=_CERTIFIED,
        bars=_bars(results),
        flags=flags,
        also_checked=diagnostics.also_checked(found),
        flow=_flow(results, about["counts"]),
        pictures=_pictures(results),
        proxies=proxy_table(results),
        generators=_generators(results, close),
        curves=_curves(results),
        cascade=cascade_table(results),
        by_class=by_class.by_class_section(results, about["classes"]),
        diagnostics=diagnostics.sections(results, found, about["classes"]),
        command=f"robustgen run {recipe['name']}",
        settings=settings_table(recipe),
        environment=Table(("component", "version"), tuple(read_json(run.environment).items())),
        timings=timings_table(run),
    )


def gain_sentences(results: Results) -> list[str]:
    """A sentence per arm: its gain over the baseline, and whether the gain is significant."""
    base = results.verdicts[results.baseline]
    sentences = []
    others = {arm: v.robust_accuracy.value for arm, v in results.verdicts.items() if arm != results.baseline}
    for arm in mentioned_arms(results.recipe, others):
        verdicts = results.verdicts[arm]
        gain = PairedDifference.of(verdicts.robust, base.robust)
        low, high = gain.interval
        verdict = (
            "more robust" if low > 0 else "less robust" if high < 0 else "not significantly different on this test set"
        )
        contents = results.recipe["arms"][arm]
        generators = " and ".join(proxies_of(contents))
        changes = [f"{name}={value}" for name, value in changes_of(contents).items()]
        count = contents.get("train_images")
        real = "" if count is None else "all real images" if count == "all" else f"{count:,} real images"
        who = ", ".join([*([real] if real else []), *([f"{generators} images"] if generators else []), *changes])
        sentences.append(
            f"With {who or 'real images'}: {percent(verdicts.robust_accuracy.value)} % robust, "
            f"{points(gain.value)} points ({points_range(gain.interval)}): {verdict}."
        )
    return sentences or [f"{percent(base.robust_accuracy.value)} % robust."]


def _certificates(results: Results) -> dict[str, Any] | None:
    """Content of the section on certificates; None for a run without certificates."""
    named = by_name(results)
    if not named:
        return None
    usual = name_of(results.recipe, results.baseline)
    return {
        "sentences": certified_gains(named, usual if usual in named else next(iter(named))),
        "table": certificates_table(named),
        "svg": certified_figure(named),
        "settings": results.recipe["certification"],
        "count": len(next(iter(named.values()))),
    }


def _generators(results: Results, close: dict[str, dict[str, ProxyRecord]]) -> dict[str, Any] | None:
    """Content of the section on generators; None when they were neither measured nor analyzed."""
    qualities = read_qualities(results)
    if not qualities and not close:
        return None
    details = {f"{name}, all metrics with image counts": quality.table() for name, quality in qualities.items()}
    for analysis, records in close.items():
        details |= {f"{subject}, {analysis}: {record.summary}": record.table() for subject, record in records.items()}
    return {
        "table": generators_table(results, qualities, close),
        "about": next((quality.about for quality in qualities.values()), None),
        "arc": figures.arc_curves(
            {name: record for name, record in close.get("arc", {}).items() if isinstance(record, ARCRecord)}
        ),
        "nearest": {
            name: found for name in qualities if (found := neighbors_figure(results.run.quality(name))) is not None
        },
        "notes": closeness_flags(close),
        "details": details,
    }


def _bars(results: Results) -> str:
    rows = []
    for arm, verdicts in results.verdicts.items():
        clean, robust = verdicts.clean_accuracy, verdicts.robust_accuracy
        rows.append((name_of(results.recipe, arm), clean.value, clean.interval, robust.value, robust.interval))
    return figures.accuracy_bars(rows)


def _flags(results: Results) -> list[str]:
    flags = [
        f"{name_of(results.recipe, arm)}: {flag}"
        for arm, verdicts in results.verdicts.items()
        for flag in verdicts.flags
    ]
    missing = [arm for arm in results.recipe["arms"] if arm not in results.verdicts]
    if missing:
        flags.append(f"not evaluated yet: {', '.join(missing)}")
    return [*flags, *failed_stages(results)]


def failed_stages(results: Results) -> list[str]:
    """Optional stages that failed, with their errors."""
    return [f"not made: {stage}: {why}" for stage, why in results.run.failed_stages().items()]


def _flow(results: Results, counts: dict[str, int]) -> list[str]:
    """The stages of this run in a few words each."""
    recipe = results.recipe
    proxies = used_generators(results)
    steps = [f"{counts['train']} real images"]
    if proxies:
        steps += [
            f"generators: {', '.join(proxies)}",
            f"{recipe['sampling']['count']:,} samples of each",
            f"pseudo-labels by {recipe['labeller']['architecture']}",
            _selection(recipe["keep"], proxies),
            f"batches {100 * recipe['train']['real_share']:.0f} % real",
        ]
    steps += [f"{loss_of(recipe)}, weights averaged", f"best of {recipe['train']['models']} by validation"]
    return [*steps, recipe["evaluation"]["suite"]]


def _selection(keep: dict[str, Any], proxies: Iterable[str]) -> str:
    """The rule of selection, and the rules of generators that have their own: "all kept, of edm: top-confidence"."""
    common = "all kept" if keep["rule"] == "all" else f"kept: {keep['rule']}"
    own = [f"of {name}: {keep['special'][name]['rule']}" for name in proxies if name in keep["special"]]
    return ", ".join([common, *own])


def _pictures(results: Results) -> list[dict[str, str]]:
    run = results.run
    found = [
        {
            "title": "real",
            "text": "Training images, one column per class.",
            "uri": figures.data_uri(figures.preview_grid(run.real_samples)),
        }
    ]
    for proxy in used_generators(results):
        sampled, kept, agreed, how = proxy_facts(run.proxy(proxy))
        agreement = f"; label agreement {agreed} %" if agreed else ""
        found.append(
            {
                "title": proxy,
                "text": f"{sampled} sampled ({how}), {kept} kept{agreement}. One column per pseudo-label.",
                "uri": figures.data_uri(figures.preview_grid(run.proxy(proxy) / "preview.npz")),
            }
        )
    return found


def _curves(results: Results) -> list[dict[str, Any]]:
    losses, validations = {}, {}
    usual = purpose_of(loss_of(results.recipe)) == "smoothed"
    for arm, chosen in results.chosen.items():
        folder = results.run.root / "classifiers" / chosen
        losses[name_of(results.recipe, arm)] = History.load(folder / "history.npz")
        noisy = purpose_of(loss_of(results.recipe, arm)) == "smoothed"
        if (folder / "validation.npz").exists() and noisy == usual:
            validations[name_of(results.recipe, arm)] = History.load(folder / "validation.npz")
    what = "accuracy under noise" if usual else "robust accuracy"
    text = (
        f"{what.capitalize()} on the validation images: EMA weights (solid) and raw weights (dashed) of the "
        "selected models."
    )
    trained = "Training loss of the selected models."
    return [
        *({"svg": figures.validation_curves(part, what), "text": text} for part in figures.portions(validations)),
        *({"svg": figures.loss_curves(part), "text": trained} for part in figures.portions(losses)),
    ]
