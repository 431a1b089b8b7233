"""What the families promise: the page to read first.

Tensors: images are (N, C, H, W) float32 in [0, 1]; logits are (N, K); normalisation is inside the model.
No base class, no registration: whoever behaves like this is a member, and `tests/test_every_<family>.py`
checks it for everything named in the family's dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from robustgen.checkpoints import Stateful
from robustgen.fits import Draw
from robustgen.images import DatasetInfo
from robustgen.randomness import Rng
from robustgen.records.closeness import Closeness
from robustgen.records.findings import Findings
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    images     (N, C, H, W) in [0, 1], augmented
    targets    (N, K) probabilities: labels one-hot, smoothed or mixed
    generated  (N,) bool: which images come from a proxy set
    """

    images: Tensor
    targets: Tensor
    generated: Tensor

    def share(self, which: int, of: int) -> Batch:
        """Rows which, which + of, which + 2 * of ...: so each share has its part of the originals, which come first."""
        if of == 1:
            return self
        # Indexing rows of a channels-last batch keeps the layout; a stepped slice alone would be neither.
        rows = torch.arange(which, len(self.images), of, device=self.images.device)
        images = self.images[rows].contiguous(memory_format=torch.channels_last)
        return Batch(images, self.targets[rows], self.generated[rows])


class Progress(Protocol):
    """Told how far a stage is; draws a bar, or says nothing."""

    def __call__(self, done: int, total: int, unit: str, note: str = "") -> None: ...


def silent(done: int, total: int, unit: str, note: str = "") -> None:
    """The `Progress` that says nothing."""


class Attack(Protocol):
    """Finds images within the threat model that its objective likes better.

    `targets` is what the objective compares logits with: labels (N,), probabilities (N, K), or pairs
    (N, 2) of label and class aimed at. The model is used in the mode it is in; its parameters and their
    gradients are left alone. The result is allowed by the threat model and carries no graph.

    An attack may also have `search`, with the same arguments: it returns `attacks.gradients.Found`, the same images
    and the step at which each was found, which a cascade writes down.
    """

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng) -> Tensor: ...


class ManyRuns(Protocol):
    """An attack of several runs, each from another start or at another class.

    Calling it makes all of them, leaving out images that fell before; a cascade makes them one by one, to
    drop images, count and resume between them.
    """

    def runs(self, classes: int) -> int:
        """How many runs against a model of that many classes."""
        ...

    def attack_in(self, run: int) -> Attack:
        """The attack that a run makes."""
        ...

    def aims(self, run: int, clean_logits: Tensor, labels: Tensor) -> Tensor:
        """The targets of one run."""
        ...


class Loss(Protocol):
    """One training step's scalar, with whatever inner attack it needs; gradients reach the parameters.

    A loss that changes as training goes on also has `at(share)`: the loss for the step that completes this share of
    the training, 0 to 1. It is a loss like any other, at the end of its training as it stands.
    """

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor: ...


class Augment(Protocol):
    """Images (N, C, H, W) in [0, 1] and targets (N, K), varied; one draw per image."""

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]: ...


class GenerativeModel(Protocol):
    """Makes images of asked classes.

    `sample` takes labels (N,) and one stream per image, and returns images in [0, 1]. An image depends on
    its label and its stream alone, not on its batch. `draw_by` says how; it returns what a manifest tells of it.
    """

    classes: int
    shape: tuple[int, int, int]

    def sample(self, labels: Tensor, rng: Rng) -> Tensor: ...
    def draw_by(self, draw: Draw, guide: nn.Module | None = None) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Learner:
    """Parameters and the optimiser that moves them.

    optimiser   its learning rate is the peak; the driver scales it by the schedule
    clip        the gradient's length at most; as it is when not given
    skip_above  no step where the gradient is longer, or where it or the loss is not a number
    """

    optimiser: Optimizer
    clip: float | None = None
    skip_above: float | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimiser.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class Move:
    """One step of one learner within a training step.

    learner  whose: a name among the lesson's
    loss     of images (N, C, H, W) in [0, 1], labels (N,), a stream, and the share of the training done, to a scalar
    repeats  how often in a training step, each time on fresh images
    every    only in every so-manieth training step
    """

    learner: str
    loss: Callable[[Tensor, Tensor, Rng, float], Tensor]
    repeats: int = 1
    every: int = 1


@dataclass(frozen=True)
class Lesson:
    """What the training driver asks of a generative model; its method `lesson(fit, rng)` makes one.

    learners         by name
    moves            by the name under which their losses are recorded, in the order in which they are made
    rivals           what else training changes and a checkpoint must hold: a discriminator, an augmentation's strength
    after            told after each step how many images it took
    average_buffers  whether running statistics are averaged with the weights, or taken as they are
    finish           what is done to the averaged model at the end
    """

    learners: dict[str, Learner]
    moves: dict[str, Move]
    rivals: dict[str, Stateful] = field(default_factory=dict)
    after: Callable[[int], None] = lambda images: None
    average_buffers: bool = False
    finish: Callable[[nn.Module, Rng], None] = lambda model, rng: None


@dataclass(frozen=True)
class Subject:
    """What an analysis looks at.

    model     images (N, C, H, W) in [0, 1] to logits (N, K); used in evaluation mode and left as found
    images    float32 in [0, 1], on the model's device
    labels    (N,) integers in [0, K)
    threat    norm and radius
    made_for  which classifier: a digest of its weights, or nothing; findings of another are not taken up
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    made_for: str = ""


class Analysis(Protocol):
    """Looks at a subject and leaves findings: arrays with one row an image, a table, red flags.

    Its settings are fields. Findings are saved to `path` as they come and taken up from there; finished ones are
    returned as they are, those of something else are refused. Neither the batch size nor the order of the images
    changes an image's rows, and equal input gives equal bytes.
    """

    def __call__(
        self,
        subject: Subject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> Findings: ...


@dataclass(frozen=True)
class ProxySubject:
    """What an analysis of generated images looks at. Images are (N, C, H, W), uint8 or float32 in [0, 1].

    info       of the data set
    threat     its norm is that of all distances; its radius is where one is needed
    train      real images that a discriminator may learn from, such as those that the generator has learnt from
    test       real images held out from the generator and from every network
    generated  images, whether kept or not
    labeller   the standard classifier that labels generated images, for those that ask for it
    model      the classifier whose robustness is carried over, for those that ask for it
    """

    info: DatasetInfo
    threat: ThreatModel
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    generated: Tensor
    generated_labels: Tensor
    labeller: nn.Module | None = None
    model: nn.Module | None = None


class ProxyAnalysis(Protocol):
    """Looks at generated images beside real ones and leaves a record: rows, a table, red flags.

    Its settings are fields. The record is saved to `path` as it comes and taken up from there; a finished one is
    returned as it is, one of other images, networks, settings or seed is refused. The batch size changes no row, and
    equal input gives equal bytes.
    """

    def __call__(
        self,
        subject: ProxySubject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> Closeness: ...
