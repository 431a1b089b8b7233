"""Fit a generative model to the training images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.config.generator_base import GeneratorConfig, TrainedGeneratorConfig
from robustgen.config.generators import CustomConfig
from robustgen.config.recipe import DataConfig
from robustgen.stages.common import load_data

if TYPE_CHECKING:
    from torch import nn

    from robustgen.contracts import Progress
    from robustgen.images import ImageSet


@dataclass(frozen=True)
class Fit:
    """Train one generative model on the training images only; `base` is a finished generator to initialize from."""

    config: GeneratorConfig
    data: DataConfig
    folder: Path
    seed: int
    base: Path | None = None

    @property
    def shared(self) -> bool:
        """Only gradient steps are shared; a formula is evaluated in one process."""
        return isinstance(self.config, TrainedGeneratorConfig)

    def __call__(self, device: str, progress: Progress) -> str:
        from robustgen.generators import build_generator, save_generator
        from robustgen.modes import channels_last
        from robustgen.randomness import rng_for
        from robustgen.runtime.distributed import place, wait_for_all
        from robustgen.training.generator import train_generator

        config, folder, seed = self.config, self.folder, self.seed
        images = load_data(self.data).train
        if isinstance(config, CustomConfig):
            return _adopted(config, images, folder, seed, device)
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


def _adopted(config: CustomConfig, images: ImageSet, folder: Path, seed: int, device: str) -> str:
    """Keep a generator that is not fitted here: the user's own code, or a finished folder.

    Raises:
        ValueError: it makes other images or has other classes than the data, or breaks a generator's contract.
    """
    from robustgen.generators import finished_folder, read_generator, save_generator
    from robustgen.generators.custom import GENERATOR_SOURCE, Custom, reference_of
    from robustgen.generators.published import read_published
    from robustgen.randomness import rng_for
    from robustgen.runtime.distributed import place, wait_for_all
    from robustgen.storage.files import atomic_write, read_json, write_json
    from robustgen.storage.references import keep_copy

    info, found = images.info, finished_folder(config)
    if place()[0] != 0:
        wait_for_all()
        return "kept"
    if found is None:
        kept = keep_copy(reference_of(config), folder / GENERATOR_SOURCE)
        model = Custom.from_source(config, info, rng_for(seed, "initialise generator"), kept)
        sentence = model.to(device).fit(images)
        save_generator(folder, model, config, info, seed=seed)
    else:
        finished, _ = read_generator(found)
        conditional = getattr(finished, "conditional", True)
        if finished.shape != info.shape or (conditional and finished.classes != len(info.classes)):
            classes = f"{finished.classes} classes" if conditional else "no classes"
            raise ValueError(
                f"{found} makes images of shape {finished.shape} of {classes}; {info.name} has {info.shape} of "
                f"{len(info.classes)} classes"
            )
        if (found / "generator.json").exists():
            for name in ("weights.safetensors", GENERATOR_SOURCE):
                if (found / name).exists():
                    with atomic_write(folder / name) as file:
                        file.write((found / name).read_bytes())
            about = {**read_json(found / "generator.json"), "classes": list(info.classes), "taken_from": str(found)}
            write_json(folder / "generator.json", about)
        else:
            opened = read_published(found, info.classes)
            save_generator(folder, opened.model, opened.config, info, taken_from=str(found))
        sentence = f"taken from {found}"
    wait_for_all()
    return sentence


def _start_from(model: Any, base: Path) -> None:
    """Initialize a generator with the weights of another one of the same network.

    Raises:
        ValueError: the other generator is not finished, or has another network.
    """
    from robustgen.generators import read_generator
    from robustgen.storage.weights import load_weights

    _, about = read_generator(base)
    try:
        load_weights(model, base / "weights.safetensors")
    except ValueError as error:
        raise ValueError(f"a generator of kind {about['settings']['kind']} cannot be its base: {error}") from None
