"""Statistics over several seeds of one recipe: means, deviations, paired gains, rank correlations. No torch."""

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
    mentioned_arms,
    name_of,
    proxies_of,
    used_generators,
)
from robustgen.stats.formatting import percent, percent_range, points, points_range
from robustgen.stats.intervals import PairedDifference
from robustgen.stats.seeds import RankCorrelation, SeedStatistics, correlate
from robustgen.units import parse_number

ONE_SEED = "no interval from one seed"


@dataclass(frozen=True)
class Study:
    """Runs of one recipe that differ in the seed only; `results` by seed, ascending."""

    results: dict[int, Results]

    @property
    def recipe(self) -> dict[str, Any]:
        return next(iter(self.results.values())).recipe

    @property
    def arms(self) -> list[str]:
        """Arms that were evaluated in at least one seed, in the recipe's order."""
        return [arm for arm in self.recipe["arms"] if any(arm in run.verdicts for run in self.results.values())]

    @property
    def alike(self) -> list[str]:
        """Arms with the same kind of training as the baseline: adversarial, with noise, or standard."""
        usual = purpose_of(loss_of(self.recipe, self.baseline))
        return [arm for arm in self.arms if purpose_of(loss_of(self.recipe, arm)) == usual]

    @property
    def baseline(self) -> str:
        return baseline_of(self.recipe, self.arms)

    def name(self, arm: str) -> str:
        return name_of(self.recipe, arm)

    def with_arm(self, *arms: str) -> list[Results]:
        """Runs in which all these arms have been evaluated."""
        return [run for run in self.results.values() if all(arm in run.verdicts for arm in arms)]

    def clean(self, arm: str) -> SeedStatistics:
        return SeedStatistics(tuple(run.verdicts[arm].clean_accuracy.value for run in self.with_arm(arm)))

    def robust(self, arm: str) -> SeedStatistics:
        return SeedStatistics(tuple(run.verdicts[arm].robust_accuracy.value for run in self.with_arm(arm)))

    def gain(self, arm: str) -> SeedStatistics:
        """Robust accuracy minus that of the baseline of the same seed, paired on the same images."""
        pairs = [(run.verdicts[arm], run.verdicts[self.baseline]) for run in self.with_arm(arm, self.baseline)]
        return SeedStatistics(tuple(PairedDifference.of(ours.robust, base.robust).value for ours, base in pairs))


def read_study(runs: Sequence[Results]) -> Study | None:
    """A study if the runs differ in the seed only and no seed occurs twice; else None."""
    alike = [{**run.recipe, "seed": 0, "seeds": (), "name": "", "summary": ""} for run in runs]
    seeds = [run.recipe["seed"] for run in runs]
    if any(recipe != alike[0] for recipe in alike) or len(set(seeds)) < len(seeds):
        return None
    return Study({run.recipe["seed"]: run for run in sorted(runs, key=lambda run: int(run.recipe["seed"]))})


def verdict(gain: SeedStatistics) -> str:
    """Whether the 95 % interval of a gain excludes 0, in words."""
    low, high = gain.interval
    if math.isnan(low):
        return "from a single seed"
    return "more robust" if low > 0 else "less robust" if high < 0 else "not significant with these seeds"


def study_sentences(study: Study, most: int = 8) -> list[str]:
    """The results as sentences: arms without changed settings, the best arm with changed settings, and then the other
    arms with significant gains or losses."""
    base = study.robust(study.baseline)
    over = f" on average over {len(base)} seeds" if len(base) > 1 else ""
    sentences = [f"{study.name(study.baseline)}: {percent(base.mean)} % robust{over}."]
    others = {arm: study.robust(arm).mean for arm in study.alike if arm != study.baseline}
    mentioned = mentioned_arms(study.recipe, others, most)
    for arm in mentioned:
        robust, gain = study.robust(arm), study.gain(arm)
        changed = bool(changes_of(study.recipe["arms"][arm]))
        best = "Best arm with changed settings, " if changed and len(mentioned) < len(others) else ""
        certain = f" ({points_range(gain.interval)})" if len(gain) > 1 else ""
        change = f"{points(gain.mean)} points{certain}: {verdict(gain)}" if gain else "not compared"
        sentences.append(f"{best}{study.name(arm)}: {percent(robust.mean)} % robust, {change}.")
    rest = [arm for arm in others if arm not in mentioned and study.gain(arm)]
    for said in ("more robust", "less robust"):
        significant = [arm for arm in rest if verdict(study.gain(arm)) == said]
        if significant:
            names = "; ".join(f"{study.name(arm)} ({points(study.gain(arm).mean)})" for arm in significant)
            sentences.append(f"Also {said}: {names}.")
    return sentences


