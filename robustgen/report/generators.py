"""Comparison of the generators of a run: image quality, sampling speed and robust accuracy. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.records.arc import ARCRecord
from robustgen.records.conditions import ConditionsRecord
from robustgen.records.loading import OF_PROXY_SETS
from robustgen.records.quality import SELF, TEST, TRAIN, Quality, neighbors_file
from robustgen.records.record import ProxyRecord
from robustgen.records.tables import Table
from robustgen.records.transport import TransportRecord
from robustgen.report import figures
from robustgen.report.tables import Results, changes_of, loss_of, proxies_of, proxy_facts, used_generators
from robustgen.stats.formatting import percent
from robustgen.storage.arrays import load_arrays
from robustgen.storage.files import read_json
from robustgen.units import parse_number


def read_qualities(results: Results) -> dict[str, Quality]:
    """Quality records of the proxy sets of a run, by generator in the recipe's order."""
    paths = {name: results.run.quality(name) for name in used_generators(results)}
    return {name: Quality.load(path) for name, path in paths.items() if path.exists()}


NEIGHBOR_KINDS = {TRAIN: "training", TEST: "test", SELF: "generated"}


def read_closeness(results: Results) -> dict[str, dict[str, ProxyRecord]]:
    """Finished proxy analyses of a run: by analysis, then by generator (for `transfer` by arm)."""
    found: dict[str, dict[str, ProxyRecord]] = {}
    for analysis, kind in OF_PROXY_SETS.items():
        for subject in results.verdicts if analysis == "transfer" else used_generators(results):
            path = results.run.closeness(subject, analysis)
            if path.with_suffix(".done").exists():
                found.setdefault(analysis, {})[subject] = kind.load(path)
    return found


def neighbors_figure(path: Path) -> dict[str, str] | None:
    """A picture of generated images above their nearest neighbors, with a caption; None where none were kept."""
    if not neighbors_file(path).exists():
        return None
    kept = load_arrays(neighbors_file(path))
    source = kept["source"]
    rows = np.concatenate([kept["samples"], kept["nearest"], kept["nearest_train"]])
    counts = [f"{int((source == kind).sum())} {what}" for kind, what in NEIGHBOR_KINDS.items()]
    return {
        "uri": figures.data_uri(figures.image_grid(rows, len(source))),
        "text": "First row: generated images. Second row: their nearest neighbors among training, test and generated "
        f"images ({', '.join(counts)}). Third row: their nearest training images.",
    }


def closeness_flags(found: dict[str, dict[str, ProxyRecord]]) -> list[str]:
    """Flags of all proxy analyses, each prefixed with its subject and analysis."""
    return [
        f"{subject}, {analysis}: {flag}"
        for analysis, records in found.items()
        for subject, record in records.items()
        for flag in record.flags
    ]


def generators_table(
    results: Results, qualities: dict[str, Quality], close: dict[str, dict[str, ProxyRecord]]
) -> Table:
    """A row per generator with a record; the first row has the values of real test images, where these are known.

    Columns without any value are left out.
    """
    analyses = [name for name in ("arc", "transport", "conditions") if name in close]
    names = [
        name for name in used_generators(results) if name in qualities or any(name in close[each] for each in analyses)
    ]
    if not names:
        return Table(("generator",), ())
    columns = {
        **(_measured(qualities, names) if qualities else {}),
        **{
            _NAMES[analysis]: ["", *(_number(close[analysis].get(name)) for name in names)]
            for analysis in analyses
            if analysis in _NAMES
        },
        **(_neighbor_columns(qualities, names) if qualities else {}),
        "CAS %": ["", *(_clean(results, score_arm(results.recipe, results.verdicts, name)) for name in names)],
        "images/s": ["", *(_speed(results, name) for name in names)],
        "robust %": ["", *(_robust(results, name) for name in names)],
    }
    shown = {title: column for title, column in columns.items() if any(column)}
    rows = zip(["real test images", *names], *shown.values(), strict=True)
    return Table(("generator", *shown), tuple(row for i, row in enumerate(rows) if i or any(row[1:])))


def _measured(qualities: dict[str, Quality], names: list[str]) -> dict[str, list[str]]:
    """Columns of distances; the first cell is the value of real test images."""
    first = next(iter(qualities.values()))
    return {
        measure: [
            f"{first.of_test[measure].value:.3g}" if measure in first.of_test else "",
            *(f"{qualities[name].estimates[measure].value:.3g}" if name in qualities else "" for name in names),
        ]
        for measure in first.estimates
    }


