"""Settings of training losses, one class per kind, with the attack inside them. Plain data: no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from robustgen.config.base import Config, Count, Fraction01, NotNegative, Number, Positive
from robustgen.units import show_value

Aim = Literal["automatic", "predictions", "targets"]


class InnerAttackConfig(Config):
    """The attack of adversarial training (inner maximization)."""

    steps: Count = 10
    optimizer: Literal["adam", "steepest", "n-fgsm"] = "adam"
    """adam: the official code's, with step size 0.1 and then 0.01 at eps 8/255. steepest: steps of `step_size` along
    the sign or the normalized gradient, as in the PyTorch ports. n-fgsm: one step of eps from noise of twice eps,
    whatever `steps` says; the fastest."""
    step_size: Positive = 0.25
    """For steepest: a step as a share of eps; 0.25 is 2/255 at 8/255."""
    start: Literal["uniform", "normal"] = "uniform"
    """uniform: a random point of the ball. normal: the image plus Gaussian noise of standard deviation 0.001, as in the
    code of TRADES."""
    mode: Literal["train", "eval", "updating"] = "train"
    """Batch norms in the attack's passes. train: statistics of the batch, running statistics unchanged. eval: running
    statistics, as in the code of TRADES. updating: statistics of the batch, and every pass updates the running ones, as
    in the code of PORT."""
    first_steps: Count | None = None
    """Steps in the first part of the training, one more in each further, equal part, up to `steps`. Default: `steps`
    all along."""
    first_eps: Fraction01 = 1.0
    """Radius at the beginning, as a share of the threat model's; it grows linearly to it."""

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

    @property
    def passes(self) -> float:
        """Cost in forward passes of the network, a backward pass counting as one: 2 a step."""
        return 2.0 if self.optimizer == "n-fgsm" else 2.0 * self.steps

    def smallest(self) -> InnerAttackConfig:
        """At most 3 steps, for recipes at `--scale tiny`."""
        steps = min(self.steps, 3)
        return self.model_copy(update={"steps": steps, "first_steps": self.first_steps and min(self.first_steps, 3)})


class LossConfig(Config):
    """Settings of one training loss, and what is known of it without torch.

    Fields are the arguments of the loss, under the same names and with the same defaults. `LOSS_CONFIGS` lists the
    classes by `kind`; `losses.LOSSES` the losses that they configure.
    """

    kind: str

    PURPOSE: ClassVar[Literal["standard", "robust", "smoothed"]] = "robust"
    """What the classifier is for: clean accuracy, robust accuracy under attack, or certificates by smoothing."""

    def passes(self) -> float | None:
        """A training image's cost in forward passes, a backward pass counting as two; None where it was not counted."""
        return None

    def smallest(self) -> Self:
        """The same loss with the fewest steps and draws, for recipes at `--scale tiny`."""
        return self


class PlainConfig(LossConfig):
    """Cross-entropy on clean images: standard training."""

    kind: Literal["plain"] = "plain"
    real_weight: Fraction01 | None = None
    """Weight of the loss on original images, the rest being that of generated ones (PORT's gamma; 0.4 is its best on
    CIFAR-10). Default: every image counts the same."""

    PURPOSE = "standard"

    def passes(self) -> float:
        return 3.0


class AttackedConfig(LossConfig):
    """What losses on attacked images share."""

    attack: InnerAttackConfig = InnerAttackConfig()
    real_weight: Fraction01 | None = None
    """Weight of the loss on original images, the rest being that of generated ones (PORT's gamma; 0.4 is its best on
    CIFAR-10). Default: every image counts the same."""

    OTHER_PASSES: ClassVar[float]
    """Those beside the attack."""

    def passes(self) -> float:
        return self.attack.passes + self.OTHER_PASSES

    def smallest(self) -> Self:
        return self.model_copy(update={"attack": self.attack.smallest()})


class AdversarialConfig(AttackedConfig):
    """Cross-entropy on attacked images (arXiv:1706.06083)."""

    kind: Literal["adversarial"] = "adversarial"

    OTHER_PASSES = 3.0


class MARTConfig(AttackedConfig):
    """MART: misclassification-aware adversarial training (Wang et al. 2020)."""

    kind: Literal["mart"] = "mart"
    beta: NotNegative = 6.0
    """Weight of the divergence of attacked predictions from clean ones; 5 and 6 are usual."""

    OTHER_PASSES = 6.0


