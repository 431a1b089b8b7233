"""The command line: one verb per arrow of the flow. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustgen import listing

if TYPE_CHECKING:
    from robustgen.contracts import Progress
    from robustgen.recipe import Recipe

_USAGE_ERRORS: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""click's base of usage errors, wherever this version of typer keeps click."""

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

FAMILIES = (
    "datasets", "architectures", "generators", "solvers", "attacks", "suites", "losses", "augmentations", "analyses",
)  # fmt: skip

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
        help="images: digits, cifar10=FOLDER, npz=FILE, folder=FOLDER  [the recipe's]",
        show_default=False,
    ),
]
ThreatText = Annotated[
    str | None,
    typer.Option("--threat", metavar="NORM:EPS", help="such as linf:8/255  [the recipe's]", show_default=False),
]
Into = Annotated[Path, typer.Option("--into", metavar="FOLDER", help="where the result goes", show_default=False)]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="of all randomness  [the recipe's]", show_default=False)
]


@app.command(rich_help_panel=None)
def fit(
    generator: Annotated[
        str,
        typer.Argument(metavar="GENERATOR", help="one of the recipe's generators: gaussian, edm", show_default=False),
    ],
    into: Into,
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
    """
    settings = _recipe(recipe, sets, data, seed)
    if generator not in settings.generators:
        raise ValueError(f"unknown generator {generator!r}; {settings.name} has: {', '.join(settings.generators)}")
    from robustgen import verbs

    chosen = settings.generators[generator]

    def work(progress: Progress, device: str) -> str:
        return verbs.fit(chosen, settings.data, into, settings.seed, device, progress)

    _one(
        f"fit {generator}", into, work, device, dry_run,
        asked={"fit": chosen.to_json(), "data": settings.data.to_json(), "seed": settings.seed},
        threads=settings.threads, finished=into / "generator.json",
    )  # fmt: skip


@app.command()
def sample(
    generator: Annotated[Path, typer.Argument(metavar="GENERATOR", help="a folder made by fit", show_default=False)],
    into: Into,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="images, classes in turn")] = 10_000,
    solver: Annotated[
        str, typer.Option("--solver", metavar="NAME", help="heun | ipndm | dpmpp-2m | euler, for diffusion")
    ] = "heun",
    evaluations: Annotated[
        int, typer.Option("--evaluations", metavar="N", min=1, help="of the network for an image")
    ] = 35,
    shard_images: Annotated[int, typer.Option("--shard-images", metavar="N", min=1, help="images in a file")] = 100_000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="image i comes from seed and i alone")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Sample a generative model into a proxy set.

    \b
      robustgen sample models/edm --count 10000 --solver ipndm --evaluations 10 --into proxies/edm
    """
    from robustgen import verbs
    from robustgen.recipe import Sampling

    settings = Sampling(count=count, solver=solver, evaluations=evaluations, shard_images=shard_images)

    def work(progress: Progress, device: str) -> str:
        return verbs.sample(generator, settings, into, seed, device, progress)

    _one("sample", into, work, device, dry_run)


@app.command()
def label(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a folder made by sample", show_default=False)],
    classifier: Annotated[
        Path, typer.Option("--with", metavar="CLASSIFIER", help="a folder made by train --plain", show_default=False)
    ],
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Give the images of a proxy set pseudo-labels and confidences.

    \b
      robustgen label proxies/edm --with models/labeller
    """
    from robustgen import verbs

    def work(progress: Progress, device: str) -> str:
        return verbs.label(proxy, classifier, device, progress)

    _one("label", proxy, work, device, dry_run)


@app.command()
def keep(
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", help="a folder that has been labelled", show_default=False)],
    rule: Annotated[str, typer.Option("--rule", metavar="NAME", help="top-confidence | all")] = "top-confidence",
    per_class: Annotated[int, typer.Option("--per-class", metavar="K", min=1, help="images kept of each class")] = 1000,
    dry_run: DryRun = False,
) -> None:
    """Choose which images of a labelled proxy set are used.

    \b
      robustgen keep proxies/edm --per-class 500
    """
    from robustgen import verbs
    from robustgen.recipe import Keep

    settings = _part(Keep, rule=rule, per_class=per_class)

    def work(progress: Progress, device: str) -> str:
        return verbs.keep_best(proxy, settings, progress)

    _one("keep", proxy, work, "cpu", dry_run)


@app.command()
def train(
    into: Into,
    proxy: Annotated[
        Path | None,
        typer.Option("--proxy", metavar="PROXY", help="generated images to mix in  [none]", show_default=False),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="a standard classifier, the recipe's labeller")] = False,
    threat: ThreatText = None,
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
    """
    settings = _recipe(recipe, [*(sets or []), *([f"threat={threat}"] if threat else [])], data, seed)
    from robustgen import verbs

    chosen = settings.labeller if plain else settings.train

    def work(progress: Progress, device: str) -> str:
        return verbs.train(chosen, settings.data, settings.threat, proxy, into, settings.seed, device, progress)

    _one(
        "train", into, work, device, dry_run,
        asked={
            "train": chosen.to_json(), "data": settings.data.to_json(),
            "threat": str(settings.threat), "proxy": str(proxy), "seed": settings.seed,
        },
        threads=settings.threads, finished=into / "model.json",
    )  # fmt: skip


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="a folder made by train, a run (all its arms), a weights file, FILE.py:FUNCTION, MODULE:FUNCTION",
            show_default=False,
        ),
    ],
    suite: Annotated[str, typer.Option("--suite", metavar="NAME", help="see: robustgen list suites")] = "aa+mt",
    threat: ThreatText = None,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", min=1, help="only N of the test images  [all]", show_default=False),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="where verdicts go  [MODEL/SUITE.npz]", show_default=False),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="images attacked together; changes no verdict")
    ] = 512,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="to load into what FUNCTION returns", show_default=False),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option("--architecture", metavar="NAME", help="of a weights file: wrn-28-10 ...", show_default=False),
    ] = None,
    normalise: Annotated[
        str, typer.Option("--normalise", metavar="HOW", help="before FUNCTION's model: none | data | MEAN/DEVIATION")
    ] = "none",
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="also write the images as they were broken")
    ] = False,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Count the test images that survive a cascade of attacks.

    An image that falls is not attacked again. Verdicts are written as they come; repeat the command to resume. Under
    torchrun each process takes a share of the images.

    \b
      robustgen evaluate models/edm --suite aa+mt
      robustgen evaluate net.py:make --weights net.pt --normalise data --data cifar10=data/cifar10 \\
        --threat linf:8/255 --suite autoattack
    """
    assignments = [
        f"evaluation.suite={suite}",
        f"evaluation.batch_size={batch_size}",
        *(["data.test=none"] if data else []),
        *(sets or []),
        *([f"threat={threat}"] if threat else []),
        *([f"data.test={images}"] if images else []),
    ]
    from robustgen import analysing, verbs

    whole_run = analysing.is_run(Path(model))
    settings = _recipe(str(Path(model) / "recipe.json") if whole_run else recipe, assignments, data, seed)
    for title, place, path in analysing.models(suite, model, into):
        source = verbs.Source(place, weights, architecture, normalise)

        def work(
            progress: Progress, device: str, source: verbs.Source = source, path: Path = path, title: str = title
        ) -> str:
            verdicts = verbs.judge(
                source, settings.data, settings.threat, settings.evaluation, path, settings.seed, device, progress,
                keep_images,
            )  # fmt: skip
            said = [f"clean {verdicts.clean_accuracy}, robust {verdicts.robust_accuracy} -> {path}"]
            said += [f"Note: {note}" for note in verdicts.notes]
            return "\n".join(said + [f"Red flag: {flag}" for flag in verdicts.flags])

        name = f"evaluate {title}" if whole_run else "evaluate"
        _one(name, path.parent, work, device, dry_run, threads=settings.threads, file_name=path.name)


@app.command()
def analyse(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="radius-sweep | step-sweep | landscapes", show_default=False)
    ],
    subject: Annotated[
        Path,
        typer.Argument(metavar="CLASSIFIER", help="a folder made by train, or a run: all its arms", show_default=False),
    ],
    threat: ThreatText = None,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", min=1, help="only the first N test images  [all]", show_default=False),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="where findings go  [CLASSIFIER/NAME.npz]", show_default=False),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="images attacked together; changes no finding")
    ] = 512,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Look for what an evaluation hides: sweeps over radius and steps, loss landscapes.

    A run keeps to its own recipe, its findings go into RUN/analysis and its report. Settings of the analysis are
    changed by --set analysis.NAME=VALUE. Findings are written as they come; repeat the command to resume.

    \b
      robustgen analyse radius-sweep models/edm --images 200
      robustgen analyse step-sweep runs/digits --set analysis.steps=10,100
    """
    from robustgen import analysing, crew

    own = [text.removeprefix("analysis.") for text in sets or [] if text.startswith("analysis.")]
    assignments = [
        *(text for text in sets or [] if not text.startswith("analysis.")),
        *([f"threat={threat}"] if threat else []),
        *([f"data.test={images}"] if images else []),
    ]
    whole_run = analysing.is_run(subject)
    settings = _recipe(str(subject / "recipe.json") if whole_run else recipe, assignments, data, seed)
    crew.settle(settings.threads)
    from robustgen.analysis import find_analysis

    analysis = find_analysis(name, own)
    found = {}
    for target in analysing.targets(name, subject, into):

        def work(progress: Progress, device: str, target: analysing.Target = target) -> str:
            found[target] = analysing.analyse(analysis, target, settings, batch_size, device, progress)
            return f"{target.classifier.name} -> {target.path}"

        if not dry_run:
            analysing.check_there(target)
        _one(
            f"analyse {target.title}", target.path.parent, work, device, dry_run,
            threads=settings.threads, file_name=target.path.name,
        )  # fmt: skip
    for target, findings in found.items():
        listing.print_table(findings.table(), f"{target.title}: {len(findings)} images, {settings.threat}")
        for flag in findings.flags:
            print(f"Red flag ({target.title}): {flag}")
    if whole_run and not dry_run:
        report(subject)


