"""Which classifiers `evaluate` and `analyse` mean: one, or those of every arm of a run; and what `analyse` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.records.record import Findings
from robustgen.stages.common import load_data, threat_model
from robustgen.storage.run_folder import RunDir

if TYPE_CHECKING:
    from robustgen.analysis.contracts import Analysis
    from robustgen.config.recipe import Recipe
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Target:
    """One classifier to analyse.

    title       what the user calls it: an arm of a run, or the folder
    classifier  its folder
    path        where the findings go
    """

    title: str
    classifier: Path
    path: Path


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return RunDir(folder).recipe.exists()


def targets(analysis: str, folder: Path, into: Path | None) -> list[Target]:
    """The classifiers in question: of every arm that a run has evaluated, or the one a folder holds.

    Raises:
        ValueError: a run that has evaluated nothing yet, or `into` for a run.
    """
    if not is_run(folder):
        return [Target(str(folder), folder, into or folder / f"{analysis}.npz")]
    if into is not None:
        raise ValueError(f"the findings of a run go into {folder / 'analysis'}; leave out --into")
    from robustgen.report.tables import read_results

    run = RunDir(folder)
    chosen = read_results(run).chosen
    return [Target(arm, folder / "classifiers" / name, run.findings(arm, analysis)) for arm, name in chosen.items()]


def models(suite: str, model: str, into: Path | None) -> list[tuple[str, str, Path]]:
    """(title, where it comes from, where verdicts go) of what `evaluate` is asked to evaluate.

    Verdicts of a run go beside those that its report shows, those of a folder into it, others into `evaluations/`.
    """
    folder = Path(model)
    if is_run(folder):
        from robustgen.report.tables import read_results

        if into is not None:
            raise ValueError(f"the verdicts of a run go into {folder / 'evaluation'}; leave out --into")
        run = RunDir(folder)
        chosen = read_results(run).chosen
        return [(arm, str(folder / "classifiers" / name), run.verdicts(arm, suite)) for arm, name in chosen.items()]
    if folder.is_dir():
        return [(model, model, into or folder / f"{suite}.npz")]
    name = model.rpartition(":")[2] if ":" in model else folder.stem
    return [(name, model, into or Path("evaluations") / f"{name}.{suite}.npz")]


def check_there(target: Target) -> None:
    """Raises ValueError unless there is a finished classifier."""
    if not (target.classifier / "model.json").exists():
        raise ValueError(f"{target.classifier} is neither a run nor a finished classifier")


def analyse(
    analysis: Analysis, target: Target, recipe: Recipe, batch_size: int, device: str, progress: Progress
) -> Findings:
    """Run an analysis on the test images of a recipe's data set."""
    from robustgen.analysis.contracts import Subject
    from robustgen.images import to_unit
    from robustgen.models.saved import load_classifier
    from robustgen.proxy.store import digest_of

    model = load_classifier(target.classifier).to(device).requires_grad_(False)
    test = load_data(recipe.data).test
    subject = Subject(
        model,
        to_unit(test.pixels(device)),
        test.targets(device),
        threat_model(recipe.threat),
        made_for=digest_of(target.classifier / "weights.safetensors"),
    )
    return analysis(subject, seed=recipe.seed, batch_size=batch_size, path=target.path, progress=progress)
