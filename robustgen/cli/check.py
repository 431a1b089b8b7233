"""check: damage, duplicates and copies of real images in a proxy set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import DataPath, Device, DryRun, ProxySetFolder, Sets, app, one_stage
from robustgen.cli.settings import command_settings, data_of, threat_of

if TYPE_CHECKING:
    from robustgen.config.recipe import DataConfig


@app.command("check")
def check_command(
    proxy: ProxySetFolder,
    data: DataPath = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="RECIPE", help="compare with its images and split", show_default=False),
    ] = None,
    sets: Sets = None,
    near: Annotated[
        str | None,
        typer.Option(
            "--near",
            metavar="NORM:EPS",
            help="also near-copies: closer than l2:1, linf:8/255 ...",
            show_default=False,
        ),
    ] = None,
    within: Annotated[
        bool, typer.Option("--within", help="also near-duplicates: compares every image with every other")
    ] = False,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Find damage, duplicates and copies of real images in a proxy set.

    Marks these images in the column copy; keep --without-copies excludes them.

    \b
      robustgen check proxies/edm --recipe digits
      robustgen check proxies/edm-1m --data cifar10=data/cifar10 --near l2:1
    """
    from robustgen.stages.check import Check

    real = _images(recipe, sets, data)
    threshold = threat_of(near)
    if threshold is not None and threshold.norm == "l1":
        raise ValueError("near-copies are searched in l2 or linf, not in l1; change the norm of --near")
    if within and threshold is None:
        raise ValueError("--within needs a distance; add --near NORM:EPS")
    one_stage("check", proxy, Check(proxy, real, threshold, within), device, dry_run)


def _images(recipe: str | None, sets: list[str] | None, data: str | None) -> DataConfig | None:
    """The real images to compare with: those of a recipe, of a whole dataset, or none."""
    from robustgen.recipes import RECIPES, find_recipe

    whole = data_of(data)
    if recipe is not None:
        return command_settings("check", find_recipe(recipe), sets, data).data
    if whole is None:
        if sets:
            raise ValueError(f"--set {sets[0]} changes nothing without real images; add --recipe or --data")
        return None
    base = next(iter(RECIPES.values())).model_copy(update={"data": whole.model_copy(update={"validation": 1})})
    return command_settings("check", base, sets).data
