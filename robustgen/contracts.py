"""The interfaces of the families: the page to read first.

Tensors: images are (N, C, H, W) float32 in [0, 1]; logits are (N, K); normalization is inside the model.
No base class and no registration are needed: everything that implements the interface is a member. `robustgen.testing`
has the checks of each interface, and `tests/FAMILY/test_every_MEMBER.py` runs them for all members of a family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Batch:
    """The minibatch of one training step.

    images     (N, C, H, W) in [0, 1], augmented
    targets    (N, K) probabilities: labels one-hot, smoothed or mixed
    generated  (N,) bool: which images come from a proxy set
    """

    images: Tensor
    targets: Tensor
    generated: Tensor

    def share(self, which: int, of: int) -> Batch:
        """Rows which, which + of, which + 2 * of ..., so that originals, which come first, are divided evenly."""
        if of == 1:
            return self
        # Indexing rows of a channels-last batch keeps the layout; a stepped slice alone would be neither.
        rows = torch.arange(which, len(self.images), of, device=self.images.device)
        images = self.images[rows].contiguous(memory_format=torch.channels_last)
        return Batch(images, self.targets[rows], self.generated[rows])


class Progress(Protocol):
    """Receives the progress of a stage, and displays it."""

    def __call__(self, done: int, total: int, unit: str, note: str = "") -> None: ...


def silent(done: int, total: int, unit: str, note: str = "") -> None:
    """The `Progress` that displays nothing."""


class Attack(Protocol):
    """Maximizes its objective over the images within the threat model: adversarial examples.

    `targets` is what the objective compares logits with: labels (N,), probabilities (N, K), or pairs
    (N, 2) of label and class aimed at. The model is used in the mode it is in; its parameters and their
    gradients stay unchanged. The result is within the threat model and carries no graph. Without an `rng` the random
    numbers are those of seed 0.

    An attack may also have `search`, with the same arguments: it returns an `attacks.common.AttackResult`, the same
    images and the step at which each was found, which a cascade writes down.
    """

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor: ...


class MultiRunAttack(Protocol):
    """An attack of several runs, each from another random start or at another target class.

    Calling it makes all runs, each on the images that remain robust; a cascade makes them one by one, to drop images,
    count and resume between them.
    """

    def runs(self, classes: int) -> int:
        """How many runs against a model of that many classes."""
        ...

    def attack_in(self, run: int) -> Attack:
        """The attack that a run makes."""
        ...

    def targets_for(self, run: int, clean_logits: Tensor, labels: Tensor) -> Tensor:
        """The targets of one run."""
        ...


class Loss(Protocol):
    """One training step's scalar, with whatever inner attack it needs; gradients reach the parameters.

    A loss that changes as training goes on also has `at(share)`: the loss for the step that completes this share of
    the training, 0 to 1. Called without `at`, it is the loss of the end of training.
    """

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor: ...


class Augment(Protocol):
    """Images (N, C, H, W) in [0, 1] and targets (N, K), augmented; random numbers are drawn per image."""

    def __call__(self, images: Tensor, targets: Tensor, rng: Rng) -> tuple[Tensor, Tensor]: ...
