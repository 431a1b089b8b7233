"""What a generative model offers: sampling, and how it is fitted or trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from robustgen.config.generator_base import GeneratorConfig, TrainedGeneratorConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.images import DatasetInfo, ImageSet
from robustgen.randomness import Rng, rng_for
from robustgen.storage.checkpoints import Stateful
from robustgen.units import show_value


class Generator(nn.Module, ABC):
    """A model of images by class.

    kind     its name in `GENERATORS` and in recipes
    shape    of an image, (C, H, W)
    classes  number of classes

    A member implements `from_config` and `sample`, and either `training_spec` (trained by steps; its settings derive
    from `TrainedGeneratorConfig`) or `fit` (fitted at once). It overrides `configure_sampler` where it has settings of
    its own, and `buffer_sizes` and `resize` where its buffers' shapes depend on the data.
    """

    kind: ClassVar[str]
    shape: tuple[int, int, int]
    classes: int

    @classmethod
    @abstractmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        """The untrained model; parameters are initialized from `rng`."""

    @abstractmethod
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images (N, C, H, W) in [0, 1] of class labels (N,), from one stream per image.

        An image depends on its label and its stream alone, not on its batch. Call in evaluation mode.
        """

    def sample_images(
        self, labels: Tensor | np.ndarray | Sequence[int], seed: int = 0, batch_size: int = 256
    ) -> Tensor:
        """Images (N, C, H, W) in [0, 1] of class labels (N,), on the model's device.

        Image i is image i of `robustgen sample --seed SEED` where its label is the same; there labels are i mod
        `classes`. `batch_size` changes the speed only.
        """
        device = next((tensor.device for tensor in self.state_dict().values()), torch.device("cpu"))
        wanted = torch.as_tensor(labels, dtype=torch.int64).to(device)
        streams = rng_for(seed, "sample", device=device)
        made = [torch.empty(0, *self.shape, device=device)]
        for first in range(0, len(wanted), batch_size):
            rows = wanted[first : first + batch_size]
            made.append(self.sample(rows, streams.each(range(first, first + len(rows)))))
        return torch.cat(made)

    def configure_sampler(self, settings: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]:
        """Set how images are sampled; returns what a manifest records of it. By default nothing can be set.

        `solver`, `evaluations` and `precision` pass: a recipe sets them for all of its generators, whatever they are.

        Raises:
            ValueError: a setting that this kind of generator does not have.
        """
        self.refuse_all_but(settings, "solver", "evaluations")
        return {}

    def refuse_all_but(self, settings: SamplerConfig, *honored: str) -> None:
        """Raise ValueError where a setting other than these is not at its default."""
        passing = (*honored, "precision")
        settings.refuse(self.kind, *(name for name in SamplerConfig.model_fields if name not in passing))

    def training_spec(self, config: TrainedGeneratorConfig, rng: Rng) -> TrainingSpec:
        """How it is trained by steps; what is trained besides it (a discriminator) is initialized from `rng`."""
        # A config and its member disagree, which no setting of a user can cause.
        raise NotImplementedError(f"{self.kind} is not trained by steps")

    def fit(self, images: ImageSet) -> str:
        """Fit it at once to training images; returns a sentence about the result."""
        raise NotImplementedError(f"{self.kind} is trained by steps")  # as above

    def buffer_sizes(self) -> dict[str, int]:
        """Sizes that `fit` has set, as `generator.json` stores them."""
        return {}

    def resize(self, sizes: dict[str, Any]) -> None:
        """Give buffers the sizes that `generator.json` stores, before weights are loaded."""


def stored_size(sizes: Mapping[str, Any], name: str) -> int:
    """One of the sizes that `generator.json` stores. Raises ValueError where it is not there, or not a size."""
    found = sizes.get(name)
    if type(found) is not int or not 0 <= found < 2**31:
        raise ValueError(f"{name} must be a size, got {show_value(found)}")
    return found


@dataclass(frozen=True)
class Optimization:
    """Parameters and the optimizer that updates them.

    optimizer   its learning rate is the peak; the training loop scales it by the schedule
    clip        largest norm of the gradient; not clipped when not given
    skip_above  skip the step where the gradient's norm is larger, or where it or the loss is not finite
    """

    optimizer: Optimizer
    clip: float | None = None
    skip_above: float | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class LossTerm:
    """One optimizer step within a training step.

    optimization  name of the `TrainingSpec`'s optimization that takes the step
    loss          function of images (N, C, H, W) in [0, 1], labels (N,), a stream and the share of the training that is
                  done, to a scalar
    repeats       optimizer steps per training step, each on fresh images
    every         only in every N-th training step
    """

    optimization: str
    loss: Callable[[Tensor, Tensor, Rng, float], Tensor]
    repeats: int = 1
    every: int = 1


@dataclass(frozen=True)
class TrainingSpec:
    """How a generator is trained by steps.

    optimizations    by name
    loss_terms       by the name under which their losses are recorded, in the order in which they are taken
    extra_state      what else training changes and a checkpoint must hold: a discriminator, an augmentation's strength
    after_step       called after each training step with the number of images that it took
    average_buffers  whether the EMA covers running statistics too, or takes them as they are
    finish           called with the averaged model at the end
    """

    optimizations: dict[str, Optimization]
    loss_terms: dict[str, LossTerm]
    extra_state: dict[str, Stateful] = field(default_factory=dict)
    after_step: Callable[[int], None] = lambda images: None
    average_buffers: bool = False
    finish: Callable[[nn.Module, Rng], None] = lambda model, rng: None
