"""train: a classifier, robust or standard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import DataPath, Device, DryRun, FromRecipe, Into, Seed, Sets, ThreatText, app, one_stage
from robustgen.cli.settings import checked, command_settings

if TYPE_CHECKING:
    from robustgen.config.recipe import Arm


@app.command("train")
def train_command(
    into: Into,
    proxies: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy",
            metavar="PROXY[=WEIGHT][@FROM-TO]",
            help="generated images to mix in, for a part of the run (0-0.6); may be repeated  [none]",
            show_default=False,
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="a standard classifier: the recipe's labeler")] = False,
    threat: ThreatText = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="N|auto",
            help="images per step  [the recipe's]; auto: the recipe's, in as many passes as fit on the GPU",
            show_default=False,
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option("--track", metavar="NAME", help="tensorboard | wandb, next to progress.jsonl", show_default=False),
    ] = None,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Train a classifier, robust or standard.

    \b
      robustgen train --plain --into models/labeller
      robustgen train --into models/real
      robustgen train --proxy proxies/edm --into models/edm --set train.loss.beta=5
      robustgen train --proxy proxies/edm@0-0.6 --proxy proxies/gan=2@0.6-1 --proxy proxies/edm@0.6-1 --into models/two
      torchrun --nproc_per_node=8 -m robustgen train --proxy proxies/edm --into models/edm --batch auto
    """
    from robustgen.recipes import find_recipe
    from robustgen.runtime.trackers import check_trackers
    from robustgen.stages.train import Train

    check_trackers(track or [])
    part, command = ("labeller", "train --plain") if plain else ("train", "train")
    given = [re.sub(r"^\s*train\.", f"{part}.", text) for text in sets or []]
    if plain and threat:
        raise ValueError("a standard classifier (--plain) has no threat model; leave out --threat")
    given += [f"threat={threat}"] if threat else []
    if batch is not None and batch != "auto":
        given.append(f"{part}.schedule.batch_size={batch}")
    settings = command_settings(command, find_recipe(recipe), given, data, seed)
    chosen = settings.labeller if plain else settings.train
    sources = sources_of(proxies or [])
    if not sources.proxies and any(one.startswith(f"{part}.real_share=") for one in given) and chosen.real_share < 1:
        raise ValueError(f"train.real_share {chosen.real_share:g} needs generated images: pass --proxy FOLDER")
    asked = {
        "train": chosen, "data": settings.data, "threat": str(settings.threat), "proxies": sources,
        "seed": settings.seed,
    }  # fmt: skip
    stage = Train(
        chosen, settings.data, settings.threat, sources, into, settings.seed, tuple(track or ()), batch == "auto"
    )
    one_stage(
        "train", into, stage, device, dry_run, asked=asked, threads=settings.threads, finished=into / "model.json"
    )  # fmt: skip


def sources_of(texts: Sequence[str]) -> Arm:
    """Phases with proxy sets, from texts PROXY[=WEIGHT][@FROM-TO]; every FROM and TO ends a phase."""
    from robustgen.config.recipe import Arm, Phase
    from robustgen.units import parse_number

    found: list[tuple[str, float, float, float]] = []
    for text in texts:
        matched = re.fullmatch(r"(.+?)(?:=([0-9.]+))?(?:@([0-9.]+)-([0-9.]+))?", text)
        if matched is None:
            raise ValueError("expected PROXY[=WEIGHT][@FROM-TO] such as proxies/edm=2@0-0.6, got nothing")
        folder, weight, start, end = matched.groups()
        found.append((folder, parse_number(weight or "1"), parse_number(start or "0"), parse_number(end or "1")))
    if len(found) == 1 and found[0][1:] == (1, 0, 1):
        return Arm(proxy=found[0][0])
    if not found:
        return Arm()
    phases, begins = [], 0.0
    for ends in sorted({1.0, *(at for _, _, start, end in found for at in (start, end))} - {0.0}):
        here = {folder: weight for folder, weight, start, end in found if start <= begins and ends <= end}
        if not here:
            raise ValueError(f"no --proxy covers the run from {begins:g} to {ends:g}")
        phases.append(checked(Phase, until=ends, proxies=here))
        begins = ends
    arm: Arm = checked(Arm, phases=phases)
    return arm
