"""Settings of losses: one class per kind, the same fields and defaults as the loss, old names, a loss of one's own."""

import json
from dataclasses import dataclass, fields
from typing import Literal

import pytest
import torch.nn.functional as F

from robustgen.config.loading import override, read_recipe
from robustgen.config.losses import LOSS_CONFIGS, HATConfig, LossConfig, StabilityConfig, TRADESConfig, loss_config
from robustgen.config.recipe import Recipe
from robustgen.config.training import TrainingConfig
from robustgen.losses import LOSSES
from robustgen.losses.building import build_loss
from robustgen.pipeline.graph import check_recipe, stages
from robustgen.planning.costs import passes
from robustgen.recipes import RECIPES
from robustgen.recipes.scaling import scaled
from robustgen.storage.run_folder import RunDir

DIGITS = RECIPES["digits"]
SCHEDULE = {"total_images": 10, "batch_size": 10, "peak_lr": 0.1}


def training(**settings):
    return TrainingConfig.model_validate({"schedule": SCHEDULE, **settings})


@pytest.mark.parametrize("kind", LOSSES)
def test_settings_are_the_arguments_of_the_loss(kind):
    """Under the same names, and their defaults build the loss's own defaults."""
    member, config = LOSSES[kind], LOSS_CONFIGS[kind]
    assert {field.name for field in fields(member)} == config.model_fields.keys() - {"kind"}
    assert loss_config({"kind": kind}) == loss_config(kind) == config() and config().kind == kind
    if kind != "hat":
        assert build_loss(training(loss=kind)) == member()


@pytest.mark.parametrize("kind", LOSSES)
def test_settings_survive_json_and_name_their_place(kind):
    recipe = override(DIGITS, [f"train.loss={kind}"])
    assert Recipe.model_validate(json.loads(json.dumps(recipe.to_json()))) == recipe
    with pytest.raises(ValueError, match=f"unknown setting train.loss.nonsense of the loss {kind}; known under"):
        override(DIGITS, ["train.loss.nonsense=1", f"train.loss={kind}"])


def test_another_loss_keeps_what_both_have_alike():
    """TRADES and MART have the same default of beta and of the attack; HAT has another beta of its own."""
    changed = override(DIGITS, ["train.loss.beta=5", "train.loss.attack.steps=7"])
    mart, hat = (override(changed, [f"train.loss={kind}"]).train.loss for kind in ("mart", "hat"))
    assert mart.beta == 5 and mart.attack.steps == 7
    assert hat.beta == HATConfig().beta and hat.attack.steps == 7
    assert override(changed, ["train.loss.kind=plain"]).train.loss.kind == "plain"
    # The loss is chosen first, wherever it stands.
    assert override(DIGITS, ["train.loss.sigma=0.5", "train.loss=stability"]).train.loss == StabilityConfig(sigma=0.5)


OLD = {"helper": {"standard": None, "weight": 0.25, "factor": 3.0}, "aim": "automatic", "real_weight": None,
       "decoupled": {"alpha": 1.0, "beta": 2.0, "temperature": 1.0, "power": 0.2}, "statistics": "both", "beta": 5.0,
       "attack": {"steps": 3, "optimiser": "steepest"},
       "noise": {"sigma": 0.5, "draws": None, "weight": None, "entropy": 0.25, "eps": 1.0, "steps": 4, "gamma": 4.0,
                 "temperature": 8.0}}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("plain", {}),
        ("adversarial", {"attack": {"steps": 3, "optimizer": "steepest"}}),
        ("trades", {"beta": 5.0, "statistics": "both", "attack": {"steps": 3, "optimizer": "steepest"}}),
        ("hat", {"beta": 5.0, "weight": 0.25, "factor": 3.0, "attack": {"steps": 3, "optimizer": "steepest"}}),
        ("gkl", {"alpha": 1.0, "beta": 2.0, "temperature": 1.0, "power": 0.2,
                 "attack": {"steps": 3, "optimizer": "steepest"}}),
        ("stability", {"sigma": 0.5, "beta": 5.0}),
        ("consistency", {"sigma": 0.5, "draws": 2, "weight": 10.0, "entropy": 0.25}),
        ("smoothadv", {"sigma": 0.5, "eps": 1.0, "steps": 4}),
        ("macer", {"sigma": 0.5, "draws": 16, "weight": 12.0, "gamma": 4.0, "temperature": 8.0}),
    ],
)  # fmt: skip
def test_settings_of_version_0_1_are_read(kind, own):
    """It wrote the settings of all losses beside the loss's name; None was the loss's default."""
    read = training(**OLD, loss=kind, averaging=0.9, averaging_start=0.1)
    assert read.loss == loss_config({"kind": kind, **own})
    assert (read.ema_decay, read.ema_start) == (0.9, 0.1)
    assert training(loss=kind, **{**OLD, "noise": {**OLD["noise"], "draws": 3}}).loss == loss_config(
        {"kind": kind, **own, **({"draws": 3} if "draws" in LOSS_CONFIGS[kind].model_fields else {})}
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "macer", "real_weight": 0.4}, "loss.real_weight"),
        ({"loss": "mart", "aim": "targets"}, "loss.aim"),
        ({"loss": "hat", "helper": {"wieght": 1}}, "loss.wieght"),
        ({"loss": "tradez", "beta": 5}, "unknown loss 'tradez'"),
        ({"averaging": 0.9, "ema_decay": 0.9}, "averaging"),
    ],
)
def test_what_version_0_1_refused_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        training(**settings)


