"""An attack and an augmentation that a program registers itself pass through a run.

So do losses (`losses/test_loss_configs.py`), generators (`generators/test_registry.py`) and networks
(`models/test_foreign.py`).
"""

from dataclasses import dataclass

from robustgen.attacks.common import value_and_grad
from robustgen.augment import KINDS
from robustgen.config.loading import override
from robustgen.evaluation.suites import SUITES
from robustgen.objectives import margin
from robustgen.pipeline.graph import check_recipe, stages
from robustgen.recipes import RECIPES
from robustgen.recipes.scaling import scaled
from robustgen.records.verdicts import Verdicts
from robustgen.storage.run_folder import RunDir


@dataclass(frozen=True)
class OneStep:
    """A single step of steepest ascent from the image itself."""

    def __call__(self, model, images, targets, threat, rng=None):
        _, _, gradient = value_and_grad(model, images, targets, margin)
        return threat.project(images + threat.eps * threat.ascend(gradient), images)


@dataclass(frozen=True)
class Dimmed:
    """Every image at a share of its brightness."""

    percent: int = 100

    def __call__(self, images, targets, rng):
        return images * (self.percent / 100), targets


def test_an_attack_and_an_augmentation_pass_through_a_run(monkeypatch, tmp_path):
    monkeypatch.setitem(SUITES, "one-step", lambda norm, classes: {"one-step": OneStep()})
    monkeypatch.setitem(KINDS, "dimmed", Dimmed)
    recipe = override(
        scaled(RECIPES["digits-smoke"], "tiny"), ["train.augment=dimmed-50+shift-1", "evaluation.suite=one-step"]
    )
    recipe = recipe.model_copy(update={"generators": {}, "arms": {"real": recipe.arms["real"]}, "measure": None})
    check_recipe(recipe)
    run = RunDir(tmp_path / "run")
    run.ensure_recipe(recipe.to_json())
    for stage in stages(recipe, run):
        stage.stage("cpu", lambda *_: None)
        assert stage.finished, stage.name
    verdicts = Verdicts.load(run.verdicts("real", "one-step"))
    assert verdicts.attacks == ("clean", "one-step") and verdicts.finished and run.report.exists()