def arms_table(study: Study, arms: Sequence[str] | None = None) -> Table:
    """A row per arm (default: all): means, deviations and ranges over seeds, and the gain paired within seeds."""
    columns = ("training images", "seeds", "clean %", "robust %", "sd", "range", "gain", "95 %")
    rows = []
    for arm in study.arms if arms is None else arms:
        clean, robust, gain = study.clean(arm), study.robust(arm), study.gain(arm)
        own = arm == study.baseline
        row = [
            study.name(arm), str(len(robust)), percent(clean.mean), percent(robust.mean), percent(robust.deviation),
            percent_range(robust.range), "" if own or not gain else points(gain.mean),
            "" if own or not gain else points_range(gain.interval, ONE_SEED),
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
    """Robust accuracy of an arm on the validation images during training; S seeds, V validations.

    step      (V,) training step of each validation
    averaged  (S, V) accuracy of the EMA weights
    raw       (S, V) accuracy of the raw weights
    """

    step: np.ndarray
    averaged: np.ndarray
    raw: np.ndarray


def curves(study: Study) -> dict[str, Curves]:
    """Curves of the selected models by the name of the arm, if all seeds were validated at the same steps.

    Arms that are not `alike` are left out, because they are validated by a different accuracy.
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
    """Group the curves of arms that change the same settings (not counting `averaging`: curves show both weights).

    Arms without a group form a last group together with the baseline.
    """
    groups: dict[tuple[str, ...], dict[str, Curves]] = {}
    for arm in study.arms:
        if study.name(arm) in found:
            key = tuple(sorted(changes_of(study.recipe["arms"][arm]).keys() - {"averaging", "ema_decay"}))
            groups.setdefault(key, {})[study.name(arm)] = found[study.name(arm)]
    alone = {name: one for group in groups.values() if len(group) == 1 for name, one in group.items()}
    base = {name: one for name, one in found.items() if name == study.name(study.baseline)}
    return [*(group for group in groups.values() if len(group) > 1), *([base | alone] if alone else [])]


def overfitting_table(found: dict[str, Curves]) -> Table:
    """Best and last validation accuracy of raw and EMA weights; the drop between them is robust overfitting."""
    rows = []
    for name, one in found.items():
        cells = []
        for values in (one.raw, one.averaged):
            best, last = (SeedStatistics(tuple(each.tolist())) for each in (values.max(1), values[:, -1]))
            cells += [percent(best.mean), percent(last.mean), percent(best.mean - last.mean)]
        rows.append((name, *cells))
    kinds = (f"{kind} {when}" for kind in ("raw", "EMA") for when in ("best %", "last %", "drop"))
    return Table(("training images", *kinds), tuple(rows))


def by_real_share(study: Study) -> dict[str, dict[float, SeedStatistics]]:
    """Robust accuracy by share of real images in a batch, for generators with several arms that differ in it."""
    found: dict[str, dict[float, SeedStatistics]] = {}
    for arm in study.arms:
        contents = study.recipe["arms"][arm]
        proxies, changes = proxies_of(contents), changes_of(contents)
        usual = not contents.get("phases") and not contents.get("train_images")
        if len(proxies) == 1 and usual and changes.keys() <= {"real_share"}:
            share = parse_number(changes.get("real_share", study.recipe["train"]["real_share"]))
            found.setdefault(proxies[0], {})[share] = study.robust(arm)
    return {name: dict(sorted(shares.items())) for name, shares in found.items() if len(shares) > 1}


@dataclass(frozen=True)
class Measured:
    """Metrics and robustness gains of G generators in S seeds.

    generators  their names
    measures    by name: (S, G), NaN where a run has no value
    gains       (S, G) robust accuracy minus that of the baseline of the same seed
    """

    generators: tuple[str, ...]
    measures: dict[str, np.ndarray]
    gains: np.ndarray

    def of(self, names: Sequence[str]) -> Measured:
        """Restrict to these generators."""
        columns = [self.generators.index(name) for name in names]
        measures = {measure: values[:, columns] for measure, values in self.measures.items()}
        return Measured(tuple(names), measures, self.gains[:, columns])

    def correlations(self) -> dict[str, RankCorrelation]:
        """Rank correlation of each metric with the robustness gain, over generators with both in all seeds.

        Metrics that are known for fewer than 3 generators, or equal for all, are left out.
        """
        found = {}
        for name, values in self.measures.items():
            known = np.isfinite(values).all(0) & np.isfinite(self.gains).all(0)
            if known.sum() >= 3 and np.ptp(values[:, known].mean(0)) > 0:
                found[name] = correlate(values[:, known], self.gains[:, known])
        return found


def measured(study: Study) -> Measured | None:
    """Metrics and gains of all generators; None when nothing was measured."""
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


def study_generators_table(found: Measured) -> Table:
    """A row per generator: mean and standard deviation over seeds of each metric, and the mean robustness gain."""
    rows = []
    for g, name in enumerate(found.generators):
        cells = []
        for values in found.measures.values():
            known = SeedStatistics(tuple(values[:, g][np.isfinite(values[:, g])].tolist()))
            deviation = "" if math.isnan(known.deviation) else f" +- {known.deviation:.2g}"
            cells.append(f"{known.mean:.3g}{deviation}" if known else "")
        gain = SeedStatistics(tuple(found.gains[:, g][np.isfinite(found.gains[:, g])].tolist()))
        rows.append((name, *cells, points(gain.mean) if gain else ""))
    return Table(("generator", *found.measures, "gain, points"), tuple(rows))


def correlations_table(found: dict[str, RankCorrelation]) -> Table:
    """Spearman's rank correlation of each metric with the robustness gain."""
    rows = tuple(
        (name, f"{one.value:+.2f}", f"{one.interval[0]:+.2f} to {one.interval[1]:+.2f}",
         ", ".join(f"{value:+.2f}" for value in one.each))
        for name, one in found.items()
    )  # fmt: skip
    return Table(("metric", "rank correlation", "95 %", "in each seed"), rows)
