"""What the commands share: the application, options, and how one stage is run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from robustgen.config.recipe import Recipe
    from robustgen.contracts import Progress

app = typer.Typer(
    name="robustgen",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help=(
        "Train image classifiers that stay right under attack, with the help of generated images; then measure and "
        "explain what was gained.\n\n"
        "The verbs follow the data: fit a generative model, sample it into a proxy set, label and keep the best "
        "images, train, evaluate, certify, report. run does all of them after a recipe. Every command can be repeated: "
        "finished work is skipped, half-done work goes on.\n\n"
        "\b\n"
        "  robustgen run digits                 the papers in miniature, minutes on two cores\n"
        "  robustgen run digits --dry-run       what that would do\n"
        "  robustgen list recipes               what else there is"
    ),
)

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="a known recipe, or a .yaml file", show_default=False)
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="change a setting, such as train.beta=5; may be repeated",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto | cpu | cuda")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="say what would be done, and stop")]
FromRecipe = Annotated[str, typer.Option("--recipe", metavar="RECIPE", help="whose settings to start from")]
DataPath = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME[=PATH]",
        help="images: digits, cifar10, svhn=FOLDER, npz=FILE, folder=FOLDER ...  [the recipe's]",
        show_default=False,
    ),
]
ThreatText = Annotated[
    str | None,
    typer.Option("--threat", metavar="NORM:EPS", help="such as linf:8/255  [the recipe's]", show_default=False),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="FILE", help="of hub:NAME, or to load into what FUNCTION returns", show_default=False
    ),
]
Architecture = Annotated[
    str | None,
    typer.Option("--architecture", metavar="NAME", help="of a weights file: wrn-28-10 ...", show_default=False),
]
Normalisation = Annotated[
    str, typer.Option("--normalise", metavar="HOW", help="before FUNCTION's model: none | data | MEAN/DEVIATION")
]
Into = Annotated[Path, typer.Option("--into", metavar="FOLDER", help="where the result goes", show_default=False)]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale",
        metavar="NAME",
        help="tiny: the same in two minutes on two cores, on a few images of the data set, or digits",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="of all randomness  [the recipe's]", show_default=False)
]


def settings_of(
    name: str, sets: list[str] | None, data: str | None, seed: int | None, scale: str | None = None
) -> Recipe:
    """A known recipe or a file, with what the command line changes: the data, then the scale, then single settings."""
    from robustgen.config.loading import override, read_recipe, unknown_recipe
    from robustgen.recipes import RECIPES
    from robustgen.recipes.scaling import scaled

    if name in RECIPES:
        settings = RECIPES[name]
    elif name.endswith((".yaml", ".yml", ".json")):
        settings = read_recipe(Path(name), RECIPES)
    else:
        raise ValueError(f"unknown recipe {name!r}; {unknown_recipe(name, RECIPES)}, or a .yaml file")
    if data:
        kind, _, path = data.partition("=")
        settings = override(settings, [f"data.name={kind}", f"data.path={path or 'none'}"])
    if scale:
        settings = scaled(settings, scale)
    seeds = [] if seed is None else [f"seed={seed}"]
    return override(settings, [*(sets or []), *seeds])


def of_analysis(sets: list[str] | None, threat: str | None) -> tuple[list[str], list[str]]:
    """Settings of an analysis among those of `--set`, and those of the recipe, the threat model with them."""
    own = [text.removeprefix("analysis.") for text in sets or [] if text.startswith("analysis.")]
    rest = [text for text in sets or [] if not text.startswith("analysis.")]
    return own, [*rest, *([f"threat={threat}"] if threat else [])]


def checked(kind: Any, **values: Any) -> Any:
    from pydantic import ValidationError

    from robustgen.config.parsing import explain

    try:
        return kind(**values)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def device_named(name: str) -> str:
    if name not in ("auto", "cpu", "cuda") and not name.startswith("cuda:"):
        raise ValueError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:N")
    if name == "cpu":
        return name
    if name == "auto" and not _gpu_driver_present():
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda" if name == "auto" else name
    if name == "auto":
        return "cpu"
    raise ValueError(f"device {name} was asked for, but torch {torch.__version__} finds no GPU; use --device cpu")


def _gpu_driver_present() -> bool:
    """Cheaper than asking torch, which takes seconds to import."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists() or os.name != "posix"


def one_stage(
    name: str,
    folder: Path,
    work: Callable[[Progress, str], str],
    device: str,
    dry_run: bool,
    *,
    threads: int = 1,
    file_name: str = "",
    asked: dict[str, Any] | None = None,
    finished: Path | None = None,
) -> None:
    """One stage in this process, alone in its folder; `asked` is kept there and must not change."""
    from robustgen.pipeline.scheduler import run_alone
    from robustgen.runtime.distributed import local_device, place

    where = local_device(device_named(device))
    if place()[1] > 1:
        file_name = f"{file_name}.{place()[0]}"
    if dry_run:
        done = finished is not None and finished.exists()
        print(f"would {name} into {folder} on {where}" + (" (done before)" if done else ""))
        return
    run_alone(
        name,
        folder,
        lambda progress: work(progress, where),
        threads=threads,
        file_name=file_name,
        asked=asked,
        finished=finished,
    )
