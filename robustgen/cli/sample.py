"""sample: a proxy set from a generative model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.cli.app import Device, DryRun, Into, PrecisionOption, app, one_stage
from robustgen.cli.settings import checked


@app.command("sample")
def sample_command(
    generator: Annotated[Path, typer.Argument(metavar="GENERATOR", help="a folder made by fit", show_default=False)],
    into: Into,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, help="number of images, classes in turn")
    ] = 10_000,
    solver: Annotated[
        str | None,
        typer.Option("--solver", metavar="NAME", help="of a diffusion model; see: list solvers", show_default=False),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option("--evaluations", metavar="N", min=1, help="network evaluations per image", show_default=False),
    ] = None,
    guidance: Annotated[
        float, typer.Option("--guidance", metavar="W", help="of a diffusion model; 1 is none, 1.5 to 3 is usual")
    ] = 1.0,
    guide: Annotated[
        Path | None,
        typer.Option(
            "--guide",
            metavar="FOLDER",
            help="a weaker generator for autoguidance  [the network itself without the class]",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", help="of a vdvae's latents; below 1 less varied")
    ] = 1.0,
    precision: PrecisionOption = "float32",
    shard_images: Annotated[int, typer.Option("--shard-images", metavar="N", min=1, help="images per file")] = 100_000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="image i depends only on the seed and i")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Sample a generative model into a proxy set.

    \b
      robustgen sample models/edm --count 10000 --solver ipndm --evaluations 10 --into proxies/edm
      torchrun --nproc_per_node=2 -m robustgen sample models/edm --count 1000000 --into proxies/edm
    """
    from robustgen.config.sampler import SamplerConfig
    from robustgen.stages.sample import Sample

    sampler = checked(
        SamplerConfig, solver=solver, evaluations=evaluations, guidance=guidance,
        guide=str(guide) if guide else None, temperature=temperature, precision=precision,
    )  # fmt: skip
    stage = Sample(generator, sampler, into, seed, count, shard_images, guide)
    one_stage("sample", into, stage, device, dry_run)
