"""The stages of a recipe wired together. Each leaves a file that appears when it is finished, and is then skipped.

The graph of stages needs no torch; what a stage does imports it when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.generators import ECTConfig
from robustgen.config.recipe import Arm, DataConfig, KeepConfig, Recipe
from robustgen.config.training import TrainingConfig
from robustgen.stages.analyse_images import examine
from robustgen.stages.certify import certify
from robustgen.stages.common import load_data, preview
from robustgen.stages.evaluate import judge
from robustgen.stages.exchange import import_set
from robustgen.stages.fit import fit
from robustgen.stages.keep import keep_best
from robustgen.stages.label import label
from robustgen.stages.measure import measure
from robustgen.stages.sample import sample
from robustgen.stages.score import score
from robustgen.stages.train import train
from robustgen.storage.arrays import save_arrays
from robustgen.storage.files import read_json, write_json
from robustgen.storage.run_folder import RunDir

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Stage:
    """One box of the flow.

    name    what it does to what: "train edm-0"
    needs   names of the stages before it
    output  the file that exists when it is finished
    work    does it, telling its progress; returns a sentence for the user
    spared  the run goes on without it where it cannot be made (a ValueError), and says so: analyses, which no other
            stage but the report reads
    """

    name: str
    needs: tuple[str, ...]
    output: Path
    work: Callable[[Progress], str]
    optional: bool = False

    @property
    def finished(self) -> bool:
        return self.output.exists()


def stages(recipe: Recipe, run: RunDir, device: str = "cpu") -> list[Stage]:
    """All stages of a run, each after those it needs."""
    data, seed = recipe.data, recipe.seed
    found = [
        Stage("data", (), run.root / "data.json", partial(_describe_data, data, run)),
        *(
            Stage(f"import {name}", (), run.proxy(name) / "manifest.json", partial(_import, recipe, run, name))
            for name in _imported(recipe)
        ),
        Stage(
            "labeller",
            ("data",),
            run.labeller / "model.json",
            partial(train, recipe.labeller, data, recipe.threat, Arm(), run.labeller, seed, device),
        ),
    ]
    sampled = _sampled(recipe)
    for name in _fitted(recipe):
        settings, folder = recipe.generators[name], run.generator(name)
        base = settings.base if isinstance(settings, ECTConfig) else None
        found.append(
            Stage(
                f"fit {name}",
                (f"fit {base}" if base in recipe.generators else "data",),
                folder / "generator.json",
                partial(fit, settings, data, folder, seed, device, base=_generator_folder(recipe, run, base)),
            )
        )
        if name not in sampled:
            continue
        proxy, draw = run.proxy(name), recipe.sampling.of(name)
        found += [
            Stage(
                f"sample {name}",
                (f"fit {name}", *([f"fit {draw.guide}"] if draw.guide in recipe.generators else [])),
                proxy / "manifest.json",
                partial(
                    sample,
                    folder,
                    recipe.sampling,
                    proxy,
                    seed,
                    device,
                    draw=draw,
                    guide=_generator_folder(recipe, run, draw.guide),
                ),
            ),
            *_labelled(recipe, run, name, f"sample {name}", recipe.labels, recipe.keep, device),
        ]
        found += _judged_images(recipe, run, name, device)
    for name in _imported(recipe):
        found += _labelled(recipe, run, name, f"import {name}", "condition", KeepConfig(rule="all"), device)
        found += _judged_images(recipe, run, name, device)
    for arm, contents in recipe.arms.items():
        training, asks = _robust_training(recipe, run, arm)
        sources = contents.placed(lambda name: str(run.proxy(name)))
        models = range(training.models)
        for model in models:
            found.append(
                Stage(
                    f"train {arm}-{model}",
                    (*(tuple(f"keep {name}" for name in contents.proxies) or ("data",)), *asks),
                    run.classifier(arm, model) / "model.json",
                    partial(
                        train,
                        training,
                        data,
                        recipe.threat,
                        sources,
                        run.classifier(arm, model),
                        1000 * seed + model,
                        device,
                    ),
                )
            )
        found.append(
            Stage(
                f"evaluate {arm}",
                tuple(f"train {arm}-{model}" for model in models),
                run.verdicts(arm, recipe.evaluation.suite).with_suffix(".done"),
                partial(_evaluate_best, recipe, run, arm, device),
            )
        )
        if arm in recipe.certified:
            found.append(
                Stage(
                    f"certify {arm}",
                    tuple(f"train {arm}-{model}" for model in models),
                    run.certificates(arm).with_suffix(".done"),
                    partial(_certify_best, recipe, run, arm, device),
                )
            )
        if "transfer" in recipe.analyses and len(contents.proxies) == 1:
            (source,) = contents.proxies
            found.append(
                Stage(
                    f"transfer {arm}",
                    (f"keep {source}", f"evaluate {arm}"),
                    run.closeness(arm, "transfer").with_suffix(".done"),
                    partial(_examine, recipe, run, "transfer", source, arm, device),
                    optional=True,
                )
            )
    seen = {need for stage in found for need in stage.needs}
    judged = tuple(stage.name for stage in found if stage.name not in seen or stage.name.startswith("evaluate "))
    found.append(Stage("report", judged, run.report, partial(_report, run)))
    return found


def _judged_images(recipe: Recipe, run: RunDir, name: str, device: str) -> list[Stage]:
    """What is measured and analysed of one generator's images."""
    found = []
    if recipe.measure is not None:
        path = run.quality(name)
        work = partial(
            measure, run.proxy(name), run.labeller, recipe.data, recipe.measure, path, recipe.seed, device
        )  # fmt: skip
        found.append(Stage(f"measure {name}", (f"keep {name}",), path, work, optional=True))
    found += [
        Stage(
            f"{analysis} {name}",
            (f"keep {name}",),
            run.closeness(name, analysis).with_suffix(".done"),
            partial(_examine, recipe, run, analysis, name, name, device),
            optional=True,
        )
        for analysis in recipe.analyses
        if analysis != "transfer"
    ]
    return found


