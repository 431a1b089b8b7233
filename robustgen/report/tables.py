"""Results of a run as tables, rebuilt from its records. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustgen.config.loading import with_defaults
from robustgen.records.certificates import Certificates
from robustgen.records.tables import Table
from robustgen.records.verdicts import Verdicts
from robustgen.stats.formatting import percent, percent_range, points, points_range
from robustgen.stats.intervals import PairedDifference
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir
from robustgen.units import parse_number, show_duration, show_number


@dataclass(frozen=True)
class Results:
    """The records that a run's report is made from.

    recipe        content of recipe.json
    verdicts      by arm, of the evaluated arms in the recipe's order
    chosen        the model of each arm that was selected and evaluated: "edm-1"
    certificates  by arm, of the certified arms
    """

    run: RunDir
    recipe: dict[str, Any]
    verdicts: dict[str, Verdicts]
    chosen: dict[str, str]
    certificates: dict[str, Certificates] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with, see `baseline_of`."""
        return baseline_of(self.recipe, self.verdicts)

    @property
    def threat(self) -> str:
        return f"{self.recipe['threat']['norm']} {show_number(self.recipe['threat']['eps'])}"


def read_results(run: RunDir) -> Results:
    """Read the verdicts and certificates of a run.

    Raises:
        ValueError: not a run folder, a study of several seeds, or nothing has been evaluated yet.
    """
    if not run.recipe.exists():
        raise ValueError(f"{run.root} is not a run folder (no recipe.json)")
    recipe = with_defaults(read_json(run.recipe))
    if recipe.get("seeds"):
        raise ValueError(f"{run.root} is a study of several seeds; name one of its runs, such as {run.root}/seed-0")
    suite = recipe["evaluation"]["suite"]
    verdicts, chosen = {}, {}
    for arm in recipe["arms"]:
        path = run.verdicts(arm, suite)
        if path.with_suffix(".done").exists():
            verdicts[arm] = Verdicts.load(path)
            chosen[arm] = read_json(path.with_suffix(".done"))["classifier"]
    if not verdicts:
        raise ValueError(f"no classifier of {run.root} has been evaluated yet; run: robustgen run {recipe['name']}")
    return Results(run, recipe, verdicts, chosen, read_certificates(run, recipe))


def read_certificates(run: RunDir, recipe: dict[str, Any]) -> dict[str, Certificates]:
    """Finished certificates of a run, by arm in the recipe's order."""
    paths = {arm: run.certificates(arm) for arm in recipe["arms"] if recipe.get("certification")}
    return {arm: Certificates.load(path) for arm, path in paths.items() if path.with_suffix(".done").exists()}


def results_table(results: Results, arms: Iterable[str] | None = None) -> Table:
    """Clean and robust accuracy of arms with 95 % intervals, and their gains over the baseline on the same images."""
    base = results.verdicts[results.baseline]
    rows = []
    for arm in results.verdicts if arms is None else arms:
        verdicts = results.verdicts[arm]
        clean, robust = verdicts.clean_accuracy, verdicts.robust_accuracy
        gain = PairedDifference.of(verdicts.robust, base.robust)
        own = arm == results.baseline
        rows.append(
            (
                name_of(results.recipe, arm),
                percent(clean.value),
                percent_range(clean.interval),
                percent(robust.value),
                percent_range(robust.interval),
                "" if own else points(gain.value),
                "" if own else points_range(gain.interval),
            )
        )
    return Table(("training images", "clean %", "95 %", "robust %", "95 %", "gain", "95 %"), tuple(rows))


def baseline_of(recipe: dict[str, Any], evaluated: Iterable[str]) -> str:
    """The first arm with real images only and no changed setting, else the first with real images only, else the first.

    Arms with another number of real images come last. Gains are differences to the baseline.
    """
    arms = list(evaluated)
    real = [arm for arm in arms if not proxies_of(recipe["arms"][arm])]
    usual = [arm for arm in real if not recipe["arms"][arm].get("train_images")] or real
    return next((arm for arm in usual if not changes_of(recipe["arms"][arm])), (usual or arms)[0])


