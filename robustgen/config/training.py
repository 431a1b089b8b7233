"""What the training of a classifier is told. Plain data: no torch here."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from robustgen.config.base import Config, Count, Fraction01, NotNegative, Number, Positive, TrainingBudget

EPOCH_IMAGES = 50_000
"""Images of a CIFAR-10-equivalent epoch, in which the papers count, whatever the images are."""

NOISE_LOSSES = ("gaussian-noise", "stability", "consistency", "smoothadv", "macer")
"""Losses of a classifier that is to be smoothed: they bring noise, and ignore the threat model."""

AIMING_LOSSES = ("trades", "hat", "score", "gkl")
"""Losses whose attack aims away from the clean predictions, or from mixed labels."""


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


class InnerAttackConfig(Config):
    """The attack inside a robust loss."""

    steps: Count = 10
    optimizer: Literal["adam", "steepest", "n-fgsm"] = "adam"
    """adam: the official code's, 0.1 and then 0.01 at eps 8/255. steepest: steps of `step_size`, the ports'.
    n-fgsm: one step of eps from noise of twice eps, whatever `steps` says; the fastest."""
    step_size: Positive = 0.25
    """For steepest: a step as a share of eps; 0.25 is 2/255 at 8/255."""
    start: Literal["uniform", "normal"] = "uniform"
    """uniform: anywhere in the ball. normal: noise of deviation 0.001 about the image, TRADES's own code's."""
    mode: Literal["train", "eval", "updating"] = "train"
    """Batch norms in the attack's passes. train: by the batch, the running statistics still. eval: by the running
    statistics, TRADES's own code's. updating: by the batch, and the running statistics follow every pass, PORT's."""
    first_steps: Count | None = None
    """Steps in the first part of the training, one more in each further, equal part, up to `steps`; none: `steps`."""
    first_eps: Fraction01 = 1.0
    """Radius at the beginning, as a share of the threat model's, growing evenly to it."""

    @model_validator(mode="before")
    @classmethod
    def _from_older_names(cls, value: object) -> object:
        """Recipes of version 0.1 wrote `optimiser`."""
        if isinstance(value, dict) and "optimiser" in value:
            value = {"optimizer": value["optimiser"], **{k: v for k, v in value.items() if k != "optimiser"}}
        return value

    @model_validator(mode="after")
    def _grows(self) -> InnerAttackConfig:
        if self.first_steps is not None and self.first_steps > self.steps:
            raise ValueError(f"first_steps ({self.first_steps}) must be at most steps ({self.steps})")
        if self.optimizer == "n-fgsm" and self.first_steps is not None:
            raise ValueError("n-fgsm takes one step all along; leave out first_steps")
        if self.optimizer == "n-fgsm" and (self.start, self.mode) != ("uniform", "train"):
            raise ValueError(
                "n-fgsm has a start of its own and leaves batch norms in training; leave out start and mode"
            )
        return self


class HATConfig(Config):
    """HAT: images beyond the ball, labelled by a standard classifier."""

    standard: str | None = None
    """Folder of that classifier, made by `robustgen train --plain`; if not given, in a run, the labeller."""
    weight: NotNegative = 0.5
    """Price of their cross-entropy, gamma in the paper."""
    factor: Annotated[Number, Field(gt=1)] = 2.0
    """How far beyond: 2 is twice as far as the attacked image."""


class GKLConfig(Config):
    """GKL: the two parts of the divergence. The defaults are the paper's code's."""

    alpha: NotNegative = 4.0
    """Price of the cross-entropy between clean and attacked predictions."""
    beta: NotNegative = 20.0
    """Price of the squared differences of logits."""
    temperature: Positive = 4.0
    """Divides the logits behind the first part and behind the weights of the second."""
    power: NotNegative = 1.0
    """Of those weights, the classes' mean predictions; 0.2 with temperature 1 in the paper's other setting."""


class NoiseConfig(Config):
    """Gaussian noise in the losses of a classifier that is to be smoothed. The defaults are the papers'."""

    sigma: Positive = 0.25
    """Standard deviation, in pixels of [0, 1]; that of the certificates."""
    draws: Count | None = None
    """Noisy copies of each image; by default 1, for consistency and smoothadv 2, for macer 16. stability takes 1."""
    weight: NotNegative | None = None
    """Price of the second term, lambda in the papers; by default 10 for consistency, 12 for macer."""
    entropy: NotNegative = 0.5
    """consistency: price of the mean prediction's entropy."""
    eps: NotNegative = 0.5
    """smoothadv: radius of its attack in l2, in pixels of [0, 1]."""
    steps: Count = 2
    """smoothadv: steps of its attack."""
    gamma: NotNegative = 8.0
    """macer: the radius aimed at, in units of sigma / 2."""
    temperature: Positive = 16.0
    """macer: factor of the logits where it measures radii."""


class TrainingConfig(Config):
    """How a classifier is trained. The defaults are the official code's (arXiv:2103.01946, 2110.09468)."""

    architecture: str = "wrn-28-10"
    loss: Literal[
        "plain", "adversarial", "trades", "mart", "hat", "score", "gkl", "gaussian-noise", "stability", "consistency",
        "smoothadv", "macer"
    ] = "trades"  # fmt: skip
    beta: NotNegative = 6.0
    """Price of disagreement between clean and attacked or noisy predictions, but for gkl; usual are 5 and 6 for trades
    and mart, 2.5 or 3.5 for hat, 3 or 4 for score."""
    attack: InnerAttackConfig = InnerAttackConfig()
    aim: Literal["automatic", "predictions", "targets"] = "automatic"
    """trades, hat, score, gkl: what the attack drives away from; automatic takes the targets where the augmentation
    mixes labels, as the official code, else the clean predictions."""
    helper: HATConfig = HATConfig()
    """Of the loss hat."""
    decoupled: GKLConfig = GKLConfig()
    """Of the loss gkl."""
    real_weight: Fraction01 | None = None
    """Weight of the loss on original images, the rest being that of generated ones (PORT's gamma; 0.4 is its best on
    CIFAR-10); if not given each image counts the same. Not for consistency, smoothadv, macer."""
    awp: NotNegative = 0.0
    """Adversarial weight perturbation around the loss: length as a share of each layer's weights, 0.005 in the paper;
    0 for none."""
    awp_warmup: Fraction01 = 0.05
    """Share of the training without it."""
    noise: NoiseConfig = NoiseConfig()
    """Of the losses from gaussian-noise on."""
    schedule: ScheduleConfig
    momentum: Fraction01 = 0.9
    """Of SGD, Nesterov's."""
    weight_decay: NotNegative = 5e-4
    """Of convolutions and the linear layer; batch norms are left out."""
    averaging: Fraction01 = 0.995
    """Decay of the weight average, ramped: min(averaging, (1 + t) / (10 + t)). 0 switches it off."""
    averaging_start: Fraction01 = 0.0
    """Share of the run before which the average is a copy; the ramp begins there. The ports' 0.025."""
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
    statistics: Literal["adversarial", "both"] = "adversarial"
    """TRADES: which passes update running batch-norm statistics; adversarial alone (official) or both (the ports)."""
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

    @model_validator(mode="after")
    def _fits_the_loss(self) -> TrainingConfig:
        if self.real_weight is not None and self.loss in ("consistency", "smoothadv", "macer"):
            raise ValueError(f"{self.loss} takes no real_weight; leave it out, or set real_share")
        if self.aim != "automatic" and self.loss not in AIMING_LOSSES:
            raise ValueError(f"aim is for the losses {', '.join(AIMING_LOSSES)}, got loss {self.loss}")
        return self