def _neighbor_columns(qualities: dict[str, Quality], names: list[str]) -> dict[str, list[str]]:
    """Columns of nearest neighbors and labels; the first cell is the ideal value."""

    def column(ideal: str, of: Callable[[Quality], str]) -> list[str]:
        return [ideal, *(of(qualities[name]) if name in qualities else "" for name in names)]

    return {
        "precision %": column("", lambda quality: f"{100 * quality.precision.value:.1f}"),
        "recall %": column("", lambda quality: f"{100 * quality.recall.value:.1f}"),
        "train %": column("33.3", lambda quality: f"{100 * quality.share_nearest(TRAIN).value:.1f}"),
        "test %": column("33.3", lambda quality: f"{100 * quality.share_nearest(TEST).value:.1f}"),
        "self %": column("33.3", lambda quality: f"{100 * quality.share_nearest(SELF).value:.1f}"),
        "entropy": column("1.099", lambda quality: f"{quality.neighbor_entropy:.3f}"),
        "memorized %": column("50.0", lambda quality: f"{100 * quality.memorized.value:.1f}"),
        "label agreement %": column("", lambda quality: f"{100 * quality.agreement.value:.1f}"),
    }


_NAMES = {"arc": "ARC", "transport": "excess transport"}


def _number(record: ProxyRecord | None) -> str:
    """The value of `ARC` or of `excess transport`."""
    if isinstance(record, ARCRecord):
        return f"{record.arc:.4f}"
    return f"{record.excess:.3g}" if isinstance(record, TransportRecord) else ""


def _speed(results: Results, name: str) -> str:
    """Images per second of wall-clock time of the sampling stage, start-up and disk included."""
    taken = read_json(results.run.timings) if results.run.timings.exists() else {}
    seconds = taken.get(f"sample {name}")
    count = int(proxy_facts(results.run.proxy(name))[0].replace(",", ""))
    return f"{count / seconds:,.0f}" if seconds else ""


def _clean(results: Results, arm: str | None) -> str:
    return percent(results.verdicts[arm].clean_accuracy.value) if arm else ""


def _robust(results: Results, name: str) -> str:
    """Robust accuracy of the arm that isolates a generator's effect."""
    arm = arm_of(results.recipe, results.verdicts, name)
    return percent(results.verdicts[arm].robust_accuracy.value) if arm else ""


def arm_of(recipe: dict[str, Any], evaluated: Iterable[str], generator: str) -> str | None:
    """The arm that isolates a generator's effect: real images plus this generator only, fewest changed settings."""
    found = [arm for arm in evaluated if proxies_of(recipe["arms"][arm]) == [generator]]
    return min(found, key=lambda arm: len(changes_of(recipe["arms"][arm])), default=None)


def score_arm(recipe: dict[str, Any], evaluated: Iterable[str], generator: str) -> str | None:
    """The arm whose clean accuracy is a generator's classification accuracy score (CAS).

    It is a standard classifier trained on generated images only.

    Source: arXiv:1905.10887.
    """
    for arm in evaluated:
        contents = recipe["arms"][arm]
        share = changes_of(contents).get("real_share")
        alone = proxies_of(contents) == [generator] and share is not None and not parse_number(share)
        if alone and loss_of(recipe, arm) == "plain":
            return arm
    return None


def measures_of(quality: Quality | None, close: Mapping[str, Mapping[str, ProxyRecord]], name: str) -> dict[str, float]:
    """All known metrics of a generator's images, by the name of their column."""
    found: dict[str, float] = {}
    if quality is not None:
        found |= {measure: estimate.value for measure, estimate in quality.estimates.items()}
    arc, transport, conditions = (close.get(analysis, {}).get(name) for analysis in ("arc", "transport", "conditions"))
    if isinstance(arc, ARCRecord):
        found["ARC"] = arc.arc
    if isinstance(transport, TransportRecord):
        found["excess transport"] = transport.excess
    if quality is not None:
        found |= {"precision": quality.precision.value, "recall": quality.recall.value}
        found |= {"NN entropy": quality.neighbor_entropy, "memorized": quality.memorized.value}
        found["label agreement"] = quality.agreement.value
    if isinstance(conditions, ConditionsRecord):
        found |= {"attack rate": conditions.attack_rate.value, "test coverage": conditions.coverage_alike.value}
    return {measure: float(value) for measure, value in found.items() if np.isfinite(value)}
