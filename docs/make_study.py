"""Write docs/study/NAME from the folder of a study: page, figures, the smallest records that rebuild the page, and the
study's tables in the documents that have a place for them.

    python docs/make_study.py runs/digits-study docs/study/digits-study

Arrays of records that do not change the page are replaced by zeros. So records of hundreds of evaluations take little
space, and `robustgen report NAME/records --into page.html` writes the same page. After a change of the report, rewrite
page, figures and tables from the stored records:

    python docs/make_study.py docs/study/digits-study
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robustgen.records.tables import Table
from robustgen.report import gap, study_certificates
from robustgen.report.study_page import figures_of, write_reports
from robustgen.report.study_summary import (
    Study,
    arms_table,
    correlations_table,
    curves,
    measured,
    overfitting_table,
    read_study,
    study_generators_table,
)
from robustgen.report.tables import read_results
from robustgen.storage.files import read_json, write_json
from robustgen.storage.run_folder import RunDir

FILES = (
    "recipe.json",
    "data.json",
    "evaluation/*.npz",
    "evaluation/*.done",
    "classifiers/*/validation.npz",
    "quality/*.npz",
    "analysis/*.npz",
    "analysis/*.done",
    "certification/*.npz",
    "certification/*.done",
)
"""Files of each seed that the page of a study reads."""

DOCS = Path(__file__).resolve().parent
PAGES = (DOCS / "study" / "README.md", DOCS / "reproduce.md")
PLACE = re.compile(
    r"<!-- table: (?P<name>[\w-]+) (?P<table>\w+)(?P<arms>( [\w.-]+)*) -->\n.*?<!-- end of table -->", re.DOTALL
)
"""The place of a table: <!-- table: STUDY TABLE [ARM ...] -->, then the table, <!-- end of table -->."""


def table_of(study: Study, name: str, arms: list[str]) -> Table:
    """A table of the page, restricted to the given arms or, for metrics and correlations, to the given generators."""
    names = [study.name(arm) for arm in arms]
    if name in ("generators", "correlations"):
        found = measured(study)
        assert found is not None
        if arms:
            found = found.of(arms)
        table = study_generators_table(found) if name == "generators" else correlations_table(found.correlations())
        names = []
    elif name in ("gap", "costs"):
        found = gap.gap_section(study)
        assert found is not None
        table = found["table" if name == "gap" else "costs"]
    elif name == "certificates":
        section = study_certificates.certificates_section(study)
        assert section is not None
        table = section["table"]
    else:
        table = {"arms": lambda: arms_table(study), "overfitting": lambda: overfitting_table(curves(study))}[name]()
    return Table(table.columns, tuple(row for row in table.rows if not names or row[0] in names))


def with_tables(text: str, name: str, study: Study) -> str:
    """A document with the tables of this study rewritten."""

    def written(place: re.Match[str]) -> str:
        if place["name"] != name:
            return place[0]
        head, _, _ = place[0].partition("\n")
        return f"{head}\n\n{table_of(study, place['table'], place['arms'].split()).markdown()}\n\n<!-- end of table -->"

    return PLACE.sub(written, text)


def study_of(records: Path) -> Study:
    study = read_study([read_results(RunDir(seed)) for seed in sorted(records.glob("seed-*"))])
    assert study is not None
    return study


def main(folder: Path, into: Path) -> None:
    records = into / "records"
    if records.exists():
        shutil.rmtree(records)
    for old in into.glob("*.svg"):
        old.unlink()
    for file in read(folder):
        target = records / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    for file in records.rglob("recipe.json"):
        write_json(file, without_places(read_json(file)))
    name = read_json(records / "recipe.json")["name"]
    page = rendered(records, name, into)
    slimmed = slim(records, name, into, page)
    rewrite(into)
    size = sum(file.stat().st_size for file in records.rglob("*") if file.is_file())
    print(f"{into}: page {len(page) / 1e6:.1f} MB, records {size / 1e6:.1f} MB, {slimmed} kinds of arrays left out")


def rewrite(into: Path) -> None:
    """Write page, figures and tables of a study from its stored records."""
    records = into / "records"
    name = read_json(records / "recipe.json")["name"]
    rendered(records, name, into)
    study = study_of(records)
    for document in PAGES:
        text = document.read_text(encoding="utf-8")
        document.write_text(with_tables(text, name, study), encoding="utf-8")
    for title, picture in figures_of(study).items():
        (into / f"{title}.svg").write_text(picture, encoding="utf-8")


def read(folder: Path) -> Iterator[Path]:
    """The files that the page is made from."""
    yield folder / "recipe.json"
    for seed in sorted(folder.glob("seed-*")):
        for pattern in FILES:
            found = sorted(seed.glob(pattern))
            yield from (file for file in found if not file.name.endswith(".neighbours.npz"))


def without_places(recipe: dict) -> dict:
    """The recipe without the path of the images on the machine that ran it."""
    return {**recipe, "data": {**recipe["data"], "path": None}}


def rendered(records: Path, name: str, into: Path) -> str:
    """Write the page of these records, as a run does but without links to pages of single seeds, and return it."""
    page = into / "report.html"
    write_reports(sorted(records.glob("seed-*")), page, f"robustgen run {name}")
    return page.read_text(encoding="utf-8")


def slim(records: Path, name: str, into: Path, page: str) -> int:
    """Replace arrays that do not change the page by zeros, one kind of record at a time; returns how many kinds."""
    kinds: dict[tuple[str, str], list[Path]] = {}
    held = {file: dict(np.load(file, allow_pickle=False)) for file in sorted(records.rglob("*.npz"))}
    for file, arrays in held.items():
        # evaluation, quality ...; for analyses with their name, as in GENERATOR.arc.npz
        kind = (
            f"{file.relative_to(records).parts[1]}.{file.stem.rpartition('.')[2] if 'analysis' in file.parts else ''}"
        )
        for array, values in arrays.items():
            if values.dtype.kind in "biuf" and values.nbytes > 1000:
                kinds.setdefault((kind, array), []).append(file)
    left_out = 0
    for (_, array), files in kinds.items():
        kept = {file: held[file][array] for file in files}
        for file in files:
            held[file][array] = np.zeros_like(kept[file])
            np.savez_compressed(file, **held[file])
        try:
            same = rendered(records, name, into) == page
        except (ValueError, IndexError, ZeroDivisionError):
            same = False
        left_out += same
        if not same:
            for file, values in kept.items():
                held[file][array] = values
                np.savez_compressed(file, **held[file])
    for file, arrays in held.items():
        np.savez_compressed(file, **arrays)
    if rendered(records, name, into) != page:
        raise RuntimeError("the reduced records do not rebuild the page")
    return left_out


if __name__ == "__main__":
    if len(sys.argv) == 2:
        rewrite(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
