"""Everything a run is told: frozen values, checked at birth, the same in Python, JSON, YAML and `--set`.

Plain data: no torch here. Names of members (architectures, solvers ...) are checked by their families when the
pipeline builds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from robustgen.assignments import assign, explain
from robustgen.fits import ConsistencyFit, Draw, Generator
from robustgen.parts import Count, Fraction01, NotNegative, Number, Part, Positive
from robustgen.units import show_number

EPOCH_IMAGES = 50_000
"""Images of a CIFAR-10-equivalent epoch, in which the papers count, whatever the images are."""

NOISE_LOSSES = ("gaussian-noise", "stability", "consistency", "smoothadv", "macer")
"""Losses of a classifier that is to be smoothed: they bring noise, and ignore the threat model."""

AIMING_LOSSES = ("trades", "hat", "score", "gkl")
"""Losses whose attack aims away from the clean predictions, or from mixed labels."""


class Threat(Part):
    """What the adversary may do; written "linf:8/255" for short."""

    norm: Literal["linf", "l2", "l1"]
    eps: NotNegative
    """Radius in pixels of [0, 1]."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, str):
            norm, colon, eps = value.partition(":")
            if not colon:
                raise ValueError(f"expected NORM:EPS such as linf:8/255, got {value!r}")
            return {"norm": norm.strip().lower(), "eps": eps}
        return value

    @model_validator(mode="after")
    def _in_pixels(self) -> Threat:
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(
                f"eps {self.eps:g} in linf exceeds the range of a pixel, [0, 1]; did you mean {self.eps:g}/255?"
            )
        return self

    def __str__(self) -> str:
        return f"{self.norm}:{show_number(self.eps)}"


class Data(Part):
    """Which images, and how many of them. The split depends on `split_seed` alone, not on the run's seed."""

    name: str = "digits"
    """A data set: see `robustgen list datasets`."""
    path: str | None = None
    """Where its files lie; data sets that come with a package need none."""
    resize: Count | None = None
    """Pixels a side to bring images to, the largest square about the centre; their own size when not given."""
    train: Count | None = None
    """Training images, the same number of each class as far as possible; all that remain when not given."""
    validation: Annotated[int, Field(ge=0)] = 1024
    """Images kept from the training images for early stopping and selection."""
    test: Count | None = None
    """Test images, the first so many; all when not given."""
    split_seed: int = 0


class Schedule(Part):
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

    @model_validator(mode="after")
    def _whole_steps(self) -> Schedule:
        if self.total_images % self.batch_size:
            raise ValueError(f"total_images ({self.total_images}) must be a multiple of batch_size ({self.batch_size})")
        return self

    @property
    def steps(self) -> int:
        return self.total_images // self.batch_size


class InnerAttack(Part):
    """The attack inside a robust loss."""

    steps: Count = 10
    optimiser: Literal["adam", "steepest", "n-fgsm"] = "adam"
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

    @model_validator(mode="after")
    def _grows(self) -> InnerAttack:
        if self.first_steps is not None and self.first_steps > self.steps:
            raise ValueError(f"first_steps ({self.first_steps}) must be at most steps ({self.steps})")
        if self.optimiser == "n-fgsm" and self.first_steps is not None:
            raise ValueError("n-fgsm takes one step all along; leave out first_steps")
        if self.optimiser == "n-fgsm" and (self.start, self.mode) != ("uniform", "train"):
            raise ValueError(
                "n-fgsm has a start of its own and leaves batch norms in training; leave out start and mode"
            )
        return self


class Helper(Part):
    """HAT: images beyond the ball, labelled by a standard classifier."""

    standard: str | None = None
    """Folder of that classifier, made by `robustgen train --plain`; if not given, in a run, the labeller."""
    weight: NotNegative = 0.5
    """Price of their cross-entropy, gamma in the paper."""
    factor: Annotated[Number, Field(gt=1)] = 2.0
    """How far beyond: 2 is twice as far as the attacked image."""


class Decoupled(Part):
    """GKL: the two parts of the divergence. The defaults are the paper's code's."""

    alpha: NotNegative = 4.0
    """Price of the cross-entropy between clean and attacked predictions."""
    beta: NotNegative = 20.0
    """Price of the squared differences of logits."""
    temperature: Positive = 4.0
    """Divides the logits behind the first part and behind the weights of the second."""
    power: NotNegative = 1.0
    """Of those weights, the classes' mean predictions; 0.2 with temperature 1 in the paper's other setting."""


