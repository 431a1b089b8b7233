"""Train a classifier, robust or standard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from robustgen.config.losses import HATConfig, SmoothedConfig
from robustgen.config.recipe import Arm, DataConfig, ThreatConfig
from robustgen.config.training import TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustgen.contracts import Progress
    from robustgen.images import ImageSet
    from robustgen.training.classifier import Validate

from robustgen.stages.common import load_data, threat_model


@dataclass(frozen=True)
class Train:
    """Train one classifier into a folder.

    sources     folders of the proxy sets to mix in
    track       trackers that also receive the curves: tensorboard, wandb
    fit_memory  divide a step's batch into as many passes as fit the GPU
    """

    config: TrainingConfig
    data: DataConfig
    threat: ThreatConfig
    sources: Arm
    folder: Path
    seed: int
    track: tuple[str, ...] = ()
    fit_memory: bool = False

    shared: ClassVar[bool] = True

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.augment import build_augmentation
        from robustgen.losses.building import build_loss
        from robustgen.models import build_model
        from robustgen.models.saved import keep_source, save_classifier
        from robustgen.modes import channels_last
        from robustgen.randomness import rng_for
        from robustgen.runtime.distributed import place, wait_for_all
        from robustgen.training.classifier import train_classifier
        from robustgen.training.mixing import Mixture, phase_plans
        from robustgen.training.validation import VALIDATION_ATTACKS, noisy_validator, robust_validator

        settings, folder, seed = self._fitting(device), self.folder, self.seed
        splits = load_data(self.data)
        info = splits.train.info
        self._check_standard_classifier(splits.train)
        seen = info if settings.normalize else info.unnormalized()
        source = keep_source(folder, settings.architecture)
        model = build_model(settings.architecture, seen, rng_for(seed, "initialise"), source)
        model = channels_last(model).to(device)
        self._check_network(model, splits.train, device)
        mixture = Mixture(
            splits.train,
            phase_plans(self.sources, settings),
            batch_size=settings.schedule.batch_size,
            repeats=settings.repeats,
            order=settings.generated_order,
            smoothing=settings.smoothing,
            smooth=settings.smooth,
            augment=build_augmentation(settings.augment),
            seed=seed,
            device=device,
        )
        adversary = threat_model(self.threat)
        sigma = settings.loss.sigma if isinstance(settings.loss, SmoothedConfig) else None
        robust = settings.loss.PURPOSE == "robust"
        validate: Validate | None = None
        if len(splits.validation) and sigma is not None:
            validate = noisy_validator(splits.validation, sigma, seed, device)
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
            track=self.track,
        )
        measured = trained.measured
        if place()[0] == 0:
            save_classifier(
                folder,
                trained.model,
                settings.architecture,
                seen,
                threat=str(self.threat) if robust else None,
                sigma=sigma,
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
            f"{'robust' if sigma is None else 'under noise'} {100 * measured.robust.value:.1f} %"
        )

    def _check_network(self, model: nn.Module, train: ImageSet, device: str) -> None:
        """Find out early whether a network that others wrote accepts the training images, and can be attacked."""
        from robustgen.models.foreign import Adapted
        from robustgen.models.sources import check_accepts, check_gradient
        from robustgen.modes import evaluating

        if not isinstance(model, Adapted):
            return
        images = _first_two(train).to(device)
        with evaluating(model):
            check_accepts(model, self.config.architecture, images, len(train.info.classes), more=True)
            if self.config.loss.PURPOSE == "robust":
                check_gradient(model, self.config.architecture, images)

    def _check_standard_classifier(self, train: ImageSet) -> None:
        """Find out early whether the standard classifier of HAT accepts the training images."""
        loss = self.config.loss
        if not isinstance(loss, HATConfig) or loss.standard is None:
            return
        from robustgen.models.saved import load_classifier
        from robustgen.models.sources import check_accepts

        check_accepts(load_classifier(Path(loss.standard)), loss.standard, _first_two(train))

    def _fitting(self, device: str) -> TrainingConfig:
        """The configuration, with as many passes per step as needed to fit the batch on a GPU if `fit_memory`."""
        if not self.fit_memory:
            return self.config
        from robustgen.losses.building import build_loss
        from robustgen.runtime.distributed import place
        from robustgen.training.memory import passes_that_fit

        if device == "cpu":
            if place()[0] == 0:
                print("--batch auto only works on GPUs; on a CPU the recipe's batch is used")
            return self.config
        info = load_data(self.data).train.info
        loss, threat = build_loss(self.config), threat_model(self.threat)
        passes = passes_that_fit(self.config, info, loss, threat, self.folder, device)
        return self.config.model_copy(update={"accumulate": passes})


def _first_two(images: ImageSet) -> Tensor:
    import numpy as np

    from robustgen.images import to_unit

    return to_unit(images.take(np.arange(2)).pixels())