def test_dotted_names_of_version_0_1_are_taken(tmp_path):
    old = ["train.beta=5", "train.attack.optimiser=steepest", "train.statistics=both", "train.averaging=0.9"]
    new = ["train.loss.beta=5", "train.loss.attack.optimizer=steepest", "train.loss.statistics=both",
           "train.ema_decay=0.9"]  # fmt: skip
    assert override(DIGITS, old) == override(DIGITS, new)
    assert override(DIGITS, ["train.loss=hat", "train.helper.weight=1"]).train.loss == HATConfig(weight=1)
    assert override(DIGITS, ["train.noise.sigma=1", "train.loss=stability"]).train.loss == StabilityConfig(sigma=1)
    path = tmp_path / "mine.yaml"
    for text in (
        "base: digits\ntrain: {beta: 5, loss: hat, attack: {steps: 3}, helper: {weight: 1}, averaging: 0.9}",
        "base: digits\ntrain: {loss: {beta: 5, kind: hat, attack: {steps: 3}, weight: 1}, ema_decay: 0.9}",
    ):
        path.write_text(text)
        train = read_recipe(path, RECIPES).train
        assert train.loss == HATConfig(beta=5, weight=1, attack={"steps": 3}) and train.ema_decay == 0.9
    path.write_text("base: digits\ntrain: {noise: {sigma: 1}}")
    with pytest.raises(ValueError, match=r"unknown setting train\.loss\.sigma of the loss trades"):
        read_recipe(path, RECIPES)


class FocalConfig(LossConfig):
    kind: Literal["focal"] = "focal"
    gamma: float = 2.0

    PURPOSE = "standard"


@dataclass(frozen=True)
class Focal:
    gamma: float = 2.0

    def __call__(self, model, batch, threat, rng):
        log = F.log_softmax(model(batch.images), 1)
        return -(batch.targets * (1 - log.exp()) ** self.gamma * log).sum(1).mean()


def test_a_registered_loss_passes_through_a_run(monkeypatch, tmp_path):
    monkeypatch.setitem(LOSS_CONFIGS, "focal", FocalConfig)
    monkeypatch.setitem(LOSSES, "focal", Focal)
    recipe = override(scaled(RECIPES["digits-smoke"], "tiny"), ["train.loss=focal", "train.loss.gamma=1"])
    recipe = recipe.model_copy(update={"generators": {}, "arms": {"real": recipe.arms["real"]}, "measure": None})
    assert build_loss(recipe.train) == Focal(1.0) and passes(recipe.train) is None
    check_recipe(recipe)
    run = RunDir(tmp_path / "run")
    run.ensure_recipe(recipe.to_json())
    for stage in stages(recipe, run):
        stage.stage("cpu", lambda *_: None)
        assert stage.finished, stage.name
    about = json.loads((run.classifier("real", 0) / "model.json").read_text())
    assert about["threat"] is None and "focal" in run.report.read_text()


def test_a_run_shows_only_settings_that_do_something(robustgen):
    said = robustgen("show", "digits")[1]
    assert "train.loss.beta" in said and "labeller.loss.beta" not in said and "sigma" not in said
    assert TRADESConfig().passes() == 27
