"""The graph of stages of a recipe. Each stage leaves a file that appears when it is finished, and is then skipped.

The graph needs no torch; a stage imports it when it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from robustgen.config.generators import ECTConfig
from robustgen.config.losses import HATConfig
from robustgen.config.recipe import Arm, Recipe, SelectionConfig
from robustgen.config.source import Source
from robustgen.config.training import TrainingConfig
from robustgen.runtime.distributed import place
from robustgen.stages.analyse import AnalyseImages
from robustgen.stages.certify import Certify
from robustgen.stages.common import Stage
from robustgen.stages.describe import Describe
from robustgen.stages.evaluate import Evaluate
from robustgen.stages.fit import Fit
from robustgen.stages.import_ import Import
from robustgen.stages.keep import Keep
from robustgen.stages.label import Label
from robustgen.stages.measure import Measure
from robustgen.stages.report import Report
from robustgen.stages.sample import Sample
from robustgen.stages.score import Score
from robustgen.stages.train import Train
from robustgen.storage.files import read_json, write_json
from robustgen.storage.run_folder import RunDir

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Node:
    """A stage in the graph.

    name      verb and object: "train edm-0"
    needs     names of the stages that it depends on
    output    the file that exists when it is finished
    stage     settings and folders; calling it does the work
    optional  on a ValueError the run records the reason and continues: for analyses, which only the report reads
    """

    name: str
    needs: tuple[str, ...]
    output: Path
    stage: Stage
    optional: bool = False

    @property
    def finished(self) -> bool:
        return self.output.exists()

    @property
    def kind(self) -> str:
        """Its verb: "train"."""
        return self.name.partition(" ")[0]

    @property
    def shared(self) -> bool:
        """Whether several processes share its work."""
        return bool(getattr(self.stage, "shared", False))


def levels(stage_list: Sequence[Node]) -> dict[str, int]:
    """Number of stages on the longest path from each stage to the end."""
    after = {stage.name: 0 for stage in stage_list}
    for stage in reversed(stage_list):
        for need in stage.needs:
            after[need] = max(after[need], after[stage.name] + 1)
    return after


def widest(stage_list: Sequence[Node]) -> int:
    """The most stages that are as far from the end as each other."""
    found = list(levels(stage_list).values())
    return max(map(found.count, found))


def stages(recipe: Recipe, run: RunDir, arms: Sequence[str] = ()) -> list[Node]:
    """All stages of a run, each after the stages that it depends on; or those that some arms need, without the report.

    Raises:
        ValueError: unknown arm; names the known ones.
    """
    if unknown := [arm for arm in arms if arm not in recipe.arms]:
        raise ValueError(f"{recipe.name} has no arm {unknown[0]!r}; known: {', '.join(recipe.arms)}")
    labeller = Train(recipe.labeller, recipe.data, recipe.threat, Arm(), run.labeller, recipe.seed)
    found = [
        Node("data", (), run.data, Describe(recipe.data, run.data, run.real_samples)),
        *(_imported(recipe, run, name) for name in _published(recipe)),
        Node("labeller", ("data",), run.labeller / "model.json", labeller),
    ]
    sampled = _sampled(recipe)
    for name in _fitted(recipe):
        found.append(_fit(recipe, run, name))
        if name in sampled:
            found.append(_sample(recipe, run, name))
            found += _labeled(recipe, run, name, f"sample {name}", recipe.labels, recipe.keep.of(name))
            found += _judged_images(recipe, run, name)
    for name in _published(recipe):
        found += _labeled(recipe, run, name, f"import {name}", "condition", SelectionConfig(rule="all"))
        found += _judged_images(recipe, run, name)
    for arm in recipe.arms:
        found += _arm(recipe, run, arm)
    if arms:
        wanted = {node.name for arm in arms for node in _arm(recipe, run, arm)}
        for node in reversed(found):
            wanted.update(node.needs if node.name in wanted else ())
        return [node for node in found if node.name in wanted]
    needed = {need for node in found for need in node.needs}
    last = tuple(node.name for node in found if node.name not in needed or node.name.startswith("evaluate "))
    return [*found, Node("report", last, run.report, Report(run))]


def _imported(recipe: Recipe, run: RunDir, name: str) -> Node:
    files = tuple(Path(file) for file in recipe.published[name])
    stage = ImportPublished(name, name in recipe.generators, files, run.proxy(name), recipe.sampling.shard_images)
    return Node(f"import {name}", (), run.proxy(name) / "manifest.json", stage)


def _fit(recipe: Recipe, run: RunDir, name: str) -> Node:
    config, folder = recipe.generators[name], run.generator(name)
    base = config.base if isinstance(config, ECTConfig) else None
    needs = (f"fit {base}" if base in recipe.generators else "data",)
    stage = Fit(config, recipe.data, folder, recipe.seed, _generator_folder(recipe, run, base))
    return Node(f"fit {name}", needs, folder / "generator.json", stage)


def _sample(recipe: Recipe, run: RunDir, name: str) -> Node:
    proxy, sampler = run.proxy(name), recipe.sampling.of(name)
    guide = [f"fit {sampler.guide}"] if sampler.guide in recipe.generators else []
    stage = Sample(
        run.generator(name),
        sampler,
        proxy,
        recipe.seed,
        recipe.sampling.count,
        recipe.sampling.shard_images,
        _generator_folder(recipe, run, sampler.guide),
    )
    return Node(f"sample {name}", (f"fit {name}", *guide), proxy / "manifest.json", stage)


def _labeled(recipe: Recipe, run: RunDir, name: str, made: str, labels: str, rule: SelectionConfig) -> list[Node]:
    """The stages that pseudo-label a proxy set and select from it, after the stage that generates it."""
    proxy = run.proxy(name)
    label = Label(proxy, run.labeller, labels, recipe.label_precision)
    found = [
        Node(f"label {name}", (made, "labeller"), proxy / "confidence.npy", label),
    ]
    if rule.rule == "discriminator":
        stage = Score(proxy, recipe.data, recipe.threat, run.closeness(name, "arc"), recipe.seed)
        found.append(Node(f"score {name}", (f"label {name}",), proxy / "discriminator.npy", stage))
    return [*found, Node(f"keep {name}", (found[-1].name,), proxy / "preview.npz", Keep(proxy, rule))]


def _judged_images(recipe: Recipe, run: RunDir, name: str) -> list[Node]:
    """The stages that measure and analyze the images of one generator."""
    found = []
    if recipe.measure is not None:
        path = run.quality(name)
        measure = Measure(run.proxy(name), run.labeller, recipe.data, recipe.measure, path, recipe.seed)
        found.append(Node(f"measure {name}", (f"keep {name}",), path, measure, optional=True))
    for analysis in recipe.analyses:
        if analysis != "transfer":
            path = run.closeness(name, analysis)
            stage = AnalyseArm(_analysis(recipe, run, analysis, name, path))
            found.append(Node(f"{analysis} {name}", (f"keep {name}",), path.with_suffix(".done"), stage, optional=True))
    return found


def _analysis(recipe: Recipe, run: RunDir, analysis: str, generator: str, path: Path) -> AnalyseImages:
    return AnalyseImages(
        analysis, run.proxy(generator), recipe.data, recipe.threat, path, recipe.seed, labeller=run.labeller
    )


def _arm(recipe: Recipe, run: RunDir, arm: str) -> list[Node]:
    """The stages of one arm: train its models; evaluate, certify and analyze the best one."""
    contents = recipe.arms[arm]
    training, more = _robust_training(recipe, run, arm)
    sources = contents.placed(lambda name: str(run.proxy(name)))
    images = tuple(f"keep {name}" for name in contents.proxies) or ("data",)
    found = []
    for model in range(training.models):
        folder = run.classifier(arm, model)
        stage = Train(training, contents.data(recipe.data), recipe.threat, sources, folder, 1000 * recipe.seed + model)
        found.append(Node(f"train {arm}-{model}", (*images, *more), folder / "model.json", stage))
    trained = tuple(node.name for node in found)
    path = run.verdicts(arm, recipe.evaluation.suite)
    found.append(Node(f"evaluate {arm}", trained, path.with_suffix(".done"), EvaluateBest(recipe, run, arm)))
    if arm in recipe.certified:
        path = run.certificates(arm)
        found.append(Node(f"certify {arm}", trained, path.with_suffix(".done"), CertifyBest(recipe, run, arm)))
    if "transfer" in recipe.analyses and len(contents.proxies) == 1:
        (source,) = contents.proxies
        path = run.closeness(arm, "transfer")
        judged = run.verdicts(arm, recipe.evaluation.suite).with_suffix(".done")
        analyse = AnalyseArm(_analysis(recipe, run, "transfer", source, path), judged, run.root / "classifiers")
        needs = (f"keep {source}", f"evaluate {arm}")
        found.append(Node(f"transfer {arm}", needs, path.with_suffix(".done"), analyse, optional=True))
    return found


def _wanted(recipe: Recipe) -> set[str]:
    return {name for arm in recipe.arms.values() for name in arm.proxies}


def _sampled(recipe: Recipe) -> list[str]:
    """Generators whose images an arm uses."""
    return [name for name in recipe.generators if name in _wanted(recipe) and name not in recipe.published]


def _published(recipe: Recipe) -> list[str]:
    """Published sets that an arm uses."""
    return [name for name in recipe.published if name in _wanted(recipe)]


def _fitted(recipe: Recipe) -> list[str]:
    """Generators that are sampled, and those that they are initialized from or guided by."""
    wanted = set(_sampled(recipe))
    for name in list(wanted):
        settings = recipe.generators[name]
        wanted |= {recipe.sampling.of(name).guide or name, getattr(settings, "base", name)}
    return [name for name in recipe.generators if name in wanted]


def _generator_folder(recipe: Recipe, run: RunDir, name: str | None) -> Path | None:
    """The folder of a generator that a setting names: in the run, or elsewhere."""
    if name is None:
        return None
    return run.generator(name) if name in recipe.generators else Path(name)


def _robust_training(recipe: Recipe, run: RunDir, arm: str) -> tuple[TrainingConfig, tuple[str, ...]]:
    """Training settings of an arm, and further stages it depends on: the labeler for HAT, if no other is named."""
    training = recipe.training(arm)
    if not isinstance(training.loss, HATConfig) or training.loss.standard is not None:
        return training, ()
    loss = training.loss.model_copy(update={"standard": str(run.labeller)})
    return training.model_copy(update={"loss": loss}), ("labeller",)


def check_recipe(recipe: Recipe) -> None:
    """Build everything that a recipe names, without data, so that a wrong name is found at once.

    Raises:
        ValueError: an unknown dataset, architecture, augmentation, solver or suite; names the known ones.
    """
    from robustgen.augment import build_augmentation
    from robustgen.datasets import DATASETS, unknown_dataset
    from robustgen.evaluation.suites import find_suite
    from robustgen.images import DatasetInfo
    from robustgen.models import build_model
    from robustgen.models.foreign import find_network
    from robustgen.storage.references import Reference

    if recipe.data.name not in DATASETS:
        raise ValueError(unknown_dataset(recipe.data.name))
    find_suite(recipe.evaluation.suite)
    _check_generators(recipe)
    for training in (recipe.labeller, *map(recipe.training, recipe.arms)):
        build_augmentation(training.augment)
        reference = Reference.parse(training.architecture)
        if reference is not None:
            find_network(reference)
            continue
        import torch

        with torch.device("meta"):
            build_model(training.architecture, DatasetInfo("", ("a", "b"), (1, 32, 32), (0.0,), (1.0,)))


def _check_generators(recipe: Recipe) -> None:
    """Check the sampler settings of every generator that is sampled: solver, evaluations, guidance, temperature."""
    from robustgen.generators import check_sampler
    from robustgen.generators.ddpm_steps import REVERSE_PROCESSES
    from robustgen.generators.solvers import SOLVERS

    for name in _sampled(recipe):
        check_sampler(recipe.generators[name], recipe.sampling.of(name))
    solver = recipe.sampling.solver
    if solver is not None and solver not in SOLVERS and solver not in REVERSE_PROCESSES:
        raise ValueError(f"unknown solver {solver!r}; known: {', '.join([*SOLVERS, *REVERSE_PROCESSES])}")


def best_model(run: RunDir, arm: str, models: Iterable[int]) -> int:
    """The model of an arm with the best robust accuracy on the validation images; the first in case of a tie."""

    def robust(model: int) -> int:
        measured = read_json(run.classifier(arm, model) / "model.json")["validation"]
        return int(measured["robust"][0]) if measured else 0

    return max(models, key=lambda model: (robust(model), -model))


@dataclass(frozen=True)
class ImportPublished:
    """Import a published set as the proxy set of this name; `generated`: whether the recipe has a generator for it."""

    name: str
    generated: bool
    files: tuple[Path, ...]
    folder: Path
    shard_images: int

    def __call__(self, device: str, progress: Progress) -> str:
        for file in self.files:
            if not file.exists():
                instead = ", or set published={} to use a generator instead" if self.generated else ""
                raise ValueError(f"published.{self.name}: {file} does not exist; put the set there{instead}")
        return Import(self.files, None, self.folder, self.shard_images)(device, progress)


@dataclass(frozen=True)
class EvaluateBest:
    """Evaluate the model of an arm with the best robust accuracy on the validation images."""

    recipe: Recipe
    run: RunDir
    arm: str
    shared: ClassVar[bool] = True

    def __call__(self, device: str, progress: Progress) -> str:
        recipe, run, arm = self.recipe, self.run, self.arm
        chosen = best_model(run, arm, range(recipe.training(arm).models))
        path = run.verdicts(arm, recipe.evaluation.suite)
        source = Source(str(run.classifier(arm, chosen)))
        stage = Evaluate(source, recipe.data, recipe.threat, recipe.evaluation, path, recipe.seed)
        verdicts = stage.verdicts(device, progress)
        if place()[0] == 0:
            write_json(path.with_suffix(".done"), {"classifier": f"{arm}-{chosen}"})
        return f"model {chosen}: clean {verdicts.clean_accuracy}, robust {verdicts.robust_accuracy}"


@dataclass(frozen=True)
class CertifyBest:
    """Certify the model of an arm with the best robust accuracy on the validation images."""

    recipe: Recipe
    run: RunDir
    arm: str
    shared: ClassVar[bool] = True

    def __call__(self, device: str, progress: Progress) -> str:
        recipe, run, arm = self.recipe, self.run, self.arm
        assert recipe.certification is not None
        chosen = best_model(run, arm, range(recipe.training(arm).models))
        path = run.certificates(arm)
        source = Source(str(run.classifier(arm, chosen)))
        stage = Certify(source, recipe.data, recipe.certification, path, recipe.seed)
        certificates = stage.certificates(device, progress)
        if place()[0] == 0:
            write_json(path.with_suffix(".done"), {"classifier": f"{arm}-{chosen}"})
        return f"model {chosen}: {certificates.summary}"


@dataclass(frozen=True)
class AnalyseArm:
    """Analyze the images of a generator, and mark the analysis as finished.

    judged       the file that names the model selected for an arm, for analyses of a classifier
    classifiers  the folder of classifiers
    """

    analysis: AnalyseImages
    judged: Path | None = None
    classifiers: Path = Path()

    @property
    def shared(self) -> bool:
        return self.analysis.shared

    def __call__(self, device: str, progress: Progress) -> str:
        analysis = self.analysis
        if self.judged is not None:
            analysis = replace(analysis, model=self.classifiers / read_json(self.judged)["classifier"])
        found = analysis.record(device, progress)
        if place()[0] == 0:
            write_json(analysis.path.with_suffix(".done"), {"analysis": analysis.analysis})
        return found.summary
