"""Rewrite the table of docs/reproduce.md from the recipes: python docs/make_rows.py"""

from __future__ import annotations

from pathlib import Path

from robustgen.planning.costs import cost_of
from robustgen.recipes import PAPERS, RECIPES

PAGE = Path(__file__).resolve().parent / "reproduce.md"
BEGIN, END = "<!-- rows: written by docs/make_rows.py -->", "<!-- end of rows -->"


def table() -> str:
    """Every row except the points of sweeps: results that its paper reports, and its cost."""
    lines = ["| recipe | clean % | AA+MT % | AutoAttack % | FLOPs | of it classifiers | device hours |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, recipe in RECIPES.items():
        paper, slash, rest = name.partition("/")
        reported, cost = recipe.reported, cost_of(recipe)
        if not slash or paper not in PAPERS or rest.startswith("sweep/") or reported is None or cost is None:
            continue
        robust = f"{reported.robust:.2f}"
        stronger = reported.robust if reported.by == "AutoAttack" else reported.autoattack
        lines.append(
            f"| `{name}` | {'' if reported.clean is None else f'{reported.clean:.2f}'} "
            f"| {robust if reported.by == 'AA+MT' else robust + ' certified' if reported.by == 'certified' else ''} "
            f"| {'' if stronger is None else f'{stronger:.2f}'} "
            f"| {cost.flops:.1e} | {cost.train:.1e} | {cost.hours:,.0f} |"
        )
    return "\n".join(lines)


def written(text: str) -> str:
    """The page with the current table."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