@app.command()
def certify(
    classifier: Annotated[
        Path, typer.Argument(metavar="CLASSIFIER", help="a folder made by train", show_default=False)
    ],
    sigma: Annotated[
        float, typer.Option("--sigma", metavar="S", help="standard deviation of the noise, in pixels of [0, 1]")
    ] = 0.25,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=1, help="noisy copies by which an image is judged")
    ] = 100_000,
    selection: Annotated[
        int, typer.Option("--selection", metavar="N", min=1, help="other copies by which its class is selected")
    ] = 100,
    alpha: Annotated[float, typer.Option("--alpha", metavar="P", help="how likely a certificate may be wrong")] = 0.001,
    every: Annotated[int, typer.Option("--every", metavar="K", min=1, help="only every K-th test image")] = 1,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", min=1, help="at most N of those  [all]", show_default=False),
    ] = None,
    denoise: Annotated[
        Path | None,
        typer.Option(
            "--denoise", metavar="GENERATOR", help="a diffusion model that denoises first  [none]", show_default=False
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", metavar="FILE", help="where certificates go  [CLASSIFIER/certificates.npz]", show_default=False
        ),
    ] = None,
    recipe: FromRecipe = "digits",
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Certify the smoothed classifier: a radius in l2 within which nothing changes its answer.

    Certificates are written as they come; repeat the command to resume.

    \b
      robustgen certify models/edm --sigma 0.25 --samples 10000 --every 20
    """
    from robustgen.recipe import Certification

    settings = _recipe(recipe, sets, data, seed)
    asked = _part(
        Certification, sigma=sigma, samples=samples, selection=selection, alpha=alpha, every=every, images=images
    )
    path = into or classifier / "certificates.npz"
    from robustgen import verbs

    def work(progress: Progress, device: str) -> str:
        found = verbs.certify(classifier, settings.data, asked, path, settings.seed, device, progress, denoise)
        return f"{found.summary} -> {path}"

    _one("certify", path.parent, work, device, dry_run, threads=settings.threads, file_name=path.name)
    if not dry_run:
        from robustgen.certificates import Certificates
        from robustgen.report.certificates import certificates_table

        table = certificates_table({str(classifier): Certificates.load(path)}, "certified %")
        listing.print_table(table, f"sigma {sigma:g}, {samples:,} samples, alpha {alpha:g}")


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a folder made by run", show_default=False)],
) -> None:
    """Render the report of a run again, from its records."""
    from robustgen.report.page import write_report
    from robustgen.runs import RunDir

    print(write_report(RunDir(run_folder)))


@app.command()
def run(
    recipe: RecipeName,
    into: Annotated[
        Path | None, typer.Option("--into", metavar="FOLDER", help="the run folder  [runs/RECIPE]", show_default=False)
    ] = None,
    data: DataPath = None,
    sets: Sets = None,
    seed: Seed = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", metavar="N", min=1, help="stages at a time  [as many as cores; on a GPU 1]", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Do everything a recipe says: fit, sample, label, keep, train, evaluate, report.

    Repeat the command to go on where it stopped.

    \b
      robustgen run digits
      robustgen run digits --set train.beta=5 --into runs/beta5
      robustgen run cifar10-mini --data cifar10=data/cifar10
    """
    settings = _recipe(recipe, sets, data, seed)
    _run(settings, into or Path("runs") / settings.name, jobs, device, dry_run)


