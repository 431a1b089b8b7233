"""Download published datasets and weights to the places where commands look for them, or say how to get them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.storage.downloads import Download, problem_with, weights_folder
from robustgen.storage.downloads import download as bring

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Wanted:
    """A published dataset or weights to download.

    name     its full name
    folder   the folder to download to
    files    files to download
    checked  (path in the folder, digest) of files with a published digest
    by_hand  instruction for the user, if it cannot be downloaded automatically; otherwise empty
    """

    name: str
    folder: Path
    files: tuple[Download, ...]
    checked: tuple[tuple[str, str], ...]
    by_hand: str = ""


def find_downloads(name: str, into: Path | None = None) -> Wanted:
    """Find a dataset, a published proxy set, or the weights of a published classifier or generator, by name.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    from robustgen.datasets.sources import SOURCES
    from robustgen.models import hub
    from robustgen.storage.feature_weights import PUBLISHED
    from robustgen.storage.published_generators import GENERATOR_FILES

    if name in SOURCES:
        found = SOURCES[name]
        own = tuple((file.name, file.digest) for file in found.files if file.digest)
        return Wanted(name, into or Path("data") / name, found.files, own + found.checked, found.by_hand)
    if name in PUBLISHED:
        file = PUBLISHED[name]
        one = Download(file.url, file.name, f"sha256:{file.sha256}")
        return Wanted(name, into or weights_folder(), (one,), ((one.name, one.digest),))
    if name in GENERATOR_FILES:
        generator = GENERATOR_FILES[name]
        print(f"{name}: license of the weights: {generator.license}")
        return Wanted(name, into or weights_folder(), (generator.file,), ())
    try:
        full, release = hub.find_release(name.removeprefix(hub.PREFIX))
    except ValueError as error:
        if hub.find_absent(name.removeprefix(hub.PREFIX)):
            raise
        others = ", ".join([*SOURCES, *PUBLISHED])
        raise ValueError(
            f"{error}; it is not a dataset or feature network either: {others}; nor a generator of: robustgen list "
            "generators"
        ) from None
    first = release.files[0]
    by_hand = "" if first.url else f"ask its authors ({release.cited}) for {first.name}, and put it there"
    return Wanted(full, into or weights_folder(), (first,), (), by_hand)


def planned_downloads(wanted: Wanted) -> list[str]:
    """The downloads that `fetch` would make, one line per file."""
    if wanted.by_hand:
        return [f"{wanted.name} cannot be fetched: {wanted.by_hand}: {wanted.folder}"]
    lines = []
    for file in wanted.files:
        there = " (there already)" if (wanted.folder / file.leaves).exists() else ""
        lines.append(f"{file.url} -> {wanted.folder / file.leaves}{there}")
    return lines


def fetch_files(wanted: Wanted, progress: Progress) -> str:
    """Download the missing files.

    Raises:
        ValueError: a file is unreachable, cut off, not the published one, or must be downloaded by hand.
    """
    if wanted.by_hand:
        raise ValueError(f"{wanted.name} cannot be fetched: {wanted.by_hand}: {wanted.folder}")

    def tell(done: int, total: int, name: str) -> None:
        progress(done >> 10, max(total, done) >> 10, "kB", name)

    brought = [file.leaves for file in wanted.files if bring(file, wanted.folder, tell)]
    unchecked = [file.name for file in wanted.files if not file.digest]
    said = f"{', '.join(brought)} in {wanted.folder}" if brought else f"{wanted.folder} is already complete"
    return said + (f" (no digest of {', '.join(unchecked)} is published)" if unchecked else "")


def verify_files(wanted: Wanted) -> list[str]:
    """Compare existing files with the published digests: one line per file.

    Raises:
        ValueError: a file differs (says which), or there are no files to compare.
    """
    lines, wrong = [], []
    for name, digest in wanted.checked:
        if not (wanted.folder / name).is_file():
            continue
        problem = problem_with(wanted.folder / name, digest)
        lines.append(f"{wanted.folder / name}: {problem or 'as published'}")
        wrong += [f"{wanted.folder / name} {problem}"] if problem else []
    if wrong:
        raise ValueError(f"files differ from the published ones: {'; '.join(wrong)}; remove them and fetch again")
    if not lines:
        known = ", ".join(name for name, _ in wanted.checked)
        raise ValueError(
            f"no files of {wanted.name} to compare in {wanted.folder}; "
            + (f"digests are published for {known}" if known else "no digests are published for it")
        )
    return lines
