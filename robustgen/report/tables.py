"""The results of a run as tables, rebuilt from its records. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustgen.config.loading import with_defaults
from robustgen.records.certificates import Certificates
from robustgen.records.tables import Table
from robustgen.records.verdicts import Verdicts
from robustgen.stats.intervals import PairedDifference
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir
from robustgen.units import parse_number, show_duration, show_number


@dataclass(frozen=True)
class Results:
    """What a run's report is made of.

    recipe    as in recipe.json
    verdicts  of each arm that has been evaluated, in the recipe's order
    chosen    which model of each arm was evaluated: "edm-1"
    certificates  of each arm that has been certified; none where the recipe asks for none
    """

    run: RunDir
    recipe: dict[str, Any]
    verdicts: dict[str, Verdicts]
    chosen: dict[str, str]
    certificates: dict[str, Certificates] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with; see `baseline_of`."""
        return baseline_of(self.recipe, self.verdicts)

    @property
    def threat(self) -> str:
        return f"{self.recipe['threat']['norm']} {show_number(self.recipe['threat']['eps'])}"


def read_results(run: RunDir) -> Results:
    """Raises ValueError when nothing has been evaluated yet."""
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
    """The finished certificates of a run, by arm in the recipe's order."""
    paths = {arm: run.certificates(arm) for arm in recipe["arms"] if recipe.get("certification")}
    return {arm: Certificates.load(path) for arm, path in paths.items() if path.with_suffix(".done").exists()}


def _points(value: tuple[float, float]) -> str:
    return f"{100 * value[0]:+.1f} to {100 * value[1]:+.1f}"


def _percent(value: tuple[float, float]) -> str:
    return f"{100 * value[0]:.1f} to {100 * value[1]:.1f}"


def results_table(results: Results) -> Table:
    """Clean and robust accuracy of each arm with 95 % intervals, and the gain over the baseline on the same images."""
    base = results.verdicts[results.baseline]
    rows = []
    for arm, verdicts in results.verdicts.items():
        clean, robust = verdicts.clean_accuracy, verdicts.robust_accuracy
        gain = PairedDifference.of(verdicts.robust, base.robust)
        own = arm == results.baseline
        rows.append(
            (
                name_of(results.recipe, arm),
                f"{100 * clean.value:.1f}",
                _percent(clean.interval),
                f"{100 * robust.value:.1f}",
                _percent(robust.interval),
                "" if own else f"{100 * gain.value:+.1f}",
                "" if own else _points(gain.interval),
            )
        )
    return Table(("training images", "clean %", "95 %", "robust %", "95 %", "gain", "95 %"), tuple(rows))


def baseline_of(recipe: dict[str, Any], evaluated: Iterable[str]) -> str:
    """The first arm without generated images and changed settings, else the first without images, else the first."""
    arms = list(evaluated)
    real = [arm for arm in arms if not proxies_of(recipe["arms"][arm])]
    return next((arm for arm in real if not changes_of(recipe["arms"][arm])), (real or arms)[0])


LONGEST_NAME = 56
"""Characters of an arm's name; longer ones leave figures no room."""


def name_of(recipe: dict[str, Any], arm: str) -> str:
    """real only, real + edm or edm only, and what the arm changes: real + edm, real_share=0.5.

    Where that is long the arm's own name stands for the changes: real + edm, ports (see `shortened`).
    """
    images, told = _contents(recipe, arm)
    text = ", ".join([images, *told])
    return text if len(text) <= LONGEST_NAME else f"{images}, {arm}"


def shortened(recipe: dict[str, Any], arms: Iterable[str]) -> dict[str, str]:
    """What arms change whose names do not say it: by arm."""
    texts = {arm: _contents(recipe, arm) for arm in arms}
    return {arm: ", ".join(told) for arm, (images, told) in texts.items() if name_of(recipe, arm) == f"{images}, {arm}"}


def _contents(recipe: dict[str, Any], arm: str) -> tuple[str, list[str]]:
    proxies, changes = proxies_of(recipe["arms"][arm]), changes_of(recipe["arms"][arm])
    alone = proxies and not parse_number(changes.get("real_share", 1))
    images = " + ".join(proxies if alone else ["real", *proxies])
    told = [f"{name}={value}" for name, value in changes.items() if not (alone and name == "real_share")]
    return images if proxies and not alone else f"{images} only", told