class Noise(Part):
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


class Training(Part):
    """How a classifier is trained. The defaults are the official code's (arXiv:2103.01946, 2110.09468)."""

    architecture: str = "wrn-28-10"
    loss: Literal[
        "plain", "adversarial", "trades", "mart", "hat", "score", "gkl", "gaussian-noise", "stability", "consistency",
        "smoothadv", "macer"
    ] = "trades"  # fmt: skip
    beta: NotNegative = 6.0
    """Price of disagreement between clean and attacked or noisy predictions, but for gkl; usual are 5 and 6 for trades
    and mart, 2.5 or 3.5 for hat, 3 or 4 for score."""
    attack: InnerAttack = InnerAttack()
    aim: Literal["automatic", "predictions", "targets"] = "automatic"
    """trades, hat, score, gkl: what the attack drives away from; automatic takes the targets where the augmentation
    mixes labels, as the official code, else the clean predictions."""
    helper: Helper = Helper()
    """Of the loss hat."""
    decoupled: Decoupled = Decoupled()
    """Of the loss gkl."""
    real_weight: Fraction01 | None = None
    """Weight of the loss on original images, the rest being that of generated ones (PORT's gamma; 0.4 is its best on
    CIFAR-10); if not given each image counts the same. Not for consistency, smoothadv, macer."""
    awp: NotNegative = 0.0
    """Adversarial weight perturbation around the loss: length as a share of each layer's weights, 0.005 in the paper;
    0 for none."""
    awp_warmup: Fraction01 = 0.05
    """Share of the training without it."""
    noise: Noise = Noise()
    """Of the losses from gaussian-noise on."""
    schedule: Schedule
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
    """Steps of that attack: the papers' evaluation attack (Adam on the margin)."""

    @model_validator(mode="after")
    def _fits_the_loss(self) -> Training:
        if self.real_weight is not None and self.loss in ("consistency", "smoothadv", "macer"):
            raise ValueError(f"{self.loss} takes no real_weight; leave it out, or set real_share")
        if self.aim != "automatic" and self.loss not in AIMING_LOSSES:
            raise ValueError(f"aim is for the losses {', '.join(AIMING_LOSSES)}, got loss {self.loss}")
        return self


class Sampling(Draw):
    """How proxy sets are drawn."""

    count: Count = 5_000_000
    """Images of each generator, classes in turn."""
    shard_images: Count = 100_000
    """Images in a file."""
    special: dict[str, Draw] = {}
    """Generators that are drawn otherwise, by name."""

    def of(self, generator: str) -> Draw:
        """How one generator is drawn."""
        common = Draw(**{name: getattr(self, name) for name in Draw.model_fields})
        return self.special.get(generator, common)


class Keep(Part):
    """Which generated images are used."""

    rule: Literal["top-confidence", "above-confidence", "balanced", "boundary", "by-column", "all"] = "top-confidence"
    """top-confidence: the `per_class` images of each label of which the labeller is surest. above-confidence: all of
    which it is at least as sure as `confidence`. balanced: the first `per_class` of each label. boundary: those nearest
    to the labeller's decision boundary. by-column: those with the highest values of `column`."""
    per_class: Count = 100_000
    """Of every rule but above-confidence and all."""
    confidence: Fraction01 = 0.9
    """Of above-confidence: the least."""
    uniform: Fraction01 = 0.5
    """Of boundary: share of `per_class` that is drawn uniformly instead."""
    column: str | None = None
    """Of by-column: which."""
    without_copies: bool = False
    """Leave out what `robustgen check` found to be a duplicate or a copy of a real image."""

    @model_validator(mode="after")
    def _names_its_column(self) -> Keep:
        if (self.rule == "by-column") != (self.column is not None):
            raise ValueError("rule by-column and a column go together; give both or neither")
        return self


class Phase(Part):
    """A stretch of the run with its own proxy sets."""

    until: Fraction01 = 1.0
    """Share of the run at which it ends."""
    proxies: dict[str, Positive] = {}
    """Their weights among the generated images, by generator."""
    real_share: Fraction01 | None = None
    """Original images in a batch; `train.real_share` when not given."""


