"""Output of the commands list and show: known names, contents of folders, tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustgen.config.recipe import Recipe
    from robustgen.records.tables import Table


FAMILIES = (
    "datasets", "architectures", "generators", "solvers", "attacks", "suites", "losses", "augmentations", "analyses",
    "downloads", "hub",
)  # fmt: skip


def known(what: str) -> list[tuple[str, str]]:
    """(name, short description) of each member."""
    if what == "recipes":
        return _recipes()
    if what == "runs":
        found = sorted(path.parent for path in Path("runs").glob("*/recipe.json"))
        return [(str(path), "finished" if (path / "report.html").exists() else "unfinished") for path in found]
    lists: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "datasets": _datasets, "architectures": _architectures, "generators": _generators, "solvers": _solvers,
        "attacks": _attacks, "suites": _suites, "losses": _losses, "augmentations": _augmentations,
        "analyses": _analyses, "downloads": _downloads, "hub": _hub,
    }  # fmt: skip
    if what not in lists:
        raise ValueError(f"cannot list {what!r}; known: recipes, runs, {', '.join(lists)}")
    return lists[what]()


def _recipes() -> list[tuple[str, str]]:
    """Our own recipes, then the rows of each paper with reported results and cost; points of a sweep in one line."""
    from robustgen.planning.costs import cost_of
    from robustgen.recipes import PAPERS, RECIPES

    found = [(name, recipe.summary) for name, recipe in RECIPES.items() if "/" not in name]
    for paper, cited in PAPERS.items():
        found += [("", ""), (f"{cited}: clean / robust % reported there; cost of a run", "")]
        sweeps: dict[str, list[str]] = {}
        for name, recipe in RECIPES.items():
            if not name.startswith(f"{paper}/"):
                continue
            family, _, point = name.rpartition("-")
            if "/sweep/" in name:
                sweeps.setdefault(family, []).append(point)
            else:
                found.append((name, f"{recipe.reported or ''!s:<27}{cost_of(recipe) or ''}"))
        found += [(f"{family}-...", ", ".join(points)) for family, points in sweeps.items()]
    return found


def head_of(recipe: Recipe) -> list[str]:
    """Summary, reported results and cost of a recipe, one line each."""
    from robustgen.planning.costs import RATE, cost_of

    lines = [recipe.summary]
    if recipe.reported is not None:
        lines.append(f"reported  {recipe.reported}, in %; {recipe.reported.where}")
        if recipe.reported.autoattack is not None:
            lines.append(f"          under AutoAttack {recipe.reported.autoattack:.2f} %")
        if recipe.reported.unsure:
            lines.append(f"unsure    {recipe.reported.unsure}")
    cost = cost_of(recipe)
    if cost is not None:
        lines.append(
            f"cost      {cost} at {RATE / 1e12:.0f} TFLOP/s: generators {cost.fit:.1e}, sampling {cost.sample:.1e}, "
            f"classifiers {cost.train:.1e}"
        )
    return lines


def describe(folder: Path) -> str:
    """Description of the contents of a folder, from the files in it."""
    import json

    from robustgen.storage.files import read_json
    from robustgen.storage.run_folder import RunDir

    for name in ("manifest.json", "generator.json", "model.json"):
        if (folder / name).exists():
            content = read_json(folder / name)
            if name == "manifest.json":
                content = {**content, "shards": f"{len(content['shards'])} files"}
            return json.dumps(content, indent=2)
    if (folder / "recipe.json").exists():
        from robustgen.pipeline.study import folders_of, is_study
        from robustgen.report.study_summary import arms_table, read_study
        from robustgen.report.tables import read_results, results_table

        if is_study(folder):
            study = read_study([read_results(RunDir(seed)) for seed in folders_of([folder])])
            assert study is not None
            return arms_table(study).markdown()
        return results_table(read_results(RunDir(folder))).markdown()
    raise ValueError(f"{folder} is neither a run, a proxy set, a generator nor a classifier")


def print_table(table: Table, title: str) -> None:
    """Print a table. On a terminal long names are wrapped, numbers never; otherwise nothing is wrapped."""
    from rich.console import Console
    from rich.table import Table as RichTable

    shown = RichTable(title=title, title_justify="left", box=None, header_style="dim")
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    for i, column in enumerate(table.columns):
        if i:
            shown.add_column(column, justify="right", no_wrap=True, min_width=widths[i])
        else:
            shown.add_column(column, overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    needed = sum(widths) + 2 * len(widths)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else max(110, needed, len(title)))
    console.print()
    console.print(shown)
    console.print()


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0] if thing.__doc__ else ""


def _datasets() -> list[tuple[str, str]]:
    from robustgen.datasets import DATASETS

    return [(name, _first_line(sys.modules[load.__module__])) for name, load in DATASETS.items()]


def _architectures() -> list[tuple[str, str]]:
    from robustgen.models import EXAMPLES

    return list(EXAMPLES.items())


def _generators() -> list[tuple[str, str]]:
    from robustgen.config.generators import GENERATOR_CONFIGS
    from robustgen.storage.published_generators import GENERATOR_FILES

    kinds = [(kind, _first_line(fit)) for kind, fit in GENERATOR_CONFIGS.items()]
    published = [(name, one.about) for name, one in GENERATOR_FILES.items()]
    return [*kinds, ("", ""), ("published, for: robustgen fetch NAME, robustgen import-generator NAME", ""), *published]


def _solvers() -> list[tuple[str, str]]:
    from robustgen.generators.ddpm_steps import REVERSE_PROCESSES
    from robustgen.generators.solvers import SOLVERS

    chains = [(name, f"of ddpm: {chain.about}") for name, chain in REVERSE_PROCESSES.items()]
    return [*((name, _first_line(solver)) for name, solver in SOLVERS.items()), *chains]


def _attacks() -> list[tuple[str, str]]:
    from robustgen.attacks import ATTACKS

    return [(name, _first_line(type(attack))) for name, attack in ATTACKS.items()]


def _suites() -> list[tuple[str, str]]:
    from robustgen.evaluation.suites import SUITES

    return [(name, " -> ".join(suite("linf", 10))) for name, suite in SUITES.items()]


def _losses() -> list[tuple[str, str]]:
    from robustgen.losses import AROUND, LOSSES

    around = [(f"+ {setting}", _first_line(loss)) for setting, loss in AROUND.items()]
    return [(name, _first_line(loss)) for name, loss in LOSSES.items()] + around


def _augmentations() -> list[tuple[str, str]]:
    from robustgen.augment import EXAMPLES

    return list(EXAMPLES.items())


def _analyses() -> list[tuple[str, str]]:
    from robustgen.analysis import ANALYSES, PROXY_ANALYSES

    return [(name, _first_line(type(analysis))) for name, analysis in [*ANALYSES.items(), *PROXY_ANALYSES.items()]]


def _downloads() -> list[tuple[str, str]]:
    from robustgen.datasets.sources import SOURCES

    return [(name, source.about) for name, source in SOURCES.items()]


def _hub() -> list[tuple[str, str]]:
    from robustgen.models.catalog import ABSENT, RELEASES
    from robustgen.models.hub import weights_candidates

    rows = []
    for full, release in RELEASES.items():
        here = ", weights here" if any(place.is_file() for place in weights_candidates(full, release)) else ""
        reported = f"reported clean {release.clean:.2f} %, robust {release.robust:.2f} %"
        rows.append((f"{full:<56}", f"{release.architecture:<30}{release.threat:<13}{reported}{here}"))
    rows.append(("RobustBench's models that cannot be loaded here:", ""))
    return rows + list(ABSENT.items())
