"""The generators of a run beside each other: how good their images are, how fast they come, what they buy. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.records.arc import ARCResult
from robustgen.records.closeness import Closeness
from robustgen.records.conditions import Conditions
from robustgen.records.quality import SELF, TEST, TRAIN, Quality, neighbors_file
from robustgen.records.tables import Table
from robustgen.records.transfer import Transfer
from robustgen.records.transport import Transport
from robustgen.report import figures
from robustgen.report.tables import Results, changes_of, loss_of, proxies_of, proxy_facts, used_generators
from robustgen.storage.arrays import load_arrays
from robustgen.storage.files import read_json
from robustgen.units import parse_number


def read_qualities(results: Results) -> dict[str, Quality]:
    """The measured proxy sets of a run, by generator in the recipe's order."""
    paths = {name: results.run.quality(name) for name in used_generators(results)}
    return {name: Quality.load(path) for name, path in paths.items() if path.exists()}


KINDS_OF_NEIGHBOURS = {TRAIN: "training", TEST: "test", SELF: "generated"}

KINDS: dict[str, type[Closeness]] = {
    "arc": ARCResult,
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
    if not neighbors_file(path).exists():
        return None
    kept = load_arrays(neighbors_file(path))
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
    """A row a generator that was measured or analysed; the first is of real test images, where measures know theirs.

    A column that says nothing of any is left out.
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
        **(_neighbourly(qualities, names) if qualities else {}),
        "CAS %": ["", *(_clean(results, score_arm(results.recipe, results.verdicts, name)) for name in names)],
        "images/s": ["", *(_speed(results, name) for name in names)],
        "robust %": ["", *(_robust(results, name) for name in names)],
    }
    told = {title: column for title, column in columns.items() if any(column)}
    rows = zip(["real test images", *names], *told.values(), strict=True)
    return Table(("generator", *told), tuple(row for i, row in enumerate(rows) if i or any(row[1:])))


def _measured(qualities: dict[str, Quality], names: list[str]) -> dict[str, list[str]]:
    """The columns of distances, the first cell that of real test images."""
    first = next(iter(qualities.values()))
    return {
        measure: [
            f"{first.of_test[measure].value:.3g}" if measure in first.of_test else "",
            *(f"{qualities[name].estimates[measure].value:.3g}" if name in qualities else "" for name in names),
        ]
        for measure in first.estimates
    }


def _neighbourly(qualities: dict[str, Quality], names: list[str]) -> dict[str, list[str]]:
    """The columns of neighbours and labels, the first cell what ideal images have."""

    def column(ideal: str, of: Callable[[Quality], str]) -> list[str]:
        return [ideal, *(of(qualities[name]) if name in qualities else "" for name in names)]

    return {
        "precision %": column("", lambda quality: f"{100 * quality.precision.value:.1f}"),
        "recall %": column("", lambda quality: f"{100 * quality.recall.value:.1f}"),
        "train %": column("33.3", lambda quality: f"{100 * quality.share_nearest(TRAIN).value:.1f}"),
        "test %": column("33.3", lambda quality: f"{100 * quality.share_nearest(TEST).value:.1f}"),
        "self %": column("33.3", lambda quality: f"{100 * quality.share_nearest(SELF).value:.1f}"),
        "entropy": column("1.099", lambda quality: f"{quality.neighbour_entropy:.3f}"),
        "memorised %": column("50.0", lambda quality: f"{100 * quality.memorised.value:.1f}"),
        "labels as asked %": column("", lambda quality: f"{100 * quality.agreement.value:.1f}"),
    }


_NAMES = {"arc": "ARC", "transport": "excess transport"}


def _number(record: Closeness | None) -> str:
    """ARC, or how much farther generated images are from real ones than real ones are from each other."""
    if isinstance(record, ARCResult):
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
        share = changes_of(contents).get("real_share")
        alone = proxies_of(contents) == [generator] and share is not None and not parse_number(share)
        if alone and loss_of(recipe, arm) == "plain":
            return arm
    return None


def measures_of(quality: Quality | None, close: Mapping[str, Mapping[str, Closeness]], name: str) -> dict[str, float]:
    """Every number known of a generator's images, by the name of its column."""
    found: dict[str, float] = {}
    if quality is not None:
        found |= {measure: estimate.value for measure, estimate in quality.estimates.items()}
    arc, transport, conditions = (close.get(analysis, {}).get(name) for analysis in ("arc", "transport", "conditions"))
    if isinstance(arc, ARCResult):
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
