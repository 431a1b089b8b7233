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
    """adam: as in the official code, with step size 0.1 and then 0.01 at eps 8/255. steepest: steps of `step_size`
    along the sign or the normalized gradient, as in the PyTorch ports. n-fgsm: one step of eps from noise of 2 eps,
    ignoring `steps`; the fastest."""
    step_size: Positive = 0.25
    """Step size of steepest, as a share of eps; 0.25 is 2/255 at 8/255."""
    start: Literal["uniform", "normal"] = "uniform"
    """uniform: a random point in the ball. normal: the image plus Gaussian noise of standard deviation 0.001, as in the
    code of TRADES."""
    mode: Literal["train", "eval", "updating"] = "train"
    """Batch norms during the attack. train: batch statistics, running statistics unchanged. eval: running statistics,
    as in the code of TRADES. updating: batch statistics, and every pass updates the running ones, as in the code of
    PORT."""
    first_steps: Count | None = None
    """Number of steps in the first part of the training; it grows by one in each further, equal part, up to `steps`.
    Default: `steps` throughout."""
    first_eps: Fraction01 = 1.0
    """Initial radius as a share of the threat model's eps; it grows linearly to eps."""

    @model_validator(mode="before")
    @classmethod
    def _from_older_names(cls, value: object) -> object:
        """Accept the British spelling of `optimizer` in recipes of version 0.1."""
        if isinstance(value, dict) and "optimiser" in value:
            value = {"optimizer": value["optimiser"], **{k: v for k, v in value.items() if k != "optimiser"}}
        return value

    @model_validator(mode="after")
    def _grows(self) -> InnerAttackConfig:
        if self.first_steps is not None and self.first_steps > self.steps:
            raise ValueError(f"first_steps ({self.first_steps}) must be at most steps ({self.steps})")
        if self.optimizer == "n-fgsm" and self.first_steps is not None:
            raise ValueError("n-fgsm always takes one step; leave out first_steps")
        if self.optimizer == "n-fgsm" and (self.start, self.mode) != ("uniform", "train"):
            raise ValueError(
                "n-fgsm has its own start, and batch norms stay in training mode; leave out start and mode"
            )
        return self

    @property
    def passes(self) -> float:
        """Cost in forward passes of the network; a backward pass counts as one: 2 per step."""
        return 2.0 if self.optimizer == "n-fgsm" else 2.0 * self.steps

    def smallest(self) -> InnerAttackConfig:
        """At most 3 steps, for recipes at `--scale tiny`."""
        steps = min(self.steps, 3)
        return self.model_copy(update={"steps": steps, "first_steps": self.first_steps and min(self.first_steps, 3)})


class LossConfig(Config):
    """Settings of one training loss, and what can be computed from them without torch.

    Fields are the arguments of the loss, under the same names and with the same defaults. `LOSS_CONFIGS` lists the
    classes by `kind`; `losses.LOSSES` the losses that they configure.
    """

    kind: str

    PURPOSE: ClassVar[Literal["standard", "robust", "smoothed"]] = "robust"
    """Purpose of the classifier: clean accuracy, robust accuracy under attack, or certificates by smoothing."""

    def passes(self) -> float | None:
        """Cost of a training image in forward passes; a backward pass counts as two. None if not counted."""
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
    """Settings that losses on adversarial examples share."""

    attack: InnerAttackConfig = InnerAttackConfig()
    real_weight: Fraction01 | None = None
    """Weight of the loss on original images, the rest being that of generated ones (PORT's gamma; 0.4 is its best on
    CIFAR-10). Default: every image counts the same."""

    OTHER_PASSES: ClassVar[float]
    """Forward passes in addition to the attack."""

    def passes(self) -> float:
        return self.attack.passes + self.OTHER_PASSES

    def smallest(self) -> Self:
        return self.model_copy(update={"attack": self.attack.smallest()})


class AdversarialConfig(AttackedConfig):
    """Cross-entropy on adversarial examples (arXiv:1706.06083)."""

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
    """Which passes update running batch-norm statistics: only the adversarial one (official code), or both (the
    PyTorch ports)."""
    aim: Aim = "automatic"
    """What the attack moves away from: the clean predictions, or the targets. automatic: the targets if the
    augmentation mixes labels, as in the official code."""

    OTHER_PASSES = 7.0
    """1 for the clean predictions that the attack needs, 3 each for the clean images and the adversarial examples. With
    10 steps the total is 27; the scaling law's 7822 N D (arXiv:2404.09349) corresponds to 27.2 for WRN-28-10."""