class TRADESConfig(AttackedConfig):
    """TRADES (arXiv:1901.08573)."""

    kind: Literal["trades"] = "trades"
    beta: NotNegative = 6.0
    """Weight of the divergence of attacked predictions from clean ones; 5 and 6 are usual."""
    statistics: Literal["adversarial", "both"] = "adversarial"
    """Which passes update running batch-norm statistics: the adversarial one alone (official code), or both (the
    PyTorch ports)."""
    aim: Aim = "automatic"
    """What the attack moves away from: the clean predictions, or the targets; automatic takes the targets where the
    augmentation mixes labels, as the official code does."""

    OTHER_PASSES = 7.0
    """1 for the predictions that the attack moves away from, 3 each for the clean and the attacked images: with 10
    steps 27 in all, where the scaling law's 7822 N D (arXiv:2404.09349) is 27.2 for WRN-28-10."""


class HATConfig(AttackedConfig):
    """HAT (Rade & Moosavi-Dezfooli 2022): also images beyond the ball, labeled by a standard classifier."""

    kind: Literal["hat"] = "hat"
    beta: NotNegative = 2.5
    """Weight of the divergence of attacked predictions from clean ones; 2.5 and 3.5 are usual."""
    weight: NotNegative = 0.5
    """Weight of the cross-entropy of the helper images, gamma in the paper."""
    factor: Annotated[Number, Field(gt=1)] = 2.0
    """How far beyond: 2 is twice as far from the image as the attacked image."""
    standard: str | None = None
    """Folder of the standard classifier, made by `robustgen train --plain`. Default: in a run, its labeler."""
    aim: Aim = "automatic"
    """As for trades."""

    OTHER_PASSES = 11.0


class SCOREConfig(AttackedConfig):
    """SCORE (arXiv:2202.10103)."""

    kind: Literal["score"] = "score"
    beta: NotNegative = 4.0
    """Weight of the squared difference of attacked and clean predictions; 3 and 4 are usual."""
    aim: Aim = "automatic"
    """As for trades."""

    OTHER_PASSES = 7.0


class GKLConfig(AttackedConfig):
    """GKL: the two parts of the divergence (arXiv:2305.13948). The defaults are those of the paper's code."""

    kind: Literal["gkl"] = "gkl"
    alpha: NotNegative = 4.0
    """Weight of the cross-entropy between clean and attacked predictions."""
    beta: NotNegative = 20.0
    """Weight of the squared differences of logits."""
    temperature: Positive = 4.0
    """Divides the logits in the first part and in the class weights of the second."""
    power: NotNegative = 1.0
    """Exponent of the class weights, which are mean predictions; the paper also takes 0.2 with temperature 1."""
    aim: Aim = "automatic"
    """As for trades."""

    OTHER_PASSES = 7.0


class SmoothedConfig(LossConfig):
    """What losses of classifiers for randomized smoothing share: Gaussian noise, and no threat model."""

    sigma: Positive = 0.25
    """Standard deviation of the noise, in pixels of [0, 1]; that of the certificates."""

    PURPOSE = "smoothed"


class _ManyDrawsConfig(SmoothedConfig):
    """Losses of several noisy copies of each image."""

    draws: Count = 1
    """Noisy copies of each image."""

    def passes(self) -> float:
        return 3.0 * self.draws

    def smallest(self) -> Self:
        return self.model_copy(update={"draws": min(self.draws, 2)})


class GaussianNoiseConfig(_ManyDrawsConfig):
    """Cross-entropy on noisy images (arXiv:1902.02918)."""

    kind: Literal["gaussian-noise"] = "gaussian-noise"
    real_weight: Fraction01 | None = None
    """Weight of the loss on original images. Default: every image counts the same."""


class StabilityConfig(SmoothedConfig):
    """Stability training: TRADES under noise instead of attacks (arXiv:1905.13736)."""

    kind: Literal["stability"] = "stability"
    beta: NotNegative = 6.0
    """Weight of the divergence of noisy predictions from clean ones."""
    real_weight: Fraction01 | None = None
    """Weight of the loss on original images. Default: every image counts the same."""

    def passes(self) -> float:
        return 6.0


class ConsistencyConfig(_ManyDrawsConfig):
    """Consistency regularization of noisy copies (arXiv:2006.04062)."""

    kind: Literal["consistency"] = "consistency"
    draws: Count = 2
    weight: NotNegative = 10.0
    """Weight of the divergence from the mean prediction, lambda in the paper."""
    entropy: NotNegative = 0.5
    """Weight of the mean prediction's entropy, eta in the paper."""


class SmoothAdvConfig(_ManyDrawsConfig):
    """Adversarial training of the smoothed classifier (arXiv:1906.04584)."""

    kind: Literal["smoothadv"] = "smoothadv"
    draws: Count = 2
    eps: NotNegative = 0.5
    """Radius of its attack in l2, in pixels of [0, 1]."""
    steps: Count = 2
    """Steps of its attack."""

    def passes(self) -> float:
        return self.draws * (2.0 * self.steps + 3)


