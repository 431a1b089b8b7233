"""Several runs of one recipe by other seeds, together: means, spreads, paired gains, rank correlations. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustgen.config.losses import purpose_of
from robustgen.records.history import History
from robustgen.records.tables import Table
from robustgen.report.generators import arm_of, measures_of, read_closeness, read_qualities, score_arm
from robustgen.report.tables import (
    Results,
    baseline_of,
    changes_of,
    loss_of,
    name_of,
    proxies_of,
    used_generators,
    worth_telling,
)
from robustgen.stats.intervals import PairedDifference
from robustgen.stats.seeds import RankCorrelation, SeedStatistics, correlate
from robustgen.units import parse_number


@dataclass(frozen=True)
class Study:
    """What the report of several seeds is made of; `results` by seed, rising."""

    results: dict[int, Results]

    @property
    def recipe(self) -> dict[str, Any]:
        return next(iter(self.results.values())).recipe

    @property
    def arms(self) -> list[str]:
        """Arms that were evaluated in some seed, in the recipe's order."""
        return [arm for arm in self.recipe["arms"] if any(arm in run.verdicts for run in self.results.values())]

    @property
    def alike(self) -> list[str]:
        """Arms trained for what the baseline is trained for: against attacks, under noise, or for neither."""
        usual = purpose_of(loss_of(self.recipe, self.baseline))
        return [arm for arm in self.arms if purpose_of(loss_of(self.recipe, arm)) == usual]

    @property
    def baseline(self) -> str:
        return baseline_of(self.recipe, self.arms)

    def name(self, arm: str) -> str:
        return name_of(self.recipe, arm)

    def with_arm(self, *arms: str) -> list[Results]:
        """Runs in which all of these have been evaluated."""
        return [run for run in self.results.values() if all(arm in run.verdicts for arm in arms)]

    def clean(self, arm: str) -> SeedStatistics:
        return SeedStatistics(tuple(run.verdicts[arm].clean_accuracy.value for run in self.with_arm(arm)))

    def robust(self, arm: str) -> SeedStatistics:
        return SeedStatistics(tuple(run.verdicts[arm].robust_accuracy.value for run in self.with_arm(arm)))

    def gain(self, arm: str) -> SeedStatistics:
        """Robust accuracy over the baseline's of the same seed, on the same images."""
        pairs = [(run.verdicts[arm], run.verdicts[self.baseline]) for run in self.with_arm(arm, self.baseline)]
        return SeedStatistics(tuple(PairedDifference.of(ours.robust, base.robust).value for ours, base in pairs))


def read_study(runs: Sequence[Results]) -> Study | None:
    """A study where the runs are of one recipe by different seeds; else none."""
    alike = [{**run.recipe, "seed": 0, "seeds": (), "name": "", "summary": ""} for run in runs]
    seeds = [run.recipe["seed"] for run in runs]
    if any(recipe != alike[0] for recipe in alike) or len(set(seeds)) < len(seeds):
        return None
    return Study({run.recipe["seed"]: run for run in sorted(runs, key=lambda run: int(run.recipe["seed"]))})


def verdict(gain: SeedStatistics) -> str:
    low, high = gain.interval
    if math.isnan(low):
        return "by a single seed"
    return "more robust" if low > 0 else "less robust" if high < 0 else "not settled by these seeds"


def answer(study: Study, most: int = 8) -> list[str]:
    """What came out, in sentences: of the arms that change no setting, of the best of those that do, and which others
    are settled."""
    base = study.robust(study.baseline)
    sentences = [f"{study.name(study.baseline)}: {percent(base.mean)} % robust on average over {len(base)} seeds."]
    others = {arm: study.robust(arm).mean for arm in study.alike if arm != study.baseline}
    told = worth_telling(study.recipe, others, most)
    for arm in told:
        robust, gain = study.robust(arm), study.gain(arm)
        changed = bool(changes_of(study.recipe["arms"][arm]))
        best = "The best of those with changed settings, " if changed and len(told) < len(others) else ""
        points = f"{points_of(gain.mean)} points ({interval_of(gain)}): {verdict(gain)}" if gain else "not compared"
        sentences.append(f"{best}{study.name(arm)}: {percent(robust.mean)} % robust, {points}.")
    for said in ("more robust", "less robust"):
        settled = [arm for arm in others if arm not in told and study.gain(arm) and verdict(study.gain(arm)) == said]
        if settled:
            names = "; ".join(f"{study.name(arm)} ({points_of(study.gain(arm).mean)})" for arm in settled)
            sentences.append(f"Also {said}: {names}.")
    return sentences


