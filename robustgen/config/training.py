"""What the training of a classifier is told. Plain data: no torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import model_validator

from robustgen.config.base import Config, Count, Fraction01, NotNegative, Positive, TrainingBudget
from robustgen.config.losses import AnyLossConfig, TRADESConfig, from_flat

EPOCH_IMAGES = 50_000
"""Images of a CIFAR-10-equivalent epoch, in which the papers count, whatever the images are."""


class ScheduleConfig(TrainingBudget):
    """How long to train and how fast to move. Counts are in training images, not steps or epochs."""

    total_images: Count
    """Images seen, real and generated together; or "400 epochs", of 50,000 images whatever the data, as papers count:
    whole steps of the batch, no more."""
    batch_size: Count
    """Images per step."""
    peak_lr: Positive
    """The official rule is 0.1 * batch_size / 256, at least 0.1."""
    warmup: Fraction01 = 0.025
    """Share of the run spent rising to `peak_lr`, a step at a time."""
    decay: Literal["cosine", "step", "one-cycle"] = "cosine"
    """cosine: to 0. step: a tenth, from two thirds of the run on. one-cycle: the ports', from a 25th over the peak to
    almost 0, in cosines; momentum goes from 0.95 to 0.85 and back."""

    @model_validator(mode="before")
    @classmethod
    def _from_epochs(cls, value: object) -> object:
        if not isinstance(value, dict) or not isinstance(value.get("total_images"), str):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*epochs?\s*", value["total_images"])
        if found is None:
            return value
        batch = value.get("batch_size")
        if not isinstance(batch, int) or batch < 1:
            raise ValueError(f"{value['total_images']} need a batch_size to make whole steps of, got {batch!r}")
        return {**value, "total_images": int(float(found[1]) * EPOCH_IMAGES) // batch * batch}


class TrainingConfig(Config):
    """How a classifier is trained. The defaults are the official code's (arXiv:2103.01946, 2110.09468)."""

    architecture: str = "wrn-28-10"
    """A built-in network (`robustgen list architectures`), or one of your own: FILE.py:NAME, PACKAGE.MODULE:NAME,
    timm:NAME, hf:FOLDER."""
    normalize: bool = True
    """Put (images - mean) / std of the training images in front of the network."""
    loss: AnyLossConfig = TRADESConfig()
    """See `robustgen list losses`; a name alone means the loss's defaults."""
    awp: NotNegative = 0.0
    """Adversarial weight perturbation around the loss: length as a share of each layer's weights, 0.005 in the paper;
    0 for none."""
    awp_warmup: Fraction01 = 0.05
    """Share of the training without it."""
    schedule: ScheduleConfig
    momentum: Fraction01 = 0.9
    """Of SGD, Nesterov's."""
    weight_decay: NotNegative = 5e-4
    """Of convolutions and the linear layer; batch norms are left out."""
    ema_decay: Fraction01 = 0.995
    """Decay of the exponential moving average (EMA) of weights, with a warm-up: min(ema_decay, (1 + t) / (10 + t)).
    0: no average."""
    ema_start: Fraction01 = 0.0
    """Share of the run before which the average is a copy of the weights; the warm-up begins there. 0.025 in the
    PyTorch ports."""
    accumulate: Count = 1
    """Passes a step: the batch in so many parts, their gradients added up, for less memory. Batch norms see a part at
    a time. Equal to as many processes."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the passes while training; bfloat16 by autocast. Evaluation is always in float32."""
    compile: bool = False
    """Compile the network by torch.compile for the steps: minutes at first, then faster on a GPU."""
    batch_norms: Literal["process", "all"] = "process"
    """Under torchrun: whether batch norms see the images of their own process (official) or of all processes."""
    real_share: Fraction01 = 0.3
    """Original images in a batch, of all; the rest is generated. 1 without a proxy set."""
    repeats: Count = 1
    """How often each original stands in its batch, augmented anew; 4 is the official code's, of four workers."""
    generated_order: Literal["shuffled", "replacement"] = "shuffled"
    """Generated images: each once before any again, or drawn with replacement (the ports)."""
    smoothing: Fraction01 = 0.1
    """Label smoothing."""
    smooth: Literal["generated", "all", "none"] = "generated"
    """Which labels: generated ones alone (official), all (the ports), none."""
    statistics_decay: Fraction01 = 0.99
    """Of the running statistics, which are zero-debiased as Haiku's."""
    augment: str = "crop-flip"
    models: Count = 2
    """How many are trained from other seeds; the one best on the validation images is kept."""
    early_stopping: bool = True
    """Keep the weights that were best on the validation images; else the last."""
    validations: Count = 20
    """How often the validation images are attacked, evenly over the run."""
    validation_steps: Count = 40
    """Steps of that attack."""
    validation_attack: Literal["adam-margin", "steepest-margin", "steepest-entropy"] = "adam-margin"
    """adam-margin: the papers' evaluation attack. steepest-margin: steps of a quarter of eps, the ports'.
    steepest-entropy: such steps on the cross-entropy, and the last iterate, PORT's."""

    RENAMED: ClassVar[Mapping[str, str]] = {"averaging": "ema_decay", "averaging_start": "ema_start"}
    """Names of version 0.1, which files on disk still have, and today's."""

    @model_validator(mode="before")
    @classmethod
    def _from_older_names(cls, value: object) -> object:
        """Version 0.1 wrote the settings of all losses beside the loss's name, and `averaging`."""
        if not isinstance(value, Mapping):
            return value
        names = {name: cls.RENAMED.get(name, name) for name in value}
        return from_flat({name if new in value else new: value[name] for name, new in names.items()})