def _labelled(
    recipe: Recipe, run: RunDir, name: str, made: str, labels: str, rule: KeepConfig, device: str
) -> list[Stage]:
    """The stages that label a proxy set and choose from it, after the one that made it."""
    proxy = run.proxy(name)
    found = [
        Stage(
            f"label {name}",
            (made, "labeller"),
            proxy / "confidence.npy",
            partial(label, proxy, run.labeller, device, labels=labels),
        )
    ]
    if rule.rule == "discriminator":
        path = run.closeness(name, "arc")
        work = partial(score, proxy, recipe.data, recipe.threat, path, recipe.seed, device)
        found.append(Stage(f"score {name}", (f"label {name}",), proxy / "discriminator.npy", work))
    return [*found, Stage(f"keep {name}", (found[-1].name,), proxy / "preview.npz", partial(keep_best, proxy, rule))]


def _import(recipe: Recipe, run: RunDir, name: str, progress: Progress) -> str:
    """A published set as the proxy set of this name."""
    files = [Path(file) for file in recipe.published[name]]
    for file in files:
        if not file.exists():
            instead = ", or set published={} to have a generator make them" if name in recipe.generators else ""
            raise ValueError(f"published.{name} names {file}, which does not exist; put the set there{instead}")
    return import_set(files, None, run.proxy(name), recipe.sampling.shard_images, progress)


def _wanted(recipe: Recipe) -> set[str]:
    return {name for arm in recipe.arms.values() for name in arm.proxies}


def _sampled(recipe: Recipe) -> list[str]:
    """Generators that an arm wants."""
    return [name for name in recipe.generators if name in _wanted(recipe) and name not in recipe.published]


def _imported(recipe: Recipe) -> list[str]:
    """Published sets that an arm wants."""
    return [name for name in recipe.published if name in _wanted(recipe)]


def _fitted(recipe: Recipe) -> list[str]:
    """Generators that are sampled, and those that these start from or are guided by."""
    wanted = set(_sampled(recipe))
    for name in list(wanted):
        settings = recipe.generators[name]
        wanted |= {recipe.sampling.of(name).guide or name, getattr(settings, "base", name)}
    return [name for name in recipe.generators if name in wanted]


def _generator_folder(recipe: Recipe, run: RunDir, name: str | None) -> Path | None:
    """Where a generator lies that a setting names: in the run, or in a folder of its own."""
    if name is None:
        return None
    return run.generator(name) if name in recipe.generators else Path(name)


def _robust_training(recipe: Recipe, run: RunDir, arm: str) -> tuple[TrainingConfig, tuple[str, ...]]:
    """How an arm is trained, and stages that this needs besides: HAT asks the labeller, unless another is named."""
    training = recipe.training(arm)
    if training.loss != "hat" or training.helper.standard is not None:
        return training, ()
    helper = training.helper.model_copy(update={"standard": str(run.labeller)})
    return training.model_copy(update={"helper": helper}), ("labeller",)