def worth_telling(recipe: dict[str, Any], robust: Mapping[str, float], most: int = 8) -> list[str]:
    """Arms for sentences: all, or where these are too many those that change no setting and the best that does."""
    changed = [arm for arm in robust if changes_of(recipe["arms"][arm])]
    if len(robust) <= most or not changed:
        return list(robust)
    best = max(changed, key=lambda arm: robust[arm])
    return [arm for arm in robust if arm not in changed or arm == best]


def changes_of(arm: dict[str, Any]) -> dict[str, str]:
    """Settings of `train` that an arm changes, as they were written."""
    parts = (change.partition("=") for change in arm.get("changes", ()))
    return {name.strip(): value.strip() for name, _, value in parts}


def loss_of(recipe: dict[str, Any], arm: str | None = None) -> str:
    """The kind of loss that an arm is trained with, or that `train` has."""
    changes = changes_of(recipe["arms"][arm]) if arm is not None else {}
    usual: str = recipe["train"]["loss"]["kind"]
    return changes.get("loss", changes.get("loss.kind", usual))


def proxies_of(arm: dict[str, Any]) -> list[str]:
    """The generators of an arm, of all its phases."""
    phases = [name for phase in arm.get("phases", ()) for name in phase["proxies"]]
    return list(dict.fromkeys([*([arm["proxy"]] if arm["proxy"] else []), *phases]))


def cascade_table(results: Results) -> Table:
    """Images standing after each attack, in per cent, and the passes spent on it an image of the test set."""
    first = next(iter(results.verdicts.values()))
    rows = []
    for arm, verdicts in results.verdicts.items():
        standing = [f"{100 * verdicts.standing_after(k).value:.1f}" for k in range(len(verdicts.attacks))]
        passes = int(verdicts.passes.sum())
        rows.append((name_of(results.recipe, arm), *standing, f"{passes:,}"))
    return Table(("training images", *first.attacks, "image passes"), tuple(rows))


def used_generators(results: Results) -> list[str]:
    """Generators that any arm is trained with, in the arms' order."""
    return list(dict.fromkeys(name for arm in results.recipe["arms"].values() for name in proxies_of(arm)))


def proxy_table(results: Results) -> Table:
    """What each proxy set holds."""
    rows = tuple((name, *proxy_facts(results.run.proxy(name))) for name in used_generators(results))
    return Table(("generator", "sampled", "kept", "labels as asked %", "how"), rows)


def proxy_facts(folder: Path) -> tuple[str, str, str, str]:
    """Sampled, kept, share of pseudo-labels that are the class asked for, and solver."""
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
    """What a paper reports beside the classifiers of this run; none where the recipe is no row of a paper."""
    reported = results.recipe.get("reported")
    if not reported:
        return None
    # The row is the recipe's own: its generated images where it has any; the baseline is ours.
    ours = [arm for arm in results.verdicts if proxies_of(results.recipe["arms"][arm])] or list(results.verdicts)
    said = {kind: reported.get(kind) for kind in ("clean", "robust")}
    rows = [("paper", *("" if value is None else f"{value:g}" for value in said.values()), "", "", reported["where"])]
    for arm in ours:
        verdicts = results.verdicts[arm]
        found = {"clean": 100 * verdicts.clean_accuracy.value, "robust": 100 * verdicts.robust_accuracy.value}
        apart = ["" if said[kind] is None else f"{found[kind] - said[kind]:+.1f}" for kind in found]
        cells = [f"{value:.1f}" for value in found.values()]
        rows.append((f"ours: {name_of(results.recipe, arm)}", *cells, *apart, f"this run, {verdicts.suite}"))
    return Table(("classifier", "clean %", "robust %", "clean apart", "robust apart", "where"), tuple(rows))


def latex(table: Table) -> str:
    """The table as LaTeX, with booktabs' rules."""
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
    """Every setting of a recipe, dotted."""

    def flat(content: Any, place: str) -> list[tuple[str, str]]:
        if isinstance(content, dict):
            return [row for key, value in content.items() for row in flat(value, f"{place}.{key}" if place else key)]
        if isinstance(content, list):
            return [(place, ", ".join(map(str, content)))]
        return [(place, "" if content is None else str(content))]

    return Table(("setting", "value"), tuple(flat(recipe, "")))


def timings_table(run: RunDir) -> Table:
    """How long each stage before the report took, over all the times it was resumed."""
    taken = read_json(run.timings) if run.timings.exists() else {}
    rows = ((stage, show_duration(seconds)) for stage, seconds in taken.items() if stage != "report")
    return Table(("stage", "time"), tuple(rows))