LONGEST_NAME = 56
"""Most characters of an arm's name, so that figures have room for their curves."""


def name_of(recipe: dict[str, Any], arm: str) -> str:
    """Display name of an arm: its training images and changed settings, for example "real + edm, real_share=0.5".

    A name longer than `LONGEST_NAME` has the arm's key in place of the settings: "real + edm, ports" (see `shortened`).
    """
    images, changes = _contents(recipe, arm)
    text = ", ".join([images, *changes])
    return text if len(text) <= LONGEST_NAME else f"{images}, {arm}"


def shortened(recipe: dict[str, Any], arms: Iterable[str]) -> dict[str, str]:
    """Changed settings of the arms whose display names do not list them, by arm."""
    texts = {arm: _contents(recipe, arm) for arm in arms}
    return {
        arm: ", ".join(changes)
        for arm, (images, changes) in texts.items()
        if name_of(recipe, arm) == f"{images}, {arm}"
    }


def _contents(recipe: dict[str, Any], arm: str) -> tuple[str, list[str]]:
    proxies, changes = proxies_of(recipe["arms"][arm]), changes_of(recipe["arms"][arm])
    alone = proxies and not parse_number(changes.get("real_share", 1))
    images = " + ".join(proxies if alone else [_real_images(recipe["arms"][arm]), *proxies])
    shown = [f"{name}={value}" for name, value in changes.items() if not (alone and name == "real_share")]
    if proxies and not alone:
        return images, shown
    return f"{images} only" if alone or images == "real" else f"{images} images", shown


def _real_images(arm: dict[str, Any]) -> str:
    """ "real", or "all real" and "20,000 real" for an arm with another number of real images."""
    count = arm.get("train_images")
    return "real" if count is None else f"{count:,} real" if isinstance(count, int) else f"{count} real"


def mentioned_arms(recipe: dict[str, Any], robust: Mapping[str, float], most: int = 8) -> list[str]:
    """Arms that get a sentence: all, or of more than `most` those without changed settings and the best other one."""
    changed = [arm for arm in robust if changes_of(recipe["arms"][arm])]
    if len(robust) <= most or not changed:
        return list(robust)
    best = max(changed, key=lambda arm: robust[arm])
    return [arm for arm in robust if arm not in changed or arm == best]


def changes_of(arm: dict[str, Any]) -> dict[str, str]:
    """Settings of `train` that an arm changes, as they were written."""
    pairs = (change.partition("=") for change in arm.get("changes", ()))
    return {name.strip(): value.strip() for name, _, value in pairs}


def loss_of(recipe: dict[str, Any], arm: str | None = None) -> str:
    """The kind of loss that an arm is trained with, or that `train` has."""
    changes = changes_of(recipe["arms"][arm]) if arm is not None else {}
    usual: str = recipe["train"]["loss"]["kind"]
    return changes.get("loss", changes.get("loss.kind", usual))


def proxies_of(arm: dict[str, Any]) -> list[str]:
    """The generators of an arm, over all its phases."""
    phases = [name for phase in arm.get("phases", ()) for name in phase["proxies"]]
    return list(dict.fromkeys([*([arm["proxy"]] if arm["proxy"] else []), *phases]))


def cascade_table(results: Results) -> Table:
    """Robust accuracy in percent after each attack of the cascade, and the number of image passes of all attacks."""
    first = next(iter(results.verdicts.values()))
    rows = []
    for arm, verdicts in results.verdicts.items():
        robust = [percent(verdicts.robust_after(k).value) for k in range(len(verdicts.attacks))]
        passes = int(verdicts.passes.sum())
        rows.append((name_of(results.recipe, arm), *robust, f"{passes:,}"))
    return Table(("training images", *first.attacks, "image passes"), tuple(rows))


def used_generators(results: Results) -> list[str]:
    """Generators that at least one arm is trained with, in the order of the arms."""
    return list(dict.fromkeys(name for arm in results.recipe["arms"].values() for name in proxies_of(arm)))


