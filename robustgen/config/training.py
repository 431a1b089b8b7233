"""Settings of the training of a classifier. Plain data: no torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import field_validator, model_validator

from robustgen.config.base import Config, Count, Fraction01, NotNegative, Positive, Precision, TrainingBudget
from robustgen.config.losses import AnyLossConfig, TRADESConfig, from_flat

EPOCH_IMAGES = 50_000
"""Images of a CIFAR-10-equivalent epoch, the papers' unit for any dataset."""


class ScheduleConfig(TrainingBudget):
    """Length of the training and its learning rate. Counts are in training images, not steps or epochs."""

    total_images: Count
    """Number of real and generated images seen in training. Or "400 epochs" of 50,000 images for any dataset, as the
    papers count them, rounded down to whole steps."""
    batch_size: Count
    """Images per step."""
    peak_lr: Positive
    """Peak learning rate. The official rule is 0.1 * batch_size / 256, at least 0.1."""
    warmup: Fraction01 = 0.025
    """Share of the run with linear warm-up of the learning rate, per step."""
    decay: Literal["cosine", "step", "one-cycle"] = "cosine"
    """cosine: to 0. step: a tenth after two thirds of the run. one-cycle: as in the PyTorch ports, cosines from 1/25 of
    the peak to the peak and then to almost 0, with momentum from 0.95 to 0.85 and back."""

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
            raise ValueError(f"total_images {value['total_images']!r} needs a batch_size of at least 1, got {batch!r}")
        return {**value, "total_images": int(float(found[1]) * EPOCH_IMAGES) // batch * batch}


class TrainingConfig(Config):
    """How a classifier is trained. The defaults are those of the official code (arXiv:2103.01946, 2110.09468)."""

    architecture: str = "wrn-28-10"
    """A built-in network (`robustgen list architectures`), or one of your own: FILE.py:NAME, PACKAGE.MODULE:NAME,
    timm:NAME, hf:FOLDER."""
    normalize: bool = True
    """Normalize inputs by (images - mean) / std, with mean and std of the training images."""
    loss: AnyLossConfig = TRADESConfig()
    """See `robustgen list losses`; a name alone means the loss's defaults."""
    awp: NotNegative = 0.0
    """Adversarial weight perturbation (AWP): length as a share of the norm of each layer's weights, 0.005 in the paper;
    0 for none."""
    awp_warmup: Fraction01 = 0.05
    """Share of the training, at its start, without AWP."""
    schedule: ScheduleConfig
    momentum: Fraction01 = 0.9
    """Nesterov momentum of SGD."""
    weight_decay: NotNegative = 5e-4
    """Weight decay of convolutions and linear layers; batch norms have none."""
    ema_decay: Fraction01 = 0.995
    """Decay of the exponential moving average (EMA) of weights, with a warm-up: min(ema_decay, (1 + t) / (10 + t)).
    0: no EMA."""
    ema_start: Fraction01 = 0.0
    """Share of the run after which the EMA and its warm-up start; before, it is a copy of the weights. 0.025 in the
    PyTorch ports."""
    accumulate: Count = 1
    """Gradient accumulation: number of passes per step, each on a part of the batch, for less memory. Batch norms see
    one part at a time. The result equals that of the same number of processes."""
    precision: Precision = "float32"
    """Precision of the training passes: float32, bfloat16 (by autocast), or auto for the faster one on the device.
    Weights, EMA, losses and statistics are always in float32, and so is validation."""
    compile: bool = False
    """Compile the network by torch.compile for training: takes minutes at first, then steps are faster on a GPU."""
    batch_norms: Literal["process", "all"] = "process"
    """Under torchrun: whether batch norms see the images of their own process (official) or of all processes."""
    real_share: Fraction01 = 0.3
    """Share of original images in a batch; the rest is generated. Set it to 1 without a proxy set."""
    repeats: Count = 1
    """Copies of each original in its batch, each augmented independently. 4 in the official code, with four workers."""
    generated_order: Literal["shuffled", "replacement"] = "shuffled"
    """Order of generated images: shuffled in every epoch, or drawn with replacement (the PyTorch ports)."""
    smoothing: Fraction01 = 0.1
    """Label smoothing."""
    smooth: Literal["generated", "all", "none"] = "generated"
    """Images whose labels are smoothed: only generated ones (official), all (the PyTorch ports), none."""
    statistics_decay: Fraction01 = 0.99
    """Decay of the running statistics, which are zero-debiased as in Haiku."""
    augment: str = "crop-flip"
    """An augmentation, or several joined by +: see `robustgen list augmentations`."""
    models: Count = 2
    """Number of models trained with different seeds; the best one on the validation images is selected."""
    early_stopping: bool = True
    """Select the weights with the best robust accuracy on the validation images instead of the last ones."""
    validations: Count = 20
    """Number of validations, evenly over the run."""
    validation_steps: Count = 40
    """Steps of the attack on the validation images."""
    validation_attack: Literal["adam-margin", "steepest-margin", "steepest-entropy"] = "adam-margin"
    """adam-margin: the papers' evaluation attack. steepest-margin: steps of eps / 4, as in the PyTorch ports.
    steepest-entropy: such steps on the cross-entropy, measured at the last iterate, as in PORT."""

    RENAMED: ClassVar[Mapping[str, str]] = {"averaging": "ema_decay", "averaging_start": "ema_start"}
    """Names of version 0.1, which files on disk still have, and the current ones."""

    @field_validator("augment", "smooth", mode="before")
    @classmethod
    def _none_is_a_name(cls, value: object) -> object:
        """`--set train.augment=none` arrives as None."""
        return "none" if value is None else value

    @model_validator(mode="before")
    @classmethod
    def _from_older_names(cls, value: object) -> object:
        """Version 0.1 wrote the settings of all losses next to the loss's name, and `averaging`."""
        if not isinstance(value, Mapping):
            return value
        names = {name: cls.RENAMED.get(name, name) for name in value}
        return from_flat({name if new in value else new: value[name] for name, new in names.items()})
