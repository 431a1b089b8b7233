"""Fit a generative model to the training images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.config.generators import GeneratorConfig, TrainedGeneratorConfig
from robustgen.config.recipe import DataConfig
from robustgen.stages.common import load_data

if TYPE_CHECKING:
    from torch import nn

    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Fit:
    """Train one generative model on the training images only; `base` is a finished generator to initialize from."""

    config: GeneratorConfig
    data: DataConfig
    folder: Path
    seed: int
    base: Path | None = None

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.generators import build_generator, save_generator
        from robustgen.modes import channels_last
        from robustgen.randomness import rng_for
        from robustgen.runtime.distributed import place, wait_for_all
        from robustgen.training.generator import train_generator

        config, folder, seed = self.config, self.folder, self.seed
        images = load_data(self.data).train
        model = build_generator(config, images.info, rng_for(seed, "initialise generator"))
        if self.base is not None:
            _start_from(model, self.base)
        fitted: nn.Module = model
        if isinstance(config, TrainedGeneratorConfig):
            fitted = train_generator(
                channels_last(model).to(device), images, config, folder, seed=seed, device=device, progress=progress
            )
            sentence = f"trained {config.steps} steps"
        else:
            sentence = model.fit(images)
        if place()[0] == 0:
            saved: Any = fitted
            save_generator(folder, saved, config, images.info, seed=seed, images=len(images))
            (folder / "checkpoint.pt").unlink(missing_ok=True)
        wait_for_all()
        return sentence


def _start_from(model: Any, base: Path) -> None:
    """Initialize a generator with the weights of another one of the same network.

    Raises:
        ValueError: the other generator is not finished, or has another network.
    """
    from robustgen.generators import load_generator
    from robustgen.storage.weights import load_weights

    _, about = load_generator(base)
    try:
        load_weights(model, base / "weights.safetensors")
    except ValueError as error:
        raise ValueError(f"a generator of kind {about['settings']['kind']} cannot be its base: {error}") from None