@app.command("list")
def list_known(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]",
            help=f"recipes | runs | {' | '.join(FAMILIES)}",
        ),
    ] = "recipes",
) -> None:
    """List what there is."""
    for name, text in listing.known(what):
        print(f"{name:<24}{text}".rstrip())


@app.command()
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="a recipe, a .yaml file, or a run, proxy set, generator or classifier folder",
            show_default=False,
        ),
    ],
    sets: Sets = None,
) -> None:
    """Show a recipe's settings, or what a folder holds."""
    folder = Path(what)
    if folder.is_dir():
        print(listing.describe(folder))
        return
    settings = _recipe(what, sets, None, None)
    from robustgen.report.tables import settings_table

    if settings.summary:
        print(f"{settings.summary}\n")
    for name, value in settings_table(settings.to_json()).rows:
        print(f"{name:<40}{value}".rstrip())


def _recipe(name: str, sets: list[str] | None, data: str | None, seed: int | None) -> Recipe:
    """A known recipe or a file, with what the command line changes."""
    from robustgen.recipe import override, read_recipe
    from robustgen.recipes import RECIPES

    if name in RECIPES:
        settings = RECIPES[name]
    elif name.endswith((".yaml", ".yml", ".json")):
        settings = read_recipe(Path(name), RECIPES)
    else:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}, or a .yaml file")
    assignments = list(sets or [])
    if data:
        kind, _, path = data.partition("=")
        assignments += [f"data.name={kind}", f"data.path={path or 'none'}"]
    if seed is not None:
        assignments.append(f"seed={seed}")
    return override(settings, assignments)


