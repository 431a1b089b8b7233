"""run: all stages of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustgen.cli.app import DataPath, Device, DryRun, RecipeName, Scale, Seed, Sets, ThreatText, app
from robustgen.cli.auto import auto_recipe
from robustgen.cli.run_stages import How, run_one, run_study
from robustgen.cli.settings import whole_recipe
from robustgen.runtime.devices import device_named

if TYPE_CHECKING:
    from robustgen.config.cluster import Cluster


@app.command("run")
def run_command(
    recipe: RecipeName,
    into: Annotated[
        Path | None, typer.Option("--into", metavar="FOLDER", help="the run folder  [runs/RECIPE]", show_default=False)
    ] = None,
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    scale: Scale = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", metavar="N", min=1, help="stages at a time  [number of cores, or of GPUs]", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", metavar="N", min=1, help="GPUs of this machine to use  [all]", show_default=False),
    ] = None,
    gpus_per_stage: Annotated[
        int | None,
        typer.Option(
            "--gpus-per-stage",
            metavar="N",
            min=1,
            help="for stages that can share them  [GPUs divided by models at a time]",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    threat: ThreatText = None,
    arms: Annotated[
        str | None,
        typer.Option(
            "--arms",
            metavar="NAMES",
            help="make only what these arms need, such as real,edm; repeat without it for the rest",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="PLACE", help="slurm: a job a stage  [this machine]", show_default=False),
    ] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", metavar="NAME", help="of --on slurm", show_default=False)
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", metavar="N", min=1, help="of a large job  [1]", show_default=False)
    ] = None,
    gpus_per_node: Annotated[
        int | None,
        typer.Option("--gpus-per-node", metavar="N", min=0, help="of a large job  [0]", show_default=False),
    ] = None,
    resources: Annotated[
        list[str] | None,
        typer.Option(
            "--set-resources",
            metavar="NAME=VALUE",
            help="of jobs, such as account=abc or train.nodes=4; may be repeated",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="TIME",
            help="of a job  [12h]; of the recipe auto: 30m, 2h ...  [30m]",
            show_default=False,
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network", metavar="NAME", help="of auto: wrn-16-2, net.py:make ...  [chosen]", show_default=False
        ),
    ] = None,
) -> None:
    """Run all stages of a recipe, from images to a report.

    The recipe `auto` is chosen for your images, device and time, with a reason for each setting; it trains with and
    without generated images, and keeps the better classifier in FOLDER/best.

    With --on slurm every stage is a job; the command submits and follows them: docs/clusters.md.

    Repeat the command to resume. A recipe with several seeds is run once per seed, into FOLDER/seed-N, with one report
    about all; with --seed it is run only for that seed.

    \b
      robustgen run digits
      robustgen run digits --set train.loss.beta=5 --into runs/beta5
      robustgen run cifar10-mini --data cifar10=data/cifar10 --gpus 4 --gpus-per-stage 2
      robustgen run cifar10-5k-cpu --data cifar10=data/cifar10 --arms real,all
      robustgen run rebuffi2021/cifar10-linf-wrn-28-10-cutmix-ddpm --scale tiny
      robustgen run cifar10-mini --on slurm --partition gpu --nodes 2 --gpus-per-node 8 --time 12:00:00
      robustgen run auto --data folder=photos --threat linf:4/255 --time 2h
    """
    here = {"--jobs": jobs, "--gpus": gpus, "--gpus-per-stage": gpus_per_stage}
    asked = {"partition": partition, "nodes": nodes, "gpus_per_node": gpus_per_node}
    _refuse_options(on, here, {**asked, "set-resources": resources})
    cluster = None
    if on is not None:
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"--device {device}: expected auto, cpu or cuda with --on {on}, whose jobs divide the GPUs"
            )
        if not dry_run:
            _check_launcher(on)
        cluster = _cluster(recipe, {**asked, "time": time}, resources or [])
        time = None
    chosen = _names(arms)
    how = How(device_named(device) if on is None else device, jobs, gpus, gpus_per_stage, dry_run, on, cluster, chosen)
    if recipe == "auto":
        from robustgen.config.loading import override

        folder = into or Path("runs") / "auto"
        if on:
            raise ValueError("run auto measures this machine: leave out --on, or run FOLDER/auto.yaml with it")
        if chosen:
            raise ValueError("run auto compares its arms: leave out --arms")
        if scale:
            raise ValueError("run auto chooses its own scale: leave out --scale, or give a shorter --time")
        settings = auto_recipe(folder, data, threat, time, network, how.device, jobs, keep=not dry_run)
        changes = [*(sets or []), *([] if seed is None else [f"seed={seed}"])]
        run_one(override(settings, changes), folder, how, keep_best=True)
        return
    for given, option in ((time, "--time"), (network, "--network")):
        if given:
            raise ValueError(f"{option} is for the recipe auto; change {recipe} with --set NAME=VALUE")
    settings = whole_recipe(recipe, [*([f"threat={threat}"] if threat else []), *(sets or [])], data, seed, scale)
    folder = into or Path("runs") / settings.name.replace("/", "-")
    if settings.seeds and seed is None:
        run_study(settings, folder, how)
        return
    run_one(settings.model_copy(update={"seeds": ()}), folder, how)


def _names(text: str | None) -> tuple[str, ...]:
    """The arms named by --arms; none without it."""
    names = tuple(dict.fromkeys(filter(None, map(str.strip, (text or "").split(",")))))
    if text is not None and not names:
        raise ValueError(f"--arms {text!r}: expected names of arms, such as real,edm")
    return names


def _refuse_options(on: str | None, here: dict[str, Any], there: dict[str, Any]) -> None:
    """Raise ValueError for options of this machine with a cluster, and the other way round."""
    if on is None:
        for name, value in there.items():
            if value is not None:
                raise ValueError(f"--{name.replace('_', '-')} is for a cluster; add --on slurm, or leave it out")
        return
    from robustgen.pipeline.launchers import launcher

    launcher(on)
    for name, value in here.items():
        if value is not None:
            raise ValueError(
                f"{name} is for this machine; with --on {on} use --nodes, --gpus-per-node or --set-resources"
            )


def _check_launcher(on: str) -> None:
    from robustgen.pipeline.launchers import launcher

    launcher(on).check_here()


def _cluster(recipe: str, options: dict[str, Any], sets: list[str]) -> Cluster:
    """What jobs ask for: the block of the recipe's file, changed by the options, then by --set-resources."""
    from robustgen.config.cluster import Cluster
    from robustgen.config.loading import read_cluster

    block = read_cluster(Path(recipe)) if recipe.endswith((".yaml", ".yml", ".json")) else Cluster()
    return block.with_changes(options, sets)