class Arm(Part):
    """One robust classifier of the comparison: real images, and those of one generator, of several, or of none."""

    proxy: str | None = None
    """The generator, for the whole run."""
    phases: tuple[Phase, ...] = ()
    """Instead: several at a time, or one after the other (arXiv:2404.09349)."""
    changes: tuple[str, ...] = ()
    """Settings of `train` in which this arm differs: "real_share=0.5", "augment=cutmix", "schedule.peak_lr=0.1"."""

    @model_validator(mode="after")
    def _to_the_end(self) -> Arm:
        if self.proxy is not None and self.phases:
            raise ValueError("an arm has either a proxy or phases")
        ends = [phase.until for phase in self.phases]
        if ends and (ends != sorted(set(ends)) or ends[0] == 0 or ends[-1] != 1):
            raise ValueError(f"phases must end later and later, the last at 1, got {', '.join(map(str, ends))}")
        for phase in self.phases:
            if not phase.proxies and phase.real_share != 1:
                raise ValueError("a phase without proxy sets has real images alone: say real_share=1")
        return self

    @property
    def proxies(self) -> tuple[str, ...]:
        """All of them, in the order of their first use."""
        alone = () if self.proxy is None else (self.proxy,)
        return tuple(dict.fromkeys([*alone, *(name for phase in self.phases for name in phase.proxies)]))

    def placed(self, where: Callable[[str], str]) -> Arm:
        """Its images with folders for names: what a training is told beside its settings."""
        return Arm(
            proxy=None if self.proxy is None else where(self.proxy),
            phases=tuple(
                phase.model_copy(update={"proxies": {where(name): share for name, share in phase.proxies.items()}})
                for phase in self.phases
            ),
        )


class Evaluation(Part):
    """How the classifiers are judged."""

    suite: str = "aa+mt"
    batch_size: Count = 512
    """Images attacked together; verdicts do not depend on it."""
    keep_images: bool = True
    """Also keep every image as it was broken, and as it was: five bytes a value of the test images for each arm."""


class Measuring(Part):
    """How generated images are measured beside real ones."""

    judged: Count = 10_000
    """Images of each kind for nearest neighbours, precision and recall, as far as there are so many."""
    which: Literal["all", "kept"] = "all"
    """Which images of a proxy set."""


class Certification(Part):
    """How the smoothed classifiers are certified. The defaults are Cohen et al.'s (arXiv:1902.02918)."""

    sigma: Positive = 0.25
    """Standard deviation of the noise, in pixels of [0, 1]."""
    selection: Count = 100
    """Noisy copies of an image by which its class is selected."""
    samples: Count = 100_000
    """New noisy copies by which it is judged; more reach larger radii."""
    alpha: Annotated[Number, Field(gt=0, lt=0.5)] = 0.001
    """How likely each certificate may be wrong."""
    every: Count = 1
    """Every so-manieth test image; the usual protocol on CIFAR-10 takes every 20th."""
    images: Count | None = None
    """At most so many of those; all when not given."""
    arms: tuple[str, ...] = ()
    """Whose classifiers; all when not given. A run's alone."""


class Reported(Part):
    """What a paper reports for a row, in per cent. None of it is ours."""

    clean: Number | None = None
    robust: Number
    by: Literal["AA+MT", "AutoAttack", "certified"] = "AA+MT"
    """The attacks behind the robust accuracy."""
    autoattack: Number | None = None
    """Under AutoAttack, where both are known."""
    where: str
    """Paper and place."""
    unsure: str = ""
    """What of the row no source at hand confirms."""

    def __str__(self) -> str:
        return f"{'-' if self.clean is None else f'{self.clean:.2f}'} / {self.robust:.2f} {self.by}"