def _part(kind: Any, **values: Any) -> Any:
    from pydantic import ValidationError

    from robustgen.recipe import explain

    try:
        return kind(**values)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def _device(name: str) -> str:
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


def _one(
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
    from robustgen.crew import run_alone
    from robustgen.distributed import local_device, place

    where = local_device(_device(device))
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


def _run(settings: Recipe, folder: Path, jobs: int | None, device: str, dry_run: bool) -> None:
    from robustgen import crew
    from robustgen.pipeline import check, stages
    from robustgen.report.tables import name_of, read_results, results_table
    from robustgen.runs import RunDir, locked

    where = _device(device)
    target = RunDir(folder)
    plan = stages(settings, target, where)
    jobs = jobs or crew.plan_jobs(plan, where, settings.threads)
    if dry_run:
        check(settings)
        print(f"{settings.name} into {folder}, on {where}, {jobs} at a time")
        for stage in plan:
            print(f"  {stage.name:<18}{'done' if stage.finished else 'to do'}")
        return
    if not target.recipe.exists():
        crew.check_apart(settings)
    with locked(folder):
        target.claim(settings.to_json())
        crew.run_all(settings, target, plan, where, jobs)
    results = read_results(target)
    listing.print_table(results_table(results), f"{settings.name}: {results.threat}, {settings.evaluation.suite}")
    if results.certificates:
        from robustgen.report.certificates import by_name, certificates_table, certified_gains

        named = by_name(results)
        listing.print_table(certificates_table(named), "certified % within l2 r, smoothed")
        baseline = name_of(results.recipe, results.baseline)
        print("\n".join(certified_gains(named, baseline) if baseline in named else []))
    for arm, verdicts in results.verdicts.items():
        for flag in verdicts.flags:
            print(f"Red flag ({arm}): {flag}")
    print(f"Report: {target.report}")


def main() -> None:
    """Run the command line: 0 when all went well, 2 for what the user can mend, 130 after Ctrl-C, 1 for our bugs."""
    from robustgen.crew import StageFailed, say

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads slow each other down
    try:
        if app(prog_name="robustgen", standalone_mode=False) == 130:  # how some versions of typer pass on Ctrl-C
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        print("\nStopped. Everything finished is kept; repeat the command to go on.", file=sys.stderr)
        sys.exit(130)
    except _USAGE_ERRORS as error:
        command = error.ctx.command_path if getattr(error, "ctx", None) else "robustgen"
        print(f"robustgen: {error.format_message()} See: {command} --help", file=sys.stderr)
        sys.exit(2)
    except (ValueError, OSError) as error:
        if os.environ.get("ROBUSTGEN_DEBUG"):
            traceback.print_exc()
        if isinstance(error, StageFailed) and error.ours:
            print(error.details, file=sys.stderr)
            print(
                f"robustgen: {error}\nThis looks like a bug of robustgen; everything finished is kept.", file=sys.stderr
            )
            sys.exit(1)
        print(f"robustgen: {say(error)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
