"""fit, sample, label, keep, train: a verb for each arrow of the flow up to a classifier."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.cli.app import (
    DataPath,
    Device,
    DryRun,
    FromRecipe,
    Into,
    Seed,
    Sets,
    ThreatText,
    app,
    checked,
    one_stage,
    settings_of,
)

if TYPE_CHECKING:
    from robustgen.contracts import Progress
    from robustgen.recipe import Arm, Recipe


@app.command(rich_help_panel=None)
def fit(
    generator: Annotated[
        str,
        typer.Argument(
            metavar="GENERATOR",
            help="one of the recipe's, or with --preset a kind: edm ...",
            show_default=False,
        ),
    ],
    into: Into,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", metavar="NAME", help="smoke | cpu-tiny | gpu-20min | gpu-60min | paper", show_default=False
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="FOLDER", help="the trained EDM that ect starts from", show_default=False),
    ] = None,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Fit a generative model to training images.

    \b
      robustgen fit edm --into models/edm
      robustgen fit edm --into models/edm --set generators.edm.channels=32
      robustgen fit ddpm --preset smoke --into models/ddpm
      robustgen fit edm --preset gpu-60min --data cifar10=FOLDER --into models/edm
    """
    from robustgen.fits import ConsistencyFit

    if preset is None:
        settings = settings_of(recipe, sets, data, seed)
    else:
        settings = _with_preset(recipe, generator, preset, base, sets or [], data, seed)
    if generator not in settings.generators:
        raise ValueError(f"unknown generator {generator!r}; {settings.name} has: {', '.join(settings.generators)}")
    from robustgen.verbs import making

    chosen = settings.generators[generator]
    if base is None and isinstance(chosen, ConsistencyFit):
        raise ValueError(f"{generator} starts from a trained EDM; say which with --base FOLDER, one made by: fit edm")

    def work(progress: Progress, device: str) -> str:
        return making.fit(chosen, settings.data, into, settings.seed, device, progress, base)

    one_stage(
        f"fit {generator}", into, work, device, dry_run,
        asked={
            "fit": chosen.to_json(), "data": settings.data.to_json(), "seed": settings.seed,
            **({"base": str(base)} if base else {}),
        },
        threads=settings.threads, finished=into / "generator.json",
    )  # fmt: skip


def _with_preset(
    recipe: str, kind: str, preset: str, base: Path | None, sets: list[str], data: str | None, seed: int | None
) -> Recipe:
    """A recipe whose one generator is a preset, before settings of it are changed."""
    from robustgen.fits import ConsistencyFit
    from robustgen.overrides import override
    from robustgen.recipe import Arm
    from robustgen.recipes.presets import find_preset

    of_generators = [text for text in sets if text.startswith("generators.")]
    settings = settings_of(recipe, [text for text in sets if text not in of_generators], data, seed)
    chosen = find_preset(kind, preset)
    if isinstance(chosen, ConsistencyFit):
        chosen = chosen.model_copy(update={"base": f"./{base}" if base else "./"})
    alone = {"generators": {kind: chosen}, "arms": {"real": Arm()}}
    return override(settings.model_copy(update=alone), of_generators)


@app.command()
def sample(
    generator: Annotated[Path, typer.Argument(metavar="GENERATOR", help="a folder made by fit", show_default=False)],
    into: Into,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="images, classes in turn")] = 10_000,
    solver: Annotated[
        str | None,
        typer.Option("--solver", metavar="NAME", help="of a diffusion model; see: list solvers", show_default=False),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option("--evaluations", metavar="N", min=1, help="of the network for an image", show_default=False),
    ] = None,
    guidance: Annotated[
        float, typer.Option("--guidance", metavar="W", help="of a diffusion model; 1 is none, 1.5 to 3 is usual")
    ] = 1.0,
    guide: Annotated[
        Path | None,
        typer.Option(
            "--guide",
            metavar="FOLDER",
            help="a weaker generator to be led away from  [itself, without the class]",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", help="of a vdvae's latents; below 1 less varied")
    ] = 1.0,
    shard_images: Annotated[int, typer.Option("--shard-images", metavar="N", min=1, help="images in a file")] = 100_000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="image i comes from seed and i alone")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Sample a generative model into a proxy set.

    \b
      robustgen sample models/edm --count 10000 --solver ipndm --evaluations 10 --into proxies/edm
      torchrun --nproc_per_node=2 -m robustgen sample models/edm --count 1000000 --into proxies/edm
    """
    from robustgen.recipe import Sampling
    from robustgen.verbs import collecting

    settings = checked(
        Sampling, count=count, shard_images=shard_images, solver=solver, evaluations=evaluations, guidance=guidance,
        guide=str(guide) if guide else None, temperature=temperature,
    )  # fmt: skip

    def work(progress: Progress, device: str) -> str:
        return collecting.sample(generator, settings, into, seed, device, progress, guide=guide)

    one_stage("sample", into, work, device, dry_run)


@app.command()
def label(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a folder made by sample", show_default=False)],
    classifier: Annotated[
        Path, typer.Option("--with", metavar="CLASSIFIER", help="a folder made by train --plain", show_default=False)
    ],
    labels: Annotated[
        str, typer.Option("--labels", metavar="WHICH", help="predicted, or condition: the class asked for")
    ] = "predicted",
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Give the images of a proxy set labels, the labeller's confidence in them, and its margin to the next class.

    Results are saved as they come; repeat the command to go on.

    \b
      robustgen label proxies/edm --with models/labeller
    """
    if labels not in ("predicted", "condition"):
        raise ValueError(f"unknown labels {labels!r}; known: predicted, condition")
    from robustgen.verbs import collecting

    def work(progress: Progress, device: str) -> str:
        return collecting.label(proxy, classifier, device, progress, labels)

    one_stage("label", proxy, work, device, dry_run)