def arms_table(study: Study) -> Table:
    """A row an arm: means over seeds, deviation and range from seed to seed, and the gain paired within each seed."""
    columns = ("training images", "seeds", "clean %", "robust %", "sd", "range", "gain", "95 %")
    rows = []
    for arm in study.arms:
        clean, robust, gain = study.clean(arm), study.robust(arm), study.gain(arm)
        own = arm == study.baseline
        row = [
            study.name(arm), str(len(robust)), percent(clean.mean), percent(robust.mean), percent(robust.deviation),
            " to ".join(percent(end) for end in robust.range), "" if own or not gain else points_of(gain.mean),
            "" if own or not gain else interval_of(gain),
        ]  # fmt: skip
        rows.append(tuple(row))
    return Table(columns, tuple(rows))


def seeds_table(study: Study) -> Table:
    """Robust accuracy of every arm in every seed."""
    rows = tuple(
        (
            study.name(arm),
            *(
                percent(run.verdicts[arm].robust_accuracy.value) if arm in run.verdicts else ""
                for run in study.results.values()
            ),
        )
        for arm in study.arms
    )
    return Table(("robust %", *(f"seed {seed}" for seed in study.results)), rows)


@dataclass(frozen=True)
class Curves:
    """Robust accuracy on the validation images while an arm is trained, a row a seed.

    step      (V,)
    averaged  (S, V) of the averaged weights
    raw       (S, V) of the weights themselves
    """

    step: np.ndarray
    averaged: np.ndarray
    raw: np.ndarray


def curves(study: Study) -> dict[str, Curves]:
    """By the name of the arm; of the models that were chosen, where they were validated at the same steps.

    An arm that is not `alike` is left out: what it was validated by is another accuracy.
    """
    found = {}
    for arm in study.alike:
        paths = [run.run.root / "classifiers" / run.chosen[arm] / "validation.npz" for run in study.with_arm(arm)]
        histories = [History.load(path) for path in paths if path.exists()]
        if histories and all(np.array_equal(one["step"], histories[0]["step"]) for one in histories):
            kinds = (np.stack([one[f"{kind}_robust"] for one in histories]) for kind in ("averaged", "raw"))
            found[study.name(arm)] = Curves(histories[0]["step"], *kinds)
    return found


def grouped(study: Study, found: dict[str, Curves]) -> list[dict[str, Curves]]:
    """Curves of arms that differ in the same settings, averaging aside, which each of them shows both ways; those of
    arms that nothing else is grouped with come last, together and beside the baseline's."""
    groups: dict[tuple[str, ...], dict[str, Curves]] = {}
    for arm in study.arms:
        if study.name(arm) in found:
            key = tuple(sorted(changes_of(study.recipe["arms"][arm]).keys() - {"averaging", "ema_decay"}))
            groups.setdefault(key, {})[study.name(arm)] = found[study.name(arm)]
    alone = {name: one for group in groups.values() if len(group) == 1 for name, one in group.items()}
    base = {name: one for name, one in found.items() if name == study.name(study.baseline)}
    return [*(group for group in groups.values() if len(group) > 1), *([base | alone] if alone else [])]


def overfitting_table(found: dict[str, Curves]) -> Table:
    """Best and last validation accuracy of raw and averaged weights; what is lost in between is robust overfitting."""
    rows = []
    for name, one in found.items():
        cells = []
        for values in (one.raw, one.averaged):
            best, last = (SeedStatistics(tuple(part.tolist())) for part in (values.max(1), values[:, -1]))
            cells += [percent(best.mean), percent(last.mean), percent(best.mean - last.mean)]
        rows.append((name, *cells))
    kinds = (f"{kind} {when}" for kind in ("raw", "averaged") for when in ("best %", "last %", "lost"))
    return Table(("training images", *kinds), tuple(rows))


