"""import, export, merge, check: proxy sets from elsewhere, to elsewhere, together, and looked over."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import DryRun, Into, app, one_stage
from robustgen.units import parse_number

if TYPE_CHECKING:
    from robustgen.contracts import Progress


Proxy = Annotated[
    Path, typer.Argument(metavar="PROXY", help="a folder made by sample, import or merge", show_default=False)
]


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="a published set: its file, all its parts, or its folder"),
    ],
    into: Into,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="npz | binary | pickle | webdataset | folder  [by the name]",
            show_default=False,
        ),
    ] = None,
    shard_images: Annotated[int, typer.Option("--shard-images", metavar="N", min=1, help="images in a file")] = 100_000,
    dry_run: DryRun = False,
) -> None:
    """Make a proxy set of a published one, whatever its size. No code in it is run, and nothing of it is unpacked.

    A damaged or hostile file leaves nothing behind. A killed import goes on when repeated.

    \\b
      robustgen import 1m.npz --into proxies/edm-1m
      robustgen import 50m_part1.npz 50m_part2.npz 50m_part3.npz 50m_part4.npz --into proxies/edm-50m
      robustgen import ti_500K_pseudo_labeled.pickle --into proxies/tinyimages
    """
    from robustgen.stages import exchange as collecting

    there = into.exists()

    def work(progress: Progress, device: str) -> str:
        return collecting.import_set(files, format, into, shard_images, progress)

    try:
        one_stage("import", into, work, "cpu", dry_run)
    except ValueError:
        if not there and {path.name for path in into.glob("*")} <= {".lock"}:
            shutil.rmtree(into, ignore_errors=True)
        raise


@app.command()
def export(
    proxy: Proxy,
    into: Annotated[
        Path, typer.Option("--into", metavar="PLACE", help="FILE.npz, or a folder for pictures", show_default=False)
    ],
    kept: Annotated[bool, typer.Option("--kept", help="only the images that keep chose")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write a proxy set for others: an `.npz` of image and label, or a folder of PNG files for each class.

    \\b
      robustgen export proxies/edm --kept --into edm.npz
      robustgen export proxies/edm --kept --into pictures/
    """
    from robustgen.stages import exchange as collecting

    def work(progress: Progress, device: str) -> str:
        return collecting.export_set(proxy, into, kept, progress)

    one_stage("export", into.parent, work, "cpu", dry_run, file_name=into.name)


@app.command()
def merge(
    proxies: Annotated[
        list[str], typer.Argument(metavar="PROXY...", help="labelled proxy sets, two or more", show_default=False)
    ],
    into: Into,
    shares: Annotated[
        str, typer.Option("--shares", metavar="N N...", help="how much of each, as 1 2 or 1:2", show_default=False)
    ],
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="of the draw")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Draw one proxy set from several in given shares, even over the classes.

    The new set holds all images, as hard links that take no room, and marks those drawn as kept. The sets it is made
    of may be removed.

    \\b
      robustgen merge proxies/edm proxies/gaussian --shares 2 1 --into proxies/both
    """
    from robustgen.stages import exchange as collecting

    words = shares.replace(":", " ").replace(",", " ").split()
    folders = list(proxies)
    while len(folders) > len(words) and _is_number(folders[-1]):  # the shell gives the option its first word alone
        words.insert(1, folders.pop())
    numbers = [parse_number(word) for word in words]
    if len(numbers) != len(folders):
        raise ValueError(f"expected a share for each of {len(folders)} proxy sets, got {len(numbers)}")

    def work(progress: Progress, device: str) -> str:
        return collecting.merge_sets([Path(folder) for folder in folders], numbers, into, seed, progress)

    one_stage("merge", into, work, "cpu", dry_run)


def _is_number(word: str) -> bool:
    try:
        parse_number(word)
    except ValueError:
        return False
    return not Path(word).is_dir()
