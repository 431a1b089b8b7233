"""Build the loss of a training configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.config.training import AIMING_LOSSES, NOISE_LOSSES, TrainingConfig

if TYPE_CHECKING:
    from torch import nn

    from robustgen.contracts import Attack, Loss


def build_loss(settings: TrainingConfig) -> Loss:
    """The loss of a recipe's settings with its inner attack, and what is put around it.

    Raises:
        ValueError: hat without a standard classifier, or one that is not finished.
    """
    from robustgen.augment import build_augmentation, mixes_labels
    from robustgen.losses import AWP, LOSSES, WeakToStrong

    arguments: dict[str, Any] = {} if settings.real_weight is None else {"real_weight": settings.real_weight}
    if settings.loss in NOISE_LOSSES:
        arguments |= _noise_settings(settings)
    elif settings.loss != "plain":
        arguments["attack"] = _inner_attack(settings)
    if settings.loss in ("trades", "mart", "hat", "score"):
        arguments["beta"] = settings.beta
    if settings.loss == "trades":
        arguments["statistics"] = settings.statistics
    if settings.loss in AIMING_LOSSES:
        mixed = settings.aim == "automatic" and mixes_labels(build_augmentation(settings.augment))
        arguments["aim"] = "targets" if mixed or settings.aim == "targets" else "predictions"
    if settings.loss == "hat":
        arguments |= {"weight": settings.helper.weight, "factor": settings.helper.factor}
        arguments["standard"] = _standard_classifier(settings.helper.standard)
    if settings.loss == "gkl":
        arguments |= settings.decoupled.model_dump()
    loss = LOSSES[settings.loss](**arguments)
    if settings.awp:
        loss = AWP(loss, settings.awp, settings.awp_warmup)
    grows = settings.attack.first_steps is not None or settings.attack.first_eps < 1
    if "attack" in arguments and grows:
        return WeakToStrong(loss, settings.attack.first_steps, settings.attack.first_eps)
    return loss


def _inner_attack(settings: TrainingConfig) -> Attack:
    """The attack of a robust loss, on the objective that it is for."""
    from robustgen.attacks import PGD, official_training_attack
    from robustgen.attacks.pgd import NEAR_START
    from robustgen.losses import NFGSM
    from robustgen.losses.score import squared_error
    from robustgen.objectives import cross_entropy, kl_divergence

    objectives = {"adversarial": cross_entropy, "mart": cross_entropy, "score": squared_error}
    objective, inner = objectives.get(settings.loss, kl_divergence), settings.attack
    if inner.optimizer == "n-fgsm":
        return NFGSM(objective=objective)
    steepest = PGD(inner.steps, inner.step_size, objective=objective)
    attack = official_training_attack(inner.steps, objective) if inner.optimizer == "adam" else steepest
    deviation = NEAR_START if inner.start == "normal" else None
    return replace(attack, deviation=deviation, mode="as-is" if inner.mode == "train" else inner.mode)


def _standard_classifier(folder: str | None) -> nn.Module:
    """The classifier that labels HAT's helper images."""
    from robustgen.models.saved import load_classifier

    if folder is None:
        raise ValueError(
            "the loss hat needs a standard classifier: robustgen train --plain --into models/labeller, then "
            "--set train.helper.standard=models/labeller"
        )
    return load_classifier(Path(folder)).requires_grad_(False)


def _noise_settings(settings: TrainingConfig) -> dict[str, Any]:
    """The arguments of a loss under noise; what is not given is left to the loss."""
    noise = settings.noise
    own: dict[str, dict[str, Any]] = {
        "gaussian-noise": {"draws": noise.draws},
        "stability": {"beta": settings.beta},
        "consistency": {"draws": noise.draws, "weight": noise.weight, "entropy": noise.entropy},
        "smoothadv": {"draws": noise.draws, "eps": noise.eps, "steps": noise.steps},
        "macer": {
            "draws": noise.draws, "weight": noise.weight, "gamma": noise.gamma, "temperature": noise.temperature,
        },
    }  # fmt: skip
    given = {name: value for name, value in own[settings.loss].items() if value is not None}
    return {"sigma": noise.sigma, **given}
