"""The generators of a run beside each other: how good their images are, how fast they come, what they buy. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.closeness import Closeness, Conditions, Discrimination
from robustgen.distances import Transfer, Transport
from robustgen.quality import SELF, TEST, TRAIN, Quality, neighbours_file
from robustgen.records import Table, load_arrays
from robustgen.report import figures
from robustgen.report.tables import Results, changes_of, proxies_of, proxy_facts, used_generators
from robustgen.runs import read_json
from robustgen.units import parse_number


def read_qualities(results: Results) -> dict[str, Quality]:
    """The measured proxy sets of a run, by generator in the recipe's order."""
    paths = {name: results.run.quality(name) for name in used_generators(results)}
    return {name: Quality.load(path) for name, path in paths.items() if path.exists()}


KINDS_OF_NEIGHBOURS = {TRAIN: "training", TEST: "test", SELF: "generated"}

KINDS: dict[str, type[Closeness]] = {
    "arc": Discrimination,
    "transport": Transport,
    "conditions": Conditions,
    "transfer": Transfer,
}


def read_closeness(results: Results) -> dict[str, dict[str, Closeness]]:
    """Finished analyses of a run's generated images: of each generator by the analysis; transfer by the arm."""
    found: dict[str, dict[str, Closeness]] = {}
    for analysis, kind in KINDS.items():
        for subject in results.verdicts if analysis == "transfer" else used_generators(results):
            path = results.run.closeness(subject, analysis)
            if path.with_suffix(".done").exists():
                found.setdefault(analysis, {})[subject] = kind.load(path)
    return found


def neighbours_figure(path: Path) -> dict[str, str] | None:
    """Samples of a generator above their nearest images, with a sentence; nothing where none were kept."""
    if not neighbours_file(path).exists():
        return None
    kept = load_arrays(neighbours_file(path))
    source = kept["source"]
    rows = np.concatenate([kept["samples"], kept["nearest"], kept["nearest_train"]])
    parts = [f"{int((source == kind).sum())} {what}" for kind, what in KINDS_OF_NEIGHBOURS.items()]
    return {
        "uri": figures.data_uri(figures.image_grid(rows, len(source))),
        "text": f"Generated; the nearest among training, test and generated images ({', '.join(parts)}); the nearest "
        "training image.",
    }


def closeness_flags(found: dict[str, dict[str, Closeness]]) -> list[str]:
    """What makes the numbers of all of them doubtful, each with whose it is: about images, not about an evaluation."""
    return [
        f"{subject}, {analysis}: {flag}"
        for analysis, records in found.items()
        for subject, record in records.items()
        for flag in record.flags
    ]


def generators_table(results: Results, qualities: dict[str, Quality], close: dict[str, dict[str, Closeness]]) -> Table:
    """A row a generator; the first is that of real test images, where a measure knows theirs."""
    first = next(iter(qualities.values()))
    measures = list(first.estimates)
    analyses = [name for name in ("arc", "transport") if name in close]
    scores = {name: score_arm(results.recipe, results.verdicts, name) for name in qualities}
    scored = any(scores.values())
    columns = (
        "generator",
        *measures,
        *(_NAMES[name] for name in analyses),
        *("precision %", "recall %", "train %", "test %", "self %", "entropy", "memorised %"),
        *("labels as asked %", *(["CAS %"] if scored else []), "images/s", "robust %"),
    )
    rows = [
        (
            "real test images",
            *(f"{first.of_test[name].value:.3g}" if name in first.of_test else "" for name in measures),
            *("" for _ in analyses), "", "", "33.3", "33.3", "33.3", "1.099", "50.0",
            "", *([""] if scored else []), "", "",
        )
    ]  # fmt: skip
    for name, quality in qualities.items():
        shares = [quality.precision, quality.recall, *map(quality.share_nearest, (TRAIN, TEST, SELF))]
        rows.append(
            (
                name,
                *(f"{quality.estimates[measure].value:.3g}" for measure in measures),
                *(_number(close[analysis].get(name)) for analysis in analyses),
                *(f"{100 * share.value:.1f}" for share in shares),
                f"{quality.neighbour_entropy:.3f}",
                f"{100 * quality.memorised.value:.1f}",
                f"{100 * quality.agreement.value:.1f}",
                *([_clean(results, scores[name])] if scored else []),
                _speed(results, name),
                _robust(results, name),
            )
        )
    return Table(columns, tuple(rows))


_NAMES = {"arc": "ARC", "transport": "excess transport"}


def _number(record: Closeness | None) -> str:
    """ARC, or how much farther generated images are from real ones than real ones are from each other."""
    if isinstance(record, Discrimination):
        return f"{record.arc:.4f}"
    return f"{record.excess:.3g}" if isinstance(record, Transport) else ""


def _speed(results: Results, name: str) -> str:
    """Images a second, by the stage's own clock: start and disk included, other stages beside it."""
    taken = read_json(results.run.timings) if results.run.timings.exists() else {}
    seconds = taken.get(f"sample {name}")
    count = int(proxy_facts(results.run.proxy(name))[0].replace(",", ""))
    return f"{count / seconds:,.0f}" if seconds else ""


def _clean(results: Results, arm: str | None) -> str:
    return f"{100 * results.verdicts[arm].clean_accuracy.value:.1f}" if arm else ""


def _robust(results: Results, name: str) -> str:
    """Of the arm that shows what a generator buys."""
    arm = arm_of(results.recipe, results.verdicts, name)
    return f"{100 * results.verdicts[arm].robust_accuracy.value:.1f}" if arm else ""


def arm_of(recipe: dict[str, Any], evaluated: Iterable[str], generator: str) -> str | None:
    """The first arm that is trained with a generator's images alone beside real ones, with as few changes as any."""
    found = [arm for arm in evaluated if proxies_of(recipe["arms"][arm]) == [generator]]
    return min(found, key=lambda arm: len(changes_of(recipe["arms"][arm])), default=None)


def score_arm(recipe: dict[str, Any], evaluated: Iterable[str], generator: str) -> str | None:
    """The arm whose clean accuracy is the classification accuracy score of a generator: a standard classifier that
    learnt from its images alone (arXiv:1905.10887)."""
    for arm in evaluated:
        contents = recipe["arms"][arm]
        loss, share = (changes_of(contents).get(name) for name in ("loss", "real_share"))
        if proxies_of(contents) == [generator] and loss == "plain" and share is not None and not parse_number(share):
            return arm
    return None


def measures_of(quality: Quality | None, close: Mapping[str, Mapping[str, Closeness]], name: str) -> dict[str, float]:
    """Every number known of a generator's images, by the name of its column."""
    found: dict[str, float] = {}
    if quality is not None:
        found |= {measure: estimate.value for measure, estimate in quality.estimates.items()}
    arc, transport, conditions = (close.get(analysis, {}).get(name) for analysis in ("arc", "transport", "conditions"))
    if isinstance(arc, Discrimination):
        found["ARC"] = arc.arc
    if isinstance(transport, Transport):
        found["excess transport"] = transport.excess
    if quality is not None:
        found |= {"precision": quality.precision.value, "recall": quality.recall.value}
        found |= {"NN entropy": quality.neighbour_entropy, "memorised": quality.memorised.value}
        found["labels as asked"] = quality.agreement.value
    if isinstance(conditions, Conditions):
        found |= {"attack rate": conditions.attack_rate.value, "test coverage": conditions.coverage_alike.value}
    return {measure: float(value) for measure, value in found.items() if np.isfinite(value)}
