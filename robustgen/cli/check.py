"""The command check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import DataPath, Device, DryRun, Sets, app, checked, one_stage

if TYPE_CHECKING:
    from robustgen.config.recipe import DataConfig
    from robustgen.contracts import Progress

from robustgen.cli.exchange import Proxy


@app.command()
def check(
    proxy: Proxy,
    data: DataPath = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="RECIPE", help="whose images and split to compare with", show_default=False),
    ] = None,
    sets: Sets = None,
    near: Annotated[
        str | None,
        typer.Option(
            "--near",
            metavar="NORM:EPS",
            help="near-copies, too: closer than l2:1, linf:8/255 ...",
            show_default=False,
        ),
    ] = None,
    within: Annotated[
        bool, typer.Option("--within", help="near-duplicates, too: every image with every other")
    ] = False,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Look for damage, duplicates, and copies of training and test images in a proxy set.

    What is found becomes the column copy; keep --without-copies leaves it out.

    \\b
      robustgen check proxies/edm --recipe digits
      robustgen check proxies/edm-1m --data cifar10=data/cifar10 --near l2:1
    """
    from robustgen.config.recipe import ThreatConfig
    from robustgen.stages import check as stage

    real = _images(recipe, sets, data)
    threshold = checked(ThreatConfig.model_validate, obj=near) if near else None
    if threshold is not None and threshold.norm == "l1":
        raise ValueError("near copies are looked for in l2 or linf, not in l1")
    if within and threshold is None:
        raise ValueError("--within needs to know what near is; say --near NORM:EPS")

    def work(progress: Progress, device: str) -> str:
        return stage.check_set(proxy, real, threshold, within, device, progress)

    one_stage("check", proxy, work, device, dry_run)


def _images(recipe: str | None, sets: list[str] | None, data: str | None) -> DataConfig | None:
    """The real images to compare with: a recipe's, a whole data set's, or none."""
    from robustgen.cli.app import settings_of
    from robustgen.config.loading import override
    from robustgen.config.recipe import DataConfig
    from robustgen.recipes import RECIPES

    if recipe is not None:
        return settings_of(recipe, sets, data, None).data
    if data is None:
        return None
    name, _, path = data.partition("=")
    whole = next(iter(RECIPES.values())).model_copy(
        update={"data": DataConfig(name=name, path=path or None, validation=1)}
    )
    return override(whole, sets or []).data