def check(recipe: Recipe) -> None:
    """Build everything a recipe names, without data, so that a wrong name is found before the first hour.

    Raises:
        ValueError: an unknown data set, architecture, augmentation, solver or suite; names the known ones.
    """
    from robustgen.augment import build_augmentation
    from robustgen.datasets import DATASETS
    from robustgen.evaluation.suites import find_suite
    from robustgen.images import DatasetInfo
    from robustgen.models import build_model

    if recipe.data.name not in DATASETS:
        raise ValueError(f"unknown data set {recipe.data.name!r}; known: {', '.join(DATASETS)}")
    find_suite(recipe.evaluation.suite)
    _check_generators(recipe)
    for training in (recipe.labeller, *map(recipe.training, recipe.arms)):
        build_augmentation(training.augment)
        import torch

        with torch.device("meta"):
            build_model(training.architecture, DatasetInfo("", ("a", "b"), (1, 32, 32), (0.0,), (1.0,)))


def _check_generators(recipe: Recipe) -> None:
    """Check the sampler settings of every generator that is sampled: solver, evaluations, guidance, temperature."""
    from robustgen.generators import check_sampler
    from robustgen.generators.ddpm_steps import CHAINS
    from robustgen.generators.solvers import SOLVERS

    for name in _sampled(recipe):
        check_sampler(recipe.generators[name], recipe.sampling.of(name))
    solver = recipe.sampling.solver
    if solver is not None and solver not in SOLVERS and solver not in CHAINS:
        raise ValueError(f"unknown solver {solver!r}; known: {', '.join([*SOLVERS, *CHAINS])}")


def _describe_data(data: DataConfig, run: RunDir, progress: Progress) -> str:
    """Counts, and a few real images for the report."""
    splits = load_data(data)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    save_arrays(run.real_samples, preview(splits.train.images, splits.train.labels, len(splits.train.info.classes)))
    write_json(
        run.root / "data.json",
        {
            "name": data.name,
            "classes": splits.train.info.classes,
            "shape": splits.train.info.shape,
            "counts": {name: len(part) for name, part in parts.items()},
        },
    )
    return ", ".join(f"{len(part)} {name}" for name, part in parts.items()) + " images"


def best_model(run: RunDir, arm: str, models: Iterable[int]) -> int:
    """The model of an arm with the best robust accuracy on the validation images; the first among equals."""

    def robust(model: int) -> int:
        measured = read_json(run.classifier(arm, model) / "model.json")["validation"]
        return int(measured["robust"][0]) if measured else 0

    return max(models, key=lambda model: (robust(model), -model))


def _evaluate_best(recipe: Recipe, run: RunDir, arm: str, device: str, progress: Progress) -> str:
    from robustgen.models.sources import Source

    chosen = best_model(run, arm, range(recipe.training(arm).models))
    path = run.verdicts(arm, recipe.evaluation.suite)
    verdicts = judge(
        Source(str(run.classifier(arm, chosen))),
        recipe.data,
        recipe.threat,
        recipe.evaluation,
        path,
        recipe.seed,
        device,
        progress,
    )
    write_json(path.with_suffix(".done"), {"classifier": f"{arm}-{chosen}"})
    return f"model {chosen}: clean {verdicts.clean_accuracy}, robust {verdicts.robust_accuracy}"


def _examine(
    recipe: Recipe, run: RunDir, analysis: str, generator: str, subject: str, device: str, progress: Progress
) -> str:
    """Analyse a generator's images; for transfer `subject` is the arm whose classifier is looked at."""
    path = run.closeness(subject, analysis)
    model = None
    if analysis == "transfer":
        done = read_json(run.verdicts(subject, recipe.evaluation.suite).with_suffix(".done"))
        model = run.root / "classifiers" / done["classifier"]
    found = examine(
        analysis, run.proxy(generator), recipe.data, recipe.threat, path, recipe.seed, device, progress,
        labeller=run.labeller, model=model,
    )  # fmt: skip
    write_json(path.with_suffix(".done"), {"analysis": analysis})
    return found.summary


def _certify_best(recipe: Recipe, run: RunDir, arm: str, device: str, progress: Progress) -> str:
    from robustgen.models.sources import Source

    assert recipe.certification is not None
    chosen = best_model(run, arm, range(recipe.training(arm).models))
    path = run.certificates(arm)
    certificates = certify(
        Source(str(run.classifier(arm, chosen))), recipe.data, recipe.certification, path, recipe.seed, device, progress
    )
    write_json(path.with_suffix(".done"), {"classifier": f"{arm}-{chosen}"})
    return f"model {chosen}: {certificates.summary}"


def _report(run: RunDir, progress: Progress) -> str:
    from robustgen.report.page import write_report

    write_report(run)
    return str(run.report)