class MACERConfig(_ManyDrawsConfig):
    """MACER: larger certified radii without attacks (arXiv:2001.02378)."""

    kind: Literal["macer"] = "macer"
    draws: Count = 16
    weight: NotNegative = 12.0
    """Weight of the radius term, lambda in the paper."""
    gamma: NotNegative = 8.0
    """Target of the radius, in units of sigma / 2."""
    temperature: Positive = 16.0
    """Factor of the logits in the radius, beta in the paper."""


LOSS_CONFIGS: dict[str, type[LossConfig]] = {
    "plain": PlainConfig,
    "adversarial": AdversarialConfig,
    "trades": TRADESConfig,
    "mart": MARTConfig,
    "hat": HATConfig,
    "score": SCOREConfig,
    "gkl": GKLConfig,
    "gaussian-noise": GaussianNoiseConfig,
    "stability": StabilityConfig,
    "consistency": ConsistencyConfig,
    "smoothadv": SmoothAdvConfig,
    "macer": MACERConfig,
}
"""By `kind`. A program may add its own, together with the loss in `losses.LOSSES`."""


def loss_config(value: object) -> LossConfig:
    """The settings in a dictionary, validated by the class of their `kind`; a name alone means its defaults.

    Raises:
        ValueError: an unknown kind (the known ones are listed), or settings that do not fit.
    """
    if isinstance(value, LossConfig):
        return value
    content = {"kind": value} if isinstance(value, str) else value
    kind = content.get("kind") if isinstance(content, Mapping) else None
    if not isinstance(kind, str) or kind not in LOSS_CONFIGS:
        raise ValueError(f"unknown loss {show_value(kind)}; known: {', '.join(LOSS_CONFIGS)}")
    return LOSS_CONFIGS[kind].model_validate(content)


AnyLossConfig = Annotated[SerializeAsAny[LossConfig], BeforeValidator(loss_config)]
"""The type of a field that holds the settings of any registered loss."""


def purpose_of(kind: str) -> str:
    """ "standard", "robust" or "smoothed"; losses that this program does not know count as robust."""
    return LOSS_CONFIGS[kind].PURPOSE if kind in LOSS_CONFIGS else "robust"


def switched(content: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """JSON-like settings of another loss: its defaults, but what both losses have with the same default is kept."""
    old, new = LOSS_CONFIGS.get(content["kind"]), LOSS_CONFIGS.get(kind) if isinstance(kind, str) else None
    if old is None or new is None or old is new:
        return {**content, "kind": kind} if old is new else {"kind": kind}
    defaults, others = new.model_validate({}).to_json(), old.model_validate({}).to_json()
    kept = {name for name in defaults.keys() & others.keys() - {"kind"} if defaults[name] == others[name]}
    return {name: content[name] if name in kept else value for name, value in defaults.items()}


FLAT_NAMES = ("beta", "attack", "aim", "real_weight", "statistics")
"""Settings of losses that version 0.1 wrote beside the loss's name."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "helper": ("standard", "weight", "factor"),
    "decoupled": ("alpha", "beta", "temperature", "power"),
    "noise": ("sigma", "draws", "weight", "entropy", "eps", "steps", "gamma", "temperature"),
}
"""Settings of single losses that it wrote in groups of their own: of hat, of gkl, and of the losses under noise."""
_GROUP_OF = {"hat": "helper", "gkl": "decoupled"}


def from_flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training as version 0.1 wrote them, with the loss's own settings inside it.

    Version 0.1 wrote the settings of every loss, whichever was used; those of others are left out.
    """
    others = {name: value for name, value in content.items() if name not in (*FLAT_NAMES, *GROUPS)}
    kind = content.get("loss", "trades")
    if len(others) == len(content) or not isinstance(kind, str):
        return dict(content)
    fields = LOSS_CONFIGS[kind].model_fields if kind in LOSS_CONFIGS else {}
    own = {name: content[name] for name in FLAT_NAMES if name in content and name in fields}
    if kind == "gkl":
        own.pop("beta", None)  # its own stood in the group
    for name, nothing in (("aim", "automatic"), ("real_weight", None)):
        if content.get(name, nothing) != nothing:
            own[name] = content[name]  # was refused where it did nothing, and still is
    group = _GROUP_OF.get(kind, "noise")
    inner = content.get(group) or {}
    own |= {n: v for n, v in inner.items() if n not in GROUPS[group] or (n in fields and v is not None)}
    return {**others, "loss": {"kind": kind, **own}}
