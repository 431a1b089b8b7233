"""What the verbs that fit and train do: settings and folders in, files and a sentence out. torch is imported late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.fits import Fit, Generator
from robustgen.recipe import Arm, Data, Threat
from robustgen.trainings import AIMING_LOSSES, NOISE_LOSSES, Training

if TYPE_CHECKING:
    from torch import nn

    from robustgen.contracts import Attack, Loss, Progress
    from robustgen.threat import ThreatModel
    from robustgen.training.classifier import Validate


def fit(
    settings: Generator,
    data: Data,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
    base: Path | None = None,
) -> str:
    """Fit one generative model to the training images alone; `base` is the finished one that it starts from."""
    from robustgen.distributed import place, wait_for_all
    from robustgen.generators import Augmented, Gaussian, build_generator, save_generator
    from robustgen.modes import channels_last
    from robustgen.randomness import rng_for
    from robustgen.training.generator import train_generator

    images = load_data(data).train
    model = build_generator(settings, images.info, rng_for(seed, "initialise generator"))
    if base is not None:
        _start_from(model, base)
    fitted: nn.Module = model
    if isinstance(settings, Fit):
        fitted = train_generator(
            channels_last(model).to(device), images, settings, folder, seed=seed, device=device, progress=progress
        )
        sentence = f"trained {settings.steps} steps"
    else:
        assert isinstance(model, Gaussian | Augmented)
        sentence = model.fit(images)
    if place()[0] == 0:
        saved: Any = fitted
        save_generator(folder, saved, settings, images.info, seed=seed, images=len(images))
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    wait_for_all()
    return sentence


def _start_from(model: Any, base: Path) -> None:
    """Give a generator the weights of another of the same network.

    Raises:
        ValueError: not finished, or another network.
    """
    from robustgen.checkpoints import load_weights
    from robustgen.generators import load_generator

    _, about = load_generator(base)
    try:
        load_weights(base / "weights.safetensors", model)
    except ValueError as error:
        raise ValueError(f"a generator of kind {about['settings']['kind']} cannot be its base: {error}") from None


def train(
    settings: Training,
    data: Data,
    threat: Threat,
    sources: Arm,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
    track: Sequence[str] = (),
) -> str:
    """Train one classifier into a folder, on real images and those of the proxy sets whose folders `sources` names."""
    from robustgen.augment import build_augmentation
    from robustgen.distributed import place, wait_for_all
    from robustgen.models import build_model
    from robustgen.models.saved import save_classifier
    from robustgen.modes import channels_last
    from robustgen.randomness import rng_for
    from robustgen.training.classifier import train_classifier
    from robustgen.training.mixing import Mixture, stretches_of
    from robustgen.training.validation import VALIDATION_ATTACKS, noisy_validator, robust_validator

    splits = load_data(data)
    info = splits.train.info
    model = channels_last(build_model(settings.architecture, info, rng_for(seed, "initialise"))).to(device)
    mixture = Mixture(
        splits.train,
        stretches_of(sources, settings),
        batch_size=settings.schedule.batch_size,
        repeats=settings.repeats,
        order=settings.generated_order,
        smoothing=settings.smoothing,
        smooth=settings.smooth,
        augment=build_augmentation(settings.augment),
        seed=seed,
        device=device,
    )
    adversary = threat_model(threat)
    noisy = settings.loss in NOISE_LOSSES
    robust = settings.loss != "plain" and not noisy
    validate: Validate | None = None
    if len(splits.validation) and noisy:
        validate = noisy_validator(splits.validation, settings.noise.sigma, seed, device)
    elif len(splits.validation) and robust:
        attack = VALIDATION_ATTACKS[settings.validation_attack](settings.validation_steps)
        validate = robust_validator(splits.validation, adversary, attack, seed, device)
    trained = train_classifier(
        model,
        mixture,
        build_loss(settings),
        adversary,
        settings,
        folder,
        seed=seed,
        validate=validate,
        progress=progress,
        track=track,
    )
    measured = trained.measured
    if place()[0] == 0:
        save_classifier(
            folder,
            trained.model,
            settings.architecture,
            info,
            threat=str(threat) if robust else None,
            sigma=settings.noise.sigma if noisy else None,
            seed=seed,
            step=trained.step,
            validation=None
            if measured is None
            else {
                "clean": [measured.clean.count, measured.clean.total],
                "robust": [measured.robust.count, measured.robust.total],
            },
        )
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    wait_for_all()
    if measured is None:
        return f"trained {settings.schedule.steps} steps"
    return (
        f"best at step {trained.step}: validation clean {100 * measured.clean.value:.1f} %, "
        f"{'under noise' if noisy else 'robust'} {100 * measured.robust.value:.1f} %"
    )


def fitting_passes(settings: Training, data: Data, threat: Threat, folder: Path, device: str) -> Training:
    """The settings with as many passes a step as make its batch fit a GPU (`training.memory.passes_that_fit`)."""
    from robustgen.distributed import place
    from robustgen.training.memory import passes_that_fit

    if device == "cpu":
        if place()[0] == 0:
            print("--batch auto is for GPUs; on a CPU the recipe's batch is used")
        return settings
    info = load_data(data).train.info
    passes = passes_that_fit(settings, info, build_loss(settings), threat_model(threat), folder, device)
    return settings.model_copy(update={"accumulate": passes})


def load_data(data: Data) -> Any:
    """The splits of a recipe's images."""
    from robustgen.datasets import load_splits

    return load_splits(data)


def preview(images: Any, labels: Any, classes: int, each: int = 10) -> dict[str, Any]:
    """The first `each` images of each class, class after class, with their labels."""
    import numpy as np

    rows = np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(classes)])
    return {"images": images[rows], "labels": labels[rows]}


def threat_model(threat: Threat) -> ThreatModel:
    from robustgen.threat import ThreatModel

    return ThreatModel(threat.norm, threat.eps)


def images_in_a_pass(shape: tuple[int, int, int], device: str) -> int:
    """How many images go through a network together: on a CPU what its caches hold, on a GPU what fills it."""
    pixels = shape[1] * shape[2]
    return max(16, 2**16 // pixels if device == "cpu" else 2**20 // pixels)


def build_loss(settings: Training) -> Loss:
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


def _inner_attack(settings: Training) -> Attack:
    """The attack of a robust loss, on the objective that it is for."""
    from robustgen.attacks import PGD, official_training_attack
    from robustgen.attacks.pgd import NEAR_START
    from robustgen.losses import NFGSM
    from robustgen.losses.score import squared_error
    from robustgen.objectives import cross_entropy, kl_divergence

    objectives = {"adversarial": cross_entropy, "mart": cross_entropy, "score": squared_error}
    objective, inner = objectives.get(settings.loss, kl_divergence), settings.attack
    if inner.optimiser == "n-fgsm":
        return NFGSM(objective=objective)
    steepest = PGD(inner.steps, inner.step_size, objective=objective)
    attack = official_training_attack(inner.steps, objective) if inner.optimiser == "adam" else steepest
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


def _noise_settings(settings: Training) -> dict[str, Any]:
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
