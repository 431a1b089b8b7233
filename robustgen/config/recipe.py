"""Everything a run is told: frozen values, checked at birth, the same in Python, JSON, YAML and `--set`.

Plain data: no torch here. Names of members (architectures, solvers ...) are checked by their families when the
pipeline builds them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from robustgen.config.base import Config, Count, Fraction01, NotNegative, Number, Positive
from robustgen.config.generators import AnyGeneratorConfig, ECTConfig, SamplerConfig
from robustgen.config.losses import SmoothedConfig
from robustgen.config.parsing import assign, explain
from robustgen.config.training import TrainingConfig
from robustgen.units import show_number


class ThreatConfig(Config):
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
    def _in_pixels(self) -> ThreatConfig:
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(
                f"eps {self.eps:g} in linf exceeds the range of a pixel, [0, 1]; did you mean {self.eps:g}/255?"
            )
        return self

    def __str__(self) -> str:
        return f"{self.norm}:{show_number(self.eps)}"


class DataConfig(Config):
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
    """Test images, the first so many; all when not given. A data set without test images has them drawn from all."""
    balanced_test: bool = False
    """Take the first images of each class in turn for the test, instead of the first of all."""
    split_seed: int = 0
    test_path: str | None = None
    """A file or folder of test images, all of which are used in their order; the data set's own when not given."""
    image_key: str | None = None
    """Array (npz) or column (hf-data) of the images; the only one with a usual name when not given."""
    label_key: str | None = None
    """The same of the labels."""
    color: Literal["rgb", "gray"] | None = None
    """rgb repeats the channel of gray images, gray adds up the channels of RGB images; as they are when not given."""
    skip_bad: bool = False
    """Leave out files of a folder that cannot be read as images, instead of refusing the folder."""
    only_test: bool = Field(default=False, exclude=True)
    """All images are test images, none of them trained on, so that nothing is drawn: `test` takes the first so many."""


class SamplingConfig(SamplerConfig):
    """How proxy sets are drawn."""

    count: Count = 5_000_000
    """Images of each generator, classes in turn."""
    shard_images: Count = 100_000
    """Images in a file."""
    special: dict[str, SamplerConfig] = {}
    """Generators that are drawn otherwise, by name."""

    def of(self, generator: str) -> SamplerConfig:
        """How one generator is drawn."""
        common = SamplerConfig(**{name: getattr(self, name) for name in SamplerConfig.model_fields})
        return self.special.get(generator, common)


class KeepConfig(Config):
    """Which generated images are used."""

    rule: Literal["top-confidence", "above-confidence", "balanced", "boundary", "discriminator", "by-column", "all"] = (
        "top-confidence"
    )
    """top-confidence: the `per_class` images of each label of which the labeller is surest. above-confidence: all of
    which it is at least as sure as `confidence`. balanced: the first `per_class` of each label. boundary: those nearest
    to the labeller's decision boundary. discriminator: those that look most real to robust discriminators. by-column:
    those with the highest values of `column`."""
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
    def _names_its_column(self) -> KeepConfig:
        if (self.rule == "by-column") != (self.column is not None):
            raise ValueError("rule by-column and a column go together; give both or neither")
        return self


class Phase(Config):
    """A stretch of the run with its own proxy sets."""

    until: Fraction01 = 1.0
    """Share of the run at which it ends."""
    proxies: dict[str, Positive] = {}
    """Their weights among the generated images, by generator."""
    real_share: Fraction01 | None = None
    """Original images in a batch; `train.real_share` when not given."""


class Arm(Config):
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


class EvaluationConfig(Config):
    """How the classifiers are judged."""

    suite: str = "aa+mt"
    batch_size: Count = 512
    """Images attacked together; verdicts do not depend on it."""
    keep_images: bool = True
    """Also keep every image as it was broken, and as it was: five bytes a value of the test images for each arm."""


class MeasureConfig(Config):
    """How generated images are measured beside real ones."""

    judged: Count = 10_000
    """Images of each kind for nearest neighbours, precision and recall, as far as there are so many."""
    which: Literal["all", "kept"] = "all"
    """Which images of a proxy set."""


class CertificationConfig(Config):
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


class Reported(Config):
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


class Recipe(Config):
    """A whole run: images, generators, proxy sets, classifiers, evaluation."""

    name: str
    summary: str = ""
    """One sentence for `robustgen list recipes`."""
    seed: int = 0
    seeds: tuple[int, ...] = ()
    """A study: the whole run once for each of these instead, and a report of all; a single run when not given."""
    threads: Count = 1
    """CPU threads of each stage; several stages run side by side. Results depend on it in their last bits."""
    data: DataConfig
    threat: ThreatConfig
    labeller: TrainingConfig
    generators: dict[str, AnyGeneratorConfig]
    published: dict[str, tuple[str, ...]] = {}
    """Proxy sets that are imported instead of made: files by name, as `robustgen import` takes them. A generator of the
    same name is then neither fitted nor drawn from. Their labels stay, and all of their images are used."""
    sampling: SamplingConfig
    labels: Literal["predicted", "condition"] = "predicted"
    """Of drawn images: the labeller's, or the class asked for, by whose probability they are then ranked."""
    keep: KeepConfig
    train: TrainingConfig
    arms: dict[str, Arm]
    evaluation: EvaluationConfig = EvaluationConfig()
    measure: MeasureConfig | None = None
    """The quality of every proxy set; not measured when not given."""
    analyses: tuple[Literal["arc", "transport", "conditions", "transfer"], ...] = ()
    """Of every generator's images: arc, transport, conditions; of every arm with one generator: transfer."""
    certification: CertificationConfig | None = None
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
            if isinstance(fit, ECTConfig) and "/" not in fit.base:
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
        if self.labeller.loss.PURPOSE != "standard":
            kind = self.labeller.loss.kind
            raise ValueError(f"the labeller is a standard classifier: its loss must be plain, got {kind}")
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

    def training(self, arm: str) -> TrainingConfig:
        """How an arm's classifiers are trained: `train`, with what the arm changes.

        Raises:
            ValueError: an unknown setting (the known ones are named), or a bad value.
        """
        changes = self.arms[arm].changes
        if not changes:
            return self.train
        content = self.train.to_json()
        try:
            assign(content, changes, "real_share=0.5")
            return TrainingConfig.model_validate(content)
        except ValidationError as error:
            raise ValueError(f"arms.{arm}.changes: {explain(error)}") from None
        except ValueError as error:
            raise ValueError(f"arms.{arm}.changes: {error}") from None

    def _can_be_trained(self, training: TrainingConfig) -> None:
        if self.certification is not None and isinstance(training.loss, SmoothedConfig):
            trained, certified = training.loss.sigma, self.certification.sigma
            if trained != certified:
                raise ValueError(
                    f"train.loss.sigma ({trained:g}) and certification.sigma ({certified:g}) must be the same noise"
                )
        if training.early_stopping and not self.data.validation:
            raise ValueError(
                "early stopping needs validation images; set data.validation, or train.early_stopping=false"
            )
        if training.models > 1 and not self.data.validation:
            raise ValueError("choosing among models needs validation images; set data.validation, or train.models=1")
