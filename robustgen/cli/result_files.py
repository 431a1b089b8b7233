"""Files of verdicts and certificates in the commands show, report and evaluate: in the terminal, as a page, as CSV."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustgen.records.tables import Table

CSV_HELP = "also write one row per image of verdicts or certificates"


def is_result_file(what: str | Path) -> bool:
    """Whether a word on the command line names a file of results: an `.npz` that is not a folder."""
    path = Path(what)
    return path.suffix == ".npz" and not path.is_dir()


def show_result(path: Path, csv: Path | None) -> None:
    """Print the essentials of verdicts or certificates."""
    from robustgen.cli.inventory import print_table
    from robustgen.report import evaluation_tables as tables
    from robustgen.report.certificates import certificates_table
    from robustgen.report.flag_texts import explain_flag

    found = tables.read_result(path)
    if isinstance(found, tables.Certification):
        own = found.certificates
        title = f"sigma {own.sigma:g}, {own.samples:,} samples, alpha {own.alpha:g}, {len(own):,} images"
        print("\n".join(filter(None, [own.summary, tables.certification_progress(found)])))
        print_table(certificates_table({found.name: own}, "certified %"), title)
        _print_facts("What was certified", tables.certified_table(found))
    else:
        print("\n".join([*tables.accuracy_sentences(found), *filter(None, [tables.progress(found)])]))
        print_table(tables.attacks_table(found), "Attack by attack")
        count, most = tables.class_count(found), 10
        title = "By class, the weakest first" if count <= most else f"By class, the weakest {most} of {count:,}"
        print_table(tables.classes_table(found, most), title)
        _print_facts("What was evaluated", tables.evaluated_table(found))
        for flag, text in map(explain_flag, found.verdicts.flags):
            print(f"Red flag: {flag}")
            if text:
                print(textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    print(f"Repeat it: {tables.repeat_command(found)}")
    if csv is not None:
        _write_csv(found, csv)


def check_page(page: Path, files: list[Path]) -> None:
    """Raise ValueError unless `page` can be the page of exactly one file of verdicts."""
    if page.is_dir():
        raise ValueError(f"{page} is a folder; name the page, such as {page / 'audit.html'}")
    if page.suffix not in (".html", ".htm"):
        raise ValueError(f"expected the name of a page such as audit.html, got {page}")
    if len(files) > 1:
        raise ValueError(
            f"one page shows one file of verdicts, and this makes {len(files)}; leave out --report, then: "
            f"robustgen report {files[0]}"
        )


def _print_facts(title: str, table: Table) -> None:
    """A table of names and texts, aligned on the left."""
    print("\n".join([title, *(f" {name:<22} {value}" for name, value in table.rows), ""]))


def report_result(path: Path, into: Path | None, csv: Path | None = None) -> None:
    """Write the page of verdicts or certificates, and print where it is."""
    from robustgen.report.evaluation_page import write_result_page
    from robustgen.report.evaluation_tables import read_result

    page = into or path.with_suffix(".html")
    check_page(page, [path])
    found = read_result(path)
    print(write_result_page(found, page))
    if csv is not None:
        _write_csv(found, csv)


def _write_csv(found: object, csv: Path) -> None:
    from robustgen.report.evaluation_tables import Certification, Evaluation
    from robustgen.report.row_csv import write_csv

    assert isinstance(found, Certification | Evaluation)
    print(write_csv(found, csv))
