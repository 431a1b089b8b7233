"""Build the loss of a training configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.config.losses import InnerAttackConfig
from robustgen.config.training import TrainingConfig

if TYPE_CHECKING:
    from torch import nn

    from robustgen.contracts import Attack, Loss
    from robustgen.objectives import Objective


def build_loss(settings: TrainingConfig) -> Loss:
    """The loss of a training with its inner attack, wrapped in AWP and an attack schedule if they are configured.

    The arguments of the loss are the fields of its configuration, except for three that describe objects: `attack`
    configures the inner attack, which maximizes the objective of the loss's default attack; `aim` "automatic"
    depends on the augmentation; `standard` is a classifier's folder.

    Raises:
        ValueError: the loss is hat and the standard classifier is missing or not finished.
    """
    from robustgen.augment import build_augmentation, mixes_labels
    from robustgen.losses import AWP, LOSSES, WeakToStrong
    from robustgen.objectives import cross_entropy

    member: Any = LOSSES[settings.loss.kind]
    arguments = {name: value for name, value in settings.loss if name != "kind"}
    inner = arguments.get("attack")
    if isinstance(inner, InnerAttackConfig):
        arguments["attack"] = _inner_attack(inner, getattr(member().attack, "objective", cross_entropy))
    if arguments.get("aim") == "automatic":
        arguments["aim"] = "targets" if mixes_labels(build_augmentation(settings.augment)) else "predictions"
    if "standard" in arguments:
        arguments["standard"] = _standard_classifier(arguments["standard"])
    loss: Loss = member(**arguments)
    if settings.awp:
        loss = AWP(loss, settings.awp, settings.awp_warmup)
    if isinstance(inner, InnerAttackConfig) and (inner.first_steps is not None or inner.first_eps < 1):
        return WeakToStrong(loss, inner.first_steps, inner.first_eps)
    return loss


def _inner_attack(config: InnerAttackConfig, objective: Objective) -> Attack:
    from robustgen.attacks import PGD, official_training_attack
    from robustgen.attacks.pgd import NEAR_START
    from robustgen.losses import NFGSM

    if config.optimizer == "n-fgsm":
        return NFGSM(objective=objective)
    steepest = PGD(config.steps, config.step_size, objective=objective)
    attack = official_training_attack(config.steps, objective) if config.optimizer == "adam" else steepest
    deviation = NEAR_START if config.start == "normal" else None
    return replace(attack, deviation=deviation, mode="as-is" if config.mode == "train" else config.mode)


def _standard_classifier(folder: str | None) -> nn.Module:
    """The classifier that labels the helper examples of HAT."""
    from robustgen.models.saved import load_classifier

    if folder is None:
        raise ValueError(
            "the loss hat needs a standard classifier; run: robustgen train --plain --into models/labeller, then pass "
            "--set train.loss.standard=models/labeller"
        )
    return load_classifier(Path(folder)).requires_grad_(False)
