"""What a generative model offers: sampling, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from robustgen.config.generators import SamplerConfig
from robustgen.randomness import Rng
from robustgen.storage.checkpoints import Stateful


class GenerativeModel(Protocol):
    """Makes images of asked classes.

    `sample` takes labels (N,) and one stream per image, and returns images in [0, 1]. An image depends on
    its label and its stream alone, not on its batch. `configure_sampler` sets how images are
    drawn, and returns what a manifest records of it.
    """

    classes: int
    shape: tuple[int, int, int]

    def sample(self, labels: Tensor, rng: Rng) -> Tensor: ...
    def configure_sampler(self, draw: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Optimization:
    """Parameters and the optimiser that moves them.

    optimiser   its learning rate is the peak; the driver scales it by the schedule
    clip        the gradient's length at most; as it is when not given
    skip_above  no step where the gradient is longer, or where it or the loss is not a number
    """

    optimizer: Optimizer
    clip: float | None = None
    skip_above: float | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class LossTerm:
    """One step of one learner within a training step.

    learner  whose: a name among the lesson's
    loss     of images (N, C, H, W) in [0, 1], labels (N,), a stream, and the share of the training done, to a scalar
    repeats  how often in a training step, each time on fresh images
    every    only in every so-manieth training step
    """

    optimization: str
    loss: Callable[[Tensor, Tensor, Rng, float], Tensor]
    repeats: int = 1
    every: int = 1


@dataclass(frozen=True)
class TrainingSpec:
    """What the training driver asks of a generative model; its method `training_spec(fit, rng)` makes one.

    learners         by name
    moves            by the name under which their losses are recorded, in the order in which they are made
    rivals           what else training changes and a checkpoint must hold: a discriminator, an augmentation's strength
    after            told after each step how many images it took
    average_buffers  whether running statistics are averaged with the weights, or taken as they are
    finish           what is done to the averaged model at the end
    """

    optimizations: dict[str, Optimization]
    loss_terms: dict[str, LossTerm]
    extra_state: dict[str, Stateful] = field(default_factory=dict)
    after: Callable[[int], None] = lambda images: None
    average_buffers: bool = False
    finish: Callable[[nn.Module, Rng], None] = lambda model, rng: None
