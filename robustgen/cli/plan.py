"""plan: network, training length and images for a compute budget, by a published scaling law."""

from __future__ import annotations

from typing import Annotated

import typer

from robustgen.cli.app import app


@app.command("plan")
def plan_command(
    device_hours: Annotated[float, typer.Option("--device-hours", metavar="H", help="sum over all devices")],
    tflops: Annotated[
        float,
        typer.Option(
            "--tflops",
            metavar="T",
            help="sustained 10^12 operations per second of a device: about a third of its data sheet",
        ),
    ],
    fid: Annotated[float, typer.Option("--fid", metavar="F", help="of the generated images")],
    networks: Annotated[
        str | None,
        typer.Option(
            "--networks", metavar="A,B", help="wide ResNets to choose from  [all published]", show_default=False
        ),
    ] = None,
) -> None:
    """Plan network, training length and images for a compute budget.

    Follows the scaling law of Bartoldson et al. 2024 for CIFAR-10, linf 8/255, TRADES with ten steps.

    \b
      robustgen plan --device-hours 4 --tflops 400 --fid 3
    """  # fmt: skip
    from robustgen.planning import scaling_law as planner

    flops = planner.budget(device_hours, tflops)
    ranked = planner.plans(flops, fid, networks.split(",") if networks else planner.NETWORKS)
    best = ranked[0]
    low, high = best.autoattack
    five_times, once = best.generated
    print(f"budget      {flops:.3g} operations = 7822 * parameters * images")
    print(f"network     {best.architecture}, {best.parameters / 1e6:.1f} million parameters")
    print(f"            (optimal size by the law: {planner.best_parameters(flops, fid) / 1e6:.1f} million)")
    print(f"training    {best.images / 1e6:.1f} million images, {best.epochs:,.0f} CIFAR-equivalent epochs")
    print(
        f"generated   {five_times / 1e6:.1f} million images seen {planner.USES} times each, better {once / 1e6:.1f} "
        f"million seen once; {planner.REAL_SHARE:.0%} of a batch real"
    )
    print(f"robust      {best.robust:.1f} % under PGD-40 on margins, {low:.1f} to {high:.1f} % under AutoAttack")
    for warning in planner.warnings(best, fid):
        print(f"careful     {warning}")
    if len(ranked) > 1:
        print("\nnext best   " + ", ".join(f"{other.architecture} {other.robust:.1f} %" for other in ranked[1:4]))
