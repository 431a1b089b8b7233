"""What the verbs that fit and train do: settings and folders in, files and a sentence out. torch is imported late."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import Arm, DataConfig, ThreatConfig
from robustgen.config.training import NOISE_LOSSES, TrainingConfig

if TYPE_CHECKING:
    from robustgen.contracts import Progress
    from robustgen.training.classifier import Validate

from robustgen.stages.common import load_data, threat_model


def train(
    settings: TrainingConfig,
    data: DataConfig,
    threat: ThreatConfig,
    sources: Arm,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
    track: Sequence[str] = (),
) -> str:
    """Train one classifier into a folder, on real images and those of the proxy sets whose folders `sources` names."""
    from robustgen.augment import build_augmentation
    from robustgen.losses.building import build_loss
    from robustgen.models import build_model
    from robustgen.models.saved import save_classifier
    from robustgen.modes import channels_last
    from robustgen.randomness import rng_for
    from robustgen.runtime.distributed import place, wait_for_all
    from robustgen.training.classifier import train_classifier
    from robustgen.training.mixing import Mixture, phase_plans
    from robustgen.training.validation import VALIDATION_ATTACKS, noisy_validator, robust_validator

    splits = load_data(data)
    info = splits.train.info
    model = channels_last(build_model(settings.architecture, info, rng_for(seed, "initialise"))).to(device)
    mixture = Mixture(
        splits.train,
        phase_plans(sources, settings),
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


def fitting_passes(
    settings: TrainingConfig, data: DataConfig, threat: ThreatConfig, folder: Path, device: str
) -> TrainingConfig:
    """The settings with as many passes a step as make its batch fit a GPU (`training.memory.passes_that_fit`)."""
    from robustgen.losses.building import build_loss
    from robustgen.runtime.distributed import place
    from robustgen.training.memory import passes_that_fit

    if device == "cpu":
        if place()[0] == 0:
            print("--batch auto is for GPUs; on a CPU the recipe's batch is used")
        return settings
    info = load_data(data).train.info
    passes = passes_that_fit(settings, info, build_loss(settings), threat_model(threat), folder, device)
    return settings.model_copy(update={"accumulate": passes})