class Recipe(Part):
    """A whole run: images, generators, proxy sets, classifiers, evaluation."""

    name: str
    summary: str = ""
    """One sentence for `robustgen list recipes`."""
    seed: int = 0
    seeds: tuple[int, ...] = ()
    """A study: the whole run once for each of these instead, and a report of all; a single run when not given."""
    threads: Count = 1
    """CPU threads of each stage; several stages run side by side. Results depend on it in their last bits."""
    data: Data
    threat: Threat
    labeller: Training
    generators: dict[str, Generator]
    published: dict[str, tuple[str, ...]] = {}
    """Proxy sets that are imported instead of made: files by name, as `robustgen import` takes them. A generator of the
    same name is then neither fitted nor drawn from. Their labels stay, and all of their images are used."""
    sampling: Sampling
    labels: Literal["predicted", "condition"] = "predicted"
    """Of drawn images: the labeller's, or the class asked for, by whose probability they are then ranked."""
    keep: Keep
    train: Training
    arms: dict[str, Arm]
    evaluation: Evaluation = Evaluation()
    measure: Measuring | None = None
    """The quality of every proxy set; not measured when not given."""
    analyses: tuple[Literal["arc", "transport", "conditions", "transfer"], ...] = ()
    """Of every generator's images: arc, transport, conditions; of every arm with one generator: transfer."""
    certification: Certification | None = None
    """Certificates by randomised smoothing, beside the evaluation; none when not given."""
    reported: Reported | None = None

    @model_validator(mode="after")
    def _arms_have_generators(self) -> Recipe:
        for name, arm in self.arms.items():
            for proxy in arm.proxies:
                if proxy not in self.generators and proxy not in self.published:
                    raise ValueError(
                        f"arm {name} wants generator {proxy!r}, which the recipe does not have; "
                        f"it has: {', '.join([*self.generators, *self.published]) or 'none'}"
                    )
        for name, fit in self.generators.items():
            if isinstance(fit, ConsistencyFit) and "/" not in fit.base:
                self._must_be_a_generator(fit.base, f"generators.{name}.base")
        for name in self.certification.arms if self.certification else ():
            if name not in self.arms:
                raise ValueError(f"certification.arms names {name!r}; the recipe's arms: {', '.join(self.arms)}")
        for name in self.sampling.special:
            self._must_be_a_generator(name, "sampling.special")
        for draw in (self.sampling, *self.sampling.special.values()):
            if draw.guide is not None and "/" not in draw.guide:
                self._must_be_a_generator(draw.guide, "sampling: guide")
        for name, files in self.published.items():
            if not files:
                raise ValueError(f"published.{name} names no file")
        if not self.arms:
            raise ValueError("a recipe needs at least one arm")
        if self.labeller.loss != "plain":
            raise ValueError(f"the labeller is a standard classifier: its loss must be plain, got {self.labeller.loss}")
        if len(self.seeds) == 1 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: a study needs two or more, none twice, got {list(self.seeds)}; for one run: seed")
        for training in (self.train, *map(self.training, self.arms)):
            self._can_be_trained(training)
        return self

    @property
    def certified(self) -> tuple[str, ...]:
        """Arms whose classifiers are certified."""
        return () if self.certification is None else self.certification.arms or tuple(self.arms)

    def _must_be_a_generator(self, name: str, place: str) -> None:
        if name not in self.generators:
            raise ValueError(
                f"{place} names generator {name!r}, which the recipe does not have; "
                f"it has: {', '.join(self.generators) or 'none'}"
            )

    def training(self, arm: str) -> Training:
        """How an arm's classifiers are trained: `train`, with what the arm changes.

        Raises:
            ValueError: an unknown setting (the known ones are named), or a bad value.
        """
        changes = self.arms[arm].changes
        if not changes:
            return self.train
        content = self.train.to_json()
        try:
            for change in changes:
                assign(content, change, "real_share=0.5")
            return Training.model_validate(content)
        except ValidationError as error:
            raise ValueError(f"arms.{arm}.changes: {explain(error)}") from None
        except ValueError as error:
            raise ValueError(f"arms.{arm}.changes: {error}") from None

    def _can_be_trained(self, training: Training) -> None:
        if self.certification is not None and training.loss in NOISE_LOSSES:
            trained, certified = training.noise.sigma, self.certification.sigma
            if trained != certified:
                raise ValueError(
                    f"train.noise.sigma ({trained:g}) and certification.sigma ({certified:g}) must be the same noise"
                )
        if training.early_stopping and not self.data.validation:
            raise ValueError(
                "early stopping needs validation images; set data.validation, or train.early_stopping=false"
            )
        if training.models > 1 and not self.data.validation:
            raise ValueError("choosing among models needs validation images; set data.validation, or train.models=1")