class HATConfig(AttackedConfig):
    """HAT (Rade & Moosavi-Dezfooli 2022): TRADES plus helper examples beyond the ball, labeled by a standard
    classifier."""

    kind: Literal["hat"] = "hat"
    beta: NotNegative = 2.5
    """Weight of the divergence of attacked predictions from clean ones; 2.5 and 3.5 are usual."""
    weight: NotNegative = 0.5
    """Weight of the cross-entropy of the helper examples, gamma in the paper."""
    factor: Annotated[Number, Field(gt=1)] = 2.0
    """Distance of a helper example from the image, relative to that of the adversarial example."""
    standard: str | None = None
    """Folder of the standard classifier, from `robustgen train --plain`. Default: in a run, its labeler."""
    aim: Aim = "automatic"
    """As for trades."""

    OTHER_PASSES = 11.0


class SCOREConfig(AttackedConfig):
    """SCORE (arXiv:2202.10103)."""

    kind: Literal["score"] = "score"
    beta: NotNegative = 4.0
    """Weight of the squared difference of adversarial and clean predictions; 3 and 4 are usual."""
    aim: Aim = "automatic"
    """As for trades."""

    OTHER_PASSES = 7.0


class GKLConfig(AttackedConfig):
    """GKL: the decoupled KL divergence (arXiv:2305.13948). The defaults are those of the paper's code."""

    kind: Literal["gkl"] = "gkl"
    alpha: NotNegative = 4.0
    """Weight of the cross-entropy between clean and adversarial predictions."""
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
    """Settings that losses for randomized smoothing share: Gaussian noise, and no threat model."""

    sigma: Positive = 0.25
    """Standard deviation of the noise, in pixels of [0, 1]; the same as in certification."""

    PURPOSE = "smoothed"


class _ManyDrawsConfig(SmoothedConfig):
    """Losses on several noisy copies of each image."""

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
    """MACER: maximizes certified radii without attacks (arXiv:2001.02378)."""

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
        ValueError: an unknown kind (the known ones are listed), or invalid settings.
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
    """ "standard", "robust" or "smoothed"; unknown losses count as robust."""
    return LOSS_CONFIGS[kind].PURPOSE if kind in LOSS_CONFIGS else "robust"


def switched(content: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """JSON-like settings of another loss: its defaults, but settings with the same default in both losses are kept."""
    old, new = LOSS_CONFIGS.get(content["kind"]), LOSS_CONFIGS.get(kind) if isinstance(kind, str) else None
    if old is None or new is None or old is new:
        return {**content, "kind": kind} if old is new else {"kind": kind}
    defaults, others = new.model_validate({}).to_json(), old.model_validate({}).to_json()
    kept = {name for name in defaults.keys() & others.keys() - {"kind"} if defaults[name] == others[name]}
    return {name: content[name] if name in kept else value for name, value in defaults.items()}


FLAT_NAMES = ("beta", "attack", "aim", "real_weight", "statistics")
"""Settings of losses that version 0.1 wrote next to the name of the loss."""
OLD_GROUPS: Mapping[str, tuple[str, ...]] = {
    "helper": ("standard", "weight", "factor"),
    "decoupled": ("alpha", "beta", "temperature", "power"),
    "noise": ("sigma", "draws", "weight", "entropy", "eps", "steps", "gamma", "temperature"),
}
"""Settings that version 0.1 wrote in separate groups: of hat, of gkl, and of the losses under noise."""
_GROUP_OF = {"hat": "helper", "gkl": "decoupled"}


def from_flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert settings of a training from version 0.1, with the settings of the loss moved into it.

    Version 0.1 wrote the settings of every loss; those of other losses are dropped.
    """
    others = {name: value for name, value in content.items() if name not in (*FLAT_NAMES, *OLD_GROUPS)}
    kind = content.get("loss", "trades")
    if len(others) == len(content) or not isinstance(kind, str):
        return dict(content)
    fields = LOSS_CONFIGS[kind].model_fields if kind in LOSS_CONFIGS else {}
    own = {name: content[name] for name in FLAT_NAMES if name in content and name in fields}
    if kind == "gkl":
        own.pop("beta", None)  # beta of gkl was in its group
    for name, nothing in (("aim", "automatic"), ("real_weight", None)):
        if content.get(name, nothing) != nothing:
            own[name] = content[name]  # refused by losses without it, now as then
    group = _GROUP_OF.get(kind, "noise")
    inner = content.get(group) or {}
    own |= {n: v for n, v in inner.items() if n not in OLD_GROUPS[group] or (n in fields and v is not None)}
    return {**others, "loss": {"kind": kind, **own}}