def proxy_table(results: Results) -> Table:
    """A row per proxy set: images sampled and kept, label agreement, sampler."""
    rows = tuple((name, *proxy_facts(results.run.proxy(name))) for name in used_generators(results))
    return Table(("generator", "sampled", "kept", "label agreement %", "sampler"), rows)


def proxy_facts(folder: Path) -> tuple[str, str, str, str]:
    """Images sampled, images kept, percentage of pseudo-labels that equal the condition label, and the sampler."""
    import numpy as np

    manifest = read_json(folder / "manifest.json")
    labels, condition = np.load(folder / "label.npy"), np.load(folder / "condition.npy")
    kept = np.load(folder / "kept.npy")
    generator = manifest["generator"]
    how = ", ".join(
        [
            *([generator["solver"]] if "solver" in generator else []),
            *([f"{generator['evaluations']} evaluations"] if "evaluations" in generator else []),
            *([f"guidance {generator['guidance']:g}"] if "guidance" in generator else []),
        ]
    )
    kind = generator.get("kind")
    how = how or (kind if kind in ("imported", "augmented") else "one pass")
    agreed = "" if generator.get("conditional") is False else f"{100 * (labels == condition).mean():.1f}"
    return f"{len(kept):,}", f"{int(kept.sum()):,}", agreed, how


def reported_table(results: Results) -> Table | None:
    """The paper's accuracies next to those of this run; None when the recipe does not reproduce a row of a paper."""
    reported = results.recipe.get("reported")
    if not reported:
        return None
    # Compare arms with generated images if there are any: the baseline without them is not part of the paper's row.
    ours = [arm for arm in results.verdicts if proxies_of(results.recipe["arms"][arm])] or list(results.verdicts)
    said = {kind: reported.get(kind) for kind in ("clean", "robust")}
    rows = [("paper", *("" if value is None else f"{value:g}" for value in said.values()), "", "", reported["where"])]
    for arm in ours:
        verdicts = results.verdicts[arm]
        found = {"clean": 100 * verdicts.clean_accuracy.value, "robust": 100 * verdicts.robust_accuracy.value}
        change = ["" if said[kind] is None else f"{found[kind] - said[kind]:+.1f}" for kind in found]
        cells = [f"{value:.1f}" for value in found.values()]
        rows.append((f"ours: {name_of(results.recipe, arm)}", *cells, *change, f"this run, {verdicts.suite}"))
    return Table(("classifier", "clean %", "robust %", "clean difference", "robust difference", "source"), tuple(rows))


def latex(table: Table) -> str:
    """The table as LaTeX, for the package booktabs."""
    lines = [" & ".join(_tex(cell) for cell in cells) + r" \\" for cells in (table.columns, *table.rows)]
    columns = "l" + "r" * (len(table.columns) - 1)
    head, *body = lines
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule",
                      r"\end{tabular}"])  # fmt: skip


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
        ">": r"\textgreater{}", **{sign: "\\" + sign for sign in "&%$#_{}"}}  # fmt: skip


def _tex(cell: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in cell)


def settings_table(recipe: dict[str, Any]) -> Table:
    """All settings of a recipe by their dotted names."""

    def flat(content: Any, place: str) -> list[tuple[str, str]]:
        if isinstance(content, dict):
            return [row for key, value in content.items() for row in flat(value, f"{place}.{key}" if place else key)]
        if isinstance(content, list):
            return [(place, ", ".join(map(str, content)))]
        return [(place, "" if content is None else str(content))]

    return Table(("setting", "value"), tuple(flat(recipe, "")))


def timings_table(run: RunDir) -> Table:
    """Run time of each stage before the report, summed over all resumptions."""
    taken = read_json(run.timings) if run.timings.exists() else {}
    rows = ((stage, show_duration(seconds)) for stage, seconds in taken.items() if stage != "report")
    return Table(("stage", "time"), tuple(rows))
