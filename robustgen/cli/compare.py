"""compare: paired differences of runs on the same test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import DryRun, app

if TYPE_CHECKING:
    from robustgen.records.comparison import Comparison
    from robustgen.records.tables import Table
    from robustgen.records.verdicts import Verdicts


@app.command("compare")
def compare_command(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="runs, or files of verdicts; of a single run, its arms are compared with the first arm",
            show_default=False,
        ),
    ],
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FOLDER", help="also save the comparisons there", show_default=False),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Compare runs on the same test images, with paired tests.

    The first run is the baseline of the others. Images are paired by content; images that only one side has verdicts
    for are left out and counted.

    \b
      robustgen compare runs/digits
      robustgen compare runs/digits runs/beta5
      robustgen compare evaluations/a.aa+mt.npz evaluations/b.aa+mt.npz
    """
    if dry_run:
        print(f"would compare {', '.join(map(str, places))}")
        return
    from robustgen.cli.inventory import print_table

    for title, comparison in _compared(places):
        print_table(_upright(comparison.table()), f"{title}: {' and '.join(comparison.names)}, {comparison.judged}")
        print(comparison.summary)
        for flag in comparison.flags:
            print(f"Note: {flag}")
        if into is not None:
            comparison.save(into / f"{title}.{comparison.names[1].replace('/', '-')}.npz")


def _upright(table: Table) -> Table:
    """The transposed table: ten numbers of two accuracies are wider than a terminal."""
    from robustgen.records.tables import Table

    rows = zip(table.columns[1:], *(row[1:] for row in table.rows), strict=True)
    return Table((table.columns[0], *(row[0] for row in table.rows)), tuple(rows))


def _compared(places: list[Path]) -> list[tuple[str, Comparison]]:
    from robustgen.records.comparison import compare, compare_arms

    first, *others = [_verdicts(place) for place in places]
    if not others:
        base, *rest = first
        if not rest:
            raise ValueError(f"{places[0]} has a single arm; name another run to compare it with")
        return [(arm, compare(first[base], first[arm], (base, arm))) for arm in rest]
    found = []
    for place, verdicts in zip(places[1:], others, strict=True):
        names = (str(places[0]), str(place))
        found += list(compare_arms(first, verdicts, names).items())
    return found


def _verdicts(place: Path) -> dict[str, Verdicts]:
    """Verdicts by arm: of a run, the baseline first; of a file, under the name "verdicts"."""
    from robustgen.records.verdicts import Verdicts
    from robustgen.report.tables import read_results
    from robustgen.storage.run_folder import RunDir

    if place.suffix == ".npz":
        return {"verdicts": Verdicts.load(place)}
    results = read_results(RunDir(place))
    return {results.baseline: results.verdicts[results.baseline], **results.verdicts}
