"""Code that commands share: the application, common options, and running a single stage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.core import TyperGroup

from robustgen.config.source import place_of
from robustgen.runtime.devices import device_named

if TYPE_CHECKING:
    from robustgen.stages.common import Stage

GROUPS = {
    "Make generated images": (
        "fit",
        "sample",
        "label",
        "keep",
        "score",
        "check",
        "merge",
        "import",
        "import-generator",
    ),
    "Train": ("run", "stop", "train", "plan"),
    "Judge": ("evaluate", "certify", "measure", "compare"),
    "Explain": ("analyse", "report", "watch", "show", "list"),
    "Share": ("publish", "export", "fetch"),
}
"""All commands by the headings of the help, in its order."""


class GroupedCommands(TyperGroup):
    """A command group whose help lists its commands under headings, with whole descriptions."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for heading, names in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:<8}", (self.commands[name].help or "").splitlines()[0]) for name in names])


app = typer.Typer(
    name="robustgen",
    cls=GroupedCommands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help=(
        "Train image classifiers that are robust to adversarial examples, with the help of generated images; evaluate, "
        "certify and explain the gain.\n\n"
        "The commands follow the data: fit a generative model, sample it into a proxy set, pseudo-label and select "
        "images, train, evaluate, report. The command run does all of this for a recipe. Repeat any command to resume: "
        "finished work is skipped.\n\n"
        "\b\n"
        "  robustgen run digits                 the papers in miniature, minutes on two cores\n"
        "  robustgen run digits --dry-run       list its stages, run nothing\n"
        "  robustgen list recipes               other recipes"
    ),
)


class Options:
    """Options of the root command, for `main`."""

    traceback = False


@app.callback()
def root(
    traceback: Annotated[
        bool,
        typer.Option(
            "--traceback",
            help="when a command fails, also print where  [on if ROBUSTGEN_TRACEBACK=1]",
            show_default=False,
        ),
    ] = False,
) -> None:
    Options.traceback = traceback or os.environ.get("ROBUSTGEN_TRACEBACK", "0") not in ("", "0")


RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="name of a recipe, or a .yaml file", show_default=False)
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="change a setting, such as train.loss.beta=5; may be repeated",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto | cpu | cuda")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="only print what would be done")]
FromRecipe = Annotated[
    str, typer.Option("--recipe", metavar="RECIPE", help="the recipe whose settings are used, by name or as .yaml")
]
JudgedBy = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="the recipe whose images and threat model are used  [what MODEL was trained for]",
        show_default=False,
    ),
]
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
JudgedData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME[=PATH]",
        help="test images: digits, cifar10=FOLDER, npz=FILE, folder=FOLDER ...  [what MODEL was trained for]",
        show_default=False,
    ),
]
TestFile = Annotated[
    str | None,
    typer.Option(
        "--test",
        metavar="FILE",
        help="instead of --data: judge all images of this .npz, .npy, .tar or folder, in their order",
        show_default=False,
    ),
]
ImageKey = Annotated[
    str | None,
    typer.Option(
        "--image-key", metavar="NAME", help="array or column of the images  [image, images, x ...]", show_default=False
    ),
]
LabelKey = Annotated[
    str | None,
    typer.Option(
        "--label-key", metavar="NAME", help="array or column of the labels  [label, labels, y ...]", show_default=False
    ),
]
Balanced = Annotated[
    bool, typer.Option("--balanced", help="with --images N: the first of each class in turn, not the first N")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="leave out image files that cannot be read")]
JudgedThreat = Annotated[
    str | None,
    typer.Option(
        "--threat", metavar="NORM:EPS", help="such as linf:8/255  [what MODEL was trained for]", show_default=False
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="of hub:NAME, or to load into FUNCTION's model", show_default=False),
]
Architecture = Annotated[
    str | None,
    typer.Option("--architecture", metavar="NAME", help="of a weights file: wrn-28-10 ...", show_default=False),
]
Normalization = Annotated[
    str,
    typer.Option(
        "--normalize", "--normalise", metavar="HOW", help="in front of FUNCTION's model: none | data | MEAN/STD"
    ),
]
Into = Annotated[Path, typer.Option("--into", metavar="FOLDER", help="output folder", show_default=False)]
ProxySetFolder = Annotated[
    Path, typer.Argument(metavar="PROXY", help="a folder made by sample, import or merge", show_default=False)
]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale",
        metavar="NAME",
        help="tiny: a test of the recipe in two minutes on two cores, with a few images of the dataset, or digits",
        show_default=False,
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option("--precision", metavar="NAME", help="of the network's passes: float32 | bfloat16 | auto, the faster"),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="of all randomness  [the recipe's]", show_default=False)
]


def result_file(into: Path | None) -> Path | None:
    """The file of --into: an `.npz`; the suffix is optional."""
    if into is None or into.suffix == ".npz":
        return into
    if into.is_dir():
        raise ValueError(f"--into needs a file for the result, such as {into / 'result.npz'}; {into} is a folder")
    return into.with_name(f"{into.name}.npz")


def precision_named(name: str) -> str:
    """A precision by name. Raises ValueError for an unknown one; the known ones are named."""
    from robustgen.config.base import Precision

    known = get_args(Precision)
    if name not in known:
        raise ValueError(f"unknown precision {name!r}; known: {', '.join(known)}")
    return name


def classifier_folder(place: Any) -> Any:
    """Callback of arguments that name a classifier: "hf:FOLDER" of one that publish has written is FOLDER."""
    return None if place is None else type(place)(place_of(str(place)))


Labeler = Annotated[
    Path,
    typer.Option(
        "--with",
        metavar="CLASSIFIER",
        callback=classifier_folder,
        help="a folder made by train --plain",
        show_default=False,
    ),
]


def one_stage(
    name: str,
    folder: Path,
    stage: Stage,
    device: str,
    dry_run: bool,
    *,
    threads: int = 1,
    file_name: str = "",
    asked: dict[str, Any] | None = None,
    finished: Path | None = None,
) -> None:
    """Run one stage in this process with a lock on its folder, which stores `asked`; it must not change."""
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
        lambda progress: stage(where, progress),
        threads=threads,
        file_name=file_name,
        asked=asked,
        finished=finished,
    )