def by_real_share(study: Study) -> dict[str, dict[float, SeedStatistics]]:
    """Robust accuracy by the share of real images in a batch, of generators with two arms or more that differ in it."""
    found: dict[str, dict[float, SeedStatistics]] = {}
    for arm in study.arms:
        contents = study.recipe["arms"][arm]
        proxies, changes = proxies_of(contents), changes_of(contents)
        if len(proxies) == 1 and not contents.get("phases") and changes.keys() <= {"real_share"}:
            share = parse_number(changes.get("real_share", study.recipe["train"]["real_share"]))
            found.setdefault(proxies[0], {})[share] = study.robust(arm)
    return {name: dict(sorted(shares.items())) for name, shares in found.items() if len(shares) > 1}


@dataclass(frozen=True)
class Measured:
    """What was measured of generators in every seed.

    generators  their names
    measures    by name: (S, G), NaN where a run does not know it
    gains       (S, G) robust accuracy bought, over the same seed's baseline
    """

    generators: tuple[str, ...]
    measures: dict[str, np.ndarray]
    gains: np.ndarray

    def of(self, names: Sequence[str]) -> Measured:
        """Of these generators alone."""
        columns = [self.generators.index(name) for name in names]
        measures = {measure: values[:, columns] for measure, values in self.measures.items()}
        return Measured(tuple(names), measures, self.gains[:, columns])

    def correlations(self) -> dict[str, RankCorrelation]:
        """Of each measure with what was bought, over the generators of which all seeds know both; 3 are needed, and a
        measure that differs."""
        found = {}
        for name, values in self.measures.items():
            known = np.isfinite(values).all(0) & np.isfinite(self.gains).all(0)
            if known.sum() >= 3 and np.ptp(values[:, known].mean(0)) > 0:
                found[name] = correlate(values[:, known], self.gains[:, known])
        return found


def measured(study: Study) -> Measured | None:
    """Of all generators; none where nothing was measured."""
    runs = list(study.results.values())
    names = tuple(used_generators(runs[0]))
    known: list[list[dict[str, float]]] = []
    gains = np.full((len(runs), len(names)), np.nan)
    for s, run in enumerate(runs):
        qualities, close = read_qualities(run), read_closeness(run)
        known.append([measures_of(qualities.get(name), close, name) for name in names])
        for name, cell in zip(names, known[-1], strict=True):
            if (scored := score_arm(study.recipe, run.verdicts, name)) is not None:
                cell["CAS"] = run.verdicts[scored].clean_accuracy.value
        for g, name in enumerate(names):
            arm = arm_of(study.recipe, run.verdicts, name)
            if arm is not None and study.baseline in run.verdicts:
                pair = run.verdicts[arm].robust, run.verdicts[study.baseline].robust
                gains[s, g] = PairedDifference.of(*pair).value
    order = list(dict.fromkeys(measure for row in known for cell in row for measure in cell))
    if not order:
        return None
    measures = {name: np.array([[cell.get(name, math.nan) for cell in row] for row in known]) for name in order}
    return Measured(names, measures, gains)


def generators_table(found: Measured) -> Table:
    """A row a generator: each measure's mean over seeds and deviation, and the robust accuracy bought."""
    rows = []
    for g, name in enumerate(found.generators):
        cells = []
        for values in found.measures.values():
            part = SeedStatistics(tuple(values[:, g][np.isfinite(values[:, g])].tolist()))
            few = math.isnan(part.deviation)
            cells.append("" if not part else f"{part.mean:.3g}" if few else f"{part.mean:.3g} +- {part.deviation:.2g}")
        gain = SeedStatistics(tuple(found.gains[:, g][np.isfinite(found.gains[:, g])].tolist()))
        rows.append((name, *cells, points_of(gain.mean) if gain else ""))
    return Table(("generator", *found.measures, "bought, points"), tuple(rows))


def correlations_table(found: dict[str, RankCorrelation]) -> Table:
    """Spearman's correlation of each measure with the robust accuracy bought."""
    rows = tuple(
        (name, f"{one.value:+.2f}", f"{one.interval[0]:+.2f} to {one.interval[1]:+.2f}",
         ", ".join(f"{value:+.2f}" for value in one.each))
        for name, one in found.items()
    )  # fmt: skip
    return Table(("measure", "rank correlation", "95 %", "in each seed"), rows)


def percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def points_of(value: float) -> str:
    return f"{100 * value:+.1f}"


def interval_of(spread: SeedStatistics) -> str:
    low, high = spread.interval
    return "no interval from one seed" if math.isnan(low) else f"{100 * low:+.1f} to {100 * high:+.1f}"