@app.command()
def keep(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a folder that has been labelled", show_default=False)],
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            metavar="NAME",
            help="top-confidence | above-confidence | balanced | boundary | discriminator | by-column | all",
        ),
    ] = "top-confidence",
    per_class: Annotated[int, typer.Option("--per-class", metavar="K", min=1, help="images kept of each class")] = 1000,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="P", help="of above-confidence: the least probability of the label")
    ] = 0.9,
    uniform: Annotated[
        float, typer.Option("--uniform", metavar="SHARE", help="of boundary: drawn uniformly, not by the boundary")
    ] = 0.5,
    column: Annotated[
        str | None,
        typer.Option("--column", metavar="NAME", help="of by-column: highest values first", show_default=False),
    ] = None,
    without_copies: Annotated[
        bool, typer.Option("--without-copies", help="leave out what check found to be a copy")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Choose which images of a labelled proxy set are used.

    \b
      robustgen keep proxies/edm --per-class 500
      robustgen keep proxies/edm --rule boundary --per-class 100 --without-copies
    """
    from robustgen.recipe import Keep
    from robustgen.verbs import collecting

    settings = checked(
        Keep, rule=rule, per_class=per_class, confidence=confidence, uniform=uniform, column=column,
        without_copies=without_copies,
    )  # fmt: skip

    def work(progress: Progress, device: str) -> str:
        return collecting.keep_best(proxy, settings, progress)

    one_stage("keep", proxy, work, "cpu", dry_run)


@app.command()
def train(
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
    plain: Annotated[bool, typer.Option("--plain", help="a standard classifier, the recipe's labeller")] = False,
    threat: ThreatText = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="N|auto",
            help="images a step  [the recipe's]; auto: the recipe's, in as many passes as fit the GPU",
            show_default=False,
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option("--track", metavar="NAME", help="tensorboard | wandb, beside progress.jsonl", show_default=False),
    ] = None,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Train a classifier, robust or plain.

    \b
      robustgen train --plain --into models/labeller
      robustgen train --into models/real
      robustgen train --proxy proxies/edm --into models/edm --set train.beta=5
      robustgen train --proxy proxies/edm@0-0.6 --proxy proxies/gan=2@0.6-1 --proxy proxies/edm@0.6-1 --into models/two
      torchrun --nproc_per_node=8 -m robustgen train --proxy proxies/edm --into models/edm --batch auto
    """
    from robustgen.tracking import check_trackers
    from robustgen.verbs import making

    check_trackers(track or [])
    part = "labeller" if plain else "train"
    given = [*(sets or []), *([f"threat={threat}"] if threat else [])]
    if batch is not None and batch != "auto":
        given.append(f"{part}.schedule.batch_size={batch}")
    settings = settings_of(recipe, given, data, seed)
    chosen = settings.labeller if plain else settings.train
    sources = sources_of(proxies or [])
    if not sources.proxies and any(one.startswith(f"{part}.real_share=") for one in given) and chosen.real_share < 1:
        raise ValueError(f"a real share of {chosen.real_share:g} needs generated images: --proxy FOLDER")
    asked = {
        "train": chosen.to_json(), "data": settings.data.to_json(), "threat": str(settings.threat),
        "proxies": sources.to_json(), "seed": settings.seed,
    }  # fmt: skip

    def work(progress: Progress, device: str) -> str:
        fitting = chosen
        if batch == "auto":
            fitting = making.fitting_passes(chosen, settings.data, settings.threat, into, device)
        return making.train(
            fitting, settings.data, settings.threat, sources, into, settings.seed, device, progress, track or []
        )

    one_stage(
        "train", into, work, device, dry_run, asked=asked, threads=settings.threads, finished=into / "model.json"
    )  # fmt: skip


def sources_of(texts: Sequence[str]) -> Arm:
    """Proxy sets from PROXY[=WEIGHT][@FROM-TO], as the phases between all the ends that are named."""
    from robustgen.recipe import Arm, Phase
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
