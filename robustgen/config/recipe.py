"""All settings of a run: frozen, validated values, the same in Python, JSON, YAML and `--set`.

Plain data: no torch here. Names of architectures, solvers ... are checked when the pipeline builds them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from robustgen.config.base import Config, Count, Fraction01, NotNegative, Number, Positive, Precision
from robustgen.config.generators import AnyGeneratorConfig, ECTConfig
from robustgen.config.losses import SmoothedConfig
from robustgen.config.parsing import assign, explain
from robustgen.config.sampler import SamplerConfig
from robustgen.config.training import TrainingConfig
from robustgen.units import show_number, show_value


class ThreatConfig(Config):
    """The threat model: a norm and a radius, "linf:8/255" for short."""

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
    """Dataset and sizes of its splits. The split depends only on `split_seed`, not on the run's seed."""

    name: str = "digits"
    """A dataset: see `robustgen list datasets`."""
    path: str | None = None
    """Folder or file of its images. Datasets that come with a package need none."""
    resize: Count | None = None
    """Side length in pixels to resize images to, after a center crop to the largest square. Default: no resizing."""
    train: Count | None = None
    """Number of training images, class-balanced as far as possible. Default: all that remain."""
    validation: Annotated[int, Field(ge=0)] = 1024
    """Number of images held out from the training set for early stopping and model selection."""
    test: Count | None = None
    """Number of test images, from the start of the test set. Default: all. If a dataset has no test set, they are drawn
    from all its images."""
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
    """All images are test images, and none are for training, so none are drawn: `test` takes the first N."""


class SamplingConfig(SamplerConfig):
    """How proxy sets are sampled."""

    count: Count = 5_000_000
    """Number of images per generator, with the classes in turn."""
    shard_images: Count = 100_000
    """Number of images per file."""
    special: dict[str, SamplerConfig] = {}
    """Sampler settings of single generators, by name."""

    def of(self, generator: str) -> SamplerConfig:
        """Sampler settings of one generator."""
        common = SamplerConfig(**{name: getattr(self, name) for name in SamplerConfig.model_fields})
        return self.special.get(generator, common)


class SelectionConfig(Config):
    """Which images of a proxy set are used for training."""

    rule: Literal["top-confidence", "above-confidence", "balanced", "boundary", "discriminator", "by-column", "all"] = (
        "top-confidence"
    )
    """top-confidence: the `per_class` images of each label with the labeler's highest confidence. above-confidence: all
    with a confidence of at least `confidence`. balanced: the first `per_class` of each label. boundary: those nearest
    to the labeler's decision boundary. discriminator: those that robust discriminators find most real. by-column: those
    with the highest values of `column`."""
    per_class: Count = 100_000
    """Number of images per label, for every rule except above-confidence and all."""
    confidence: Fraction01 = 0.9
    """For above-confidence: the lowest confidence."""
    uniform: Fraction01 = 0.5
    """For boundary: share of `per_class` that is drawn uniformly instead."""
    column: str | None = None
    """For by-column: name of the column."""
    without_copies: bool = False
    """Exclude images that `robustgen check` marked as duplicates or copies of real images."""

    @model_validator(mode="after")
    def _names_its_column(self) -> Self:
        if (self.rule == "by-column") != (self.column is not None):
            raise ValueError("rule by-column and a column go together; give both or neither")
        return self


class KeepConfig(SelectionConfig):
    """Which generated images are used for training."""

    special: dict[str, SelectionConfig] = {}
    """Rules of single generators, by name."""

    def of(self, generator: str) -> SelectionConfig:
        """The rule of one generator."""
        common = SelectionConfig(**{name: getattr(self, name) for name in SelectionConfig.model_fields})
        return self.special.get(generator, common)


class Phase(Config):
    """A part of the run with its own proxy sets."""

    until: Fraction01 = 1.0
    """Share of the run at which it ends."""
    proxies: dict[str, Positive] = {}
    """Weight of each generator among the generated images."""
    real_share: Fraction01 | None = None
    """Share of original images in a batch. Default: `train.real_share`."""


def _count_or_all(value: object) -> object:
    """A number of images, also as text, or "all"."""
    count = int(value) if isinstance(value, str) and value.isdecimal() else value
    if count is None or count == "all" or (type(count) is int and count > 0):
        return count
    raise ValueError(f"expected a number of images, or all, got {show_value(value)}")


class Arm(Config):
    """One robust classifier of the comparison: real images, and images of one generator, of several, or of none."""

    proxy: str | None = None
    """The generator for the whole run."""
    phases: tuple[Phase, ...] = ()
    """Instead of `proxy`: several generators at the same time, or one after the other (arXiv:2404.09349)."""
    changes: tuple[str, ...] = ()
    """Settings of `train` that differ in this arm: "real_share=0.5", "augment=cutmix", "schedule.peak_lr=0.1"."""
    train_images: Annotated[int | Literal["all"] | None, BeforeValidator(_count_or_all)] = None
    """Number of real training images of this arm, or all that are not held out. Default: `data.train`. The smaller set
    is a part of the larger one. Generators and the labeler always have `data.train` images."""

    @model_validator(mode="after")
    def _to_the_end(self) -> Arm:
        if self.proxy is not None and self.phases:
            raise ValueError("an arm has either a proxy or phases, got both")
        ends = [phase.until for phase in self.phases]
        if ends and (ends != sorted(set(ends)) or ends[0] == 0 or ends[-1] != 1):
            raise ValueError(f"phases must end in increasing order, the last at 1, got {', '.join(map(str, ends))}")
        for phase in self.phases:
            if not phase.proxies and phase.real_share != 1:
                raise ValueError("a phase without proxy sets has only real images: set its real_share to 1")
        return self

    @property
    def proxies(self) -> tuple[str, ...]:
        """All proxy sets, in the order of their first use."""
        alone = () if self.proxy is None else (self.proxy,)
        return tuple(dict.fromkeys([*alone, *(name for phase in self.phases for name in phase.proxies)]))

    def placed(self, where: Callable[[str], str]) -> Arm:
        """The same arm with generator names replaced by proxy-set folders."""
        return Arm(
            proxy=None if self.proxy is None else where(self.proxy),
            phases=tuple(
                phase.model_copy(update={"proxies": {where(name): share for name, share in phase.proxies.items()}})
                for phase in self.phases
            ),
        )

    def data(self, data: DataConfig) -> DataConfig:
        """The images that this arm is trained and validated on."""
        if self.train_images is None:
            return data
        return data.model_copy(update={"train": None if self.train_images == "all" else self.train_images})


class EvaluationConfig(Config):
    """How the classifiers are evaluated."""

    suite: str = "aa+mt"
    batch_size: Count = 512
    """Number of images attacked at a time; verdicts do not depend on it."""
    keep_images: bool = True
    """Save the adversarial examples and their originals: five bytes per value of the test images for each arm."""
    precision: Precision = "float32"
    """Precision in which the attacks search: float32, bfloat16, or auto for the faster one. The model itself verifies
    every result, and a run that rounding could have decided is made again in float32."""


class MeasureConfig(Config):
    """How generated images are measured against real ones."""

    judged: Count = 10_000
    """Maximal number of real and of generated images for nearest neighbors, precision and recall."""
    which: Literal["all", "kept"] = "all"
    """Which images of a proxy set."""


class CertificationConfig(Config):
    """How the smoothed classifiers are certified. The defaults are Cohen et al.'s (arXiv:1902.02918)."""

    sigma: Positive = 0.25
    """Standard deviation of the noise, in pixels of [0, 1]."""
    selection: Count = 100
    """Number of noisy copies of an image that select its class."""
    samples: Count = 100_000
    """Number of further noisy copies that certify it; more allow larger radii."""
    alpha: Annotated[Number, Field(gt=0, lt=0.5)] = 0.001
    """Failure probability of each certificate."""
    every: Count = 1
    """Certify every N-th test image. The usual CIFAR-10 protocol uses N = 20."""
    images: Count | None = None
    """Maximal number of images to certify. Default: all."""
    arms: tuple[str, ...] = ()
    """Arms to certify. Default: all. Only used by `run`."""


class Reported(Config):
    """Results that a paper reports for a row, in percent. None of them are ours."""

    clean: Number | None = None
    robust: Number
    by: Literal["AA+MT", "AutoAttack", "certified"] = "AA+MT"
    """The attacks behind the robust accuracy."""
    autoattack: Number | None = None
    """Robust accuracy under AutoAttack, if both are known."""
    where: str
    """Paper, and place in it."""
    unsure: str = ""
    """Settings of the row that no available source confirms."""

    def __str__(self) -> str:
        return f"{'-' if self.clean is None else f'{self.clean:.2f}'} / {self.robust:.2f} {self.by}"


class Recipe(Config):
    """A whole run: images, generators, proxy sets, classifiers, evaluation."""

    name: str
    summary: str = ""
    """One sentence for `robustgen list recipes`."""
    seed: int = 0
    seeds: tuple[int, ...] = ()
    """A study: one whole run for each of these seeds, and a report about all. Default: a single run with `seed`."""
    threads: Count = 1
    """CPU threads per stage; several stages run in parallel. The last bits of results depend on it."""
    data: DataConfig
    threat: ThreatConfig
    labeller: TrainingConfig
    generators: dict[str, AnyGeneratorConfig]
    published: dict[str, tuple[str, ...]] = {}
    """Proxy sets that are imported instead of generated: files by name, as for `robustgen import`. A generator of the
    same name is then neither trained nor sampled. Their labels are kept, and all of their images are used."""
    sampling: SamplingConfig
    labels: Literal["predicted", "condition"] = "predicted"
    """Labels of generated images: the labeler's predictions, or the class that the generator was conditioned on. Images
    are ranked by the labeler's probability of that label."""
    label_precision: Precision = "float32"
    """Precision of the labeler's passes over generated images: float32, bfloat16, or auto for the faster one."""
    keep: KeepConfig
    train: TrainingConfig
    arms: dict[str, Arm]
    evaluation: EvaluationConfig = EvaluationConfig()
    measure: MeasureConfig | None = None
    """How to measure the quality of every proxy set. Default: not measured."""
    analyses: tuple[Literal["arc", "transport", "conditions", "transfer"], ...] = ()
    """Analyses of every generator's images (arc, transport, conditions) or of every arm with one generator (transfer).
    """
    certification: CertificationConfig | None = None
    """Certification by randomized smoothing, in addition to the evaluation. Default: none."""
    reported: Reported | None = None

    @model_validator(mode="after")
    def _arms_have_generators(self) -> Recipe:
        for name, arm in self.arms.items():
            for proxy in arm.proxies:
                if proxy not in self.generators and proxy not in self.published:
                    raise ValueError(
                        f"arm {name} names generator {proxy!r}, which the recipe does not have; "
                        f"it has: {', '.join([*self.generators, *self.published]) or 'none'}"
                    )
        for name, fit in self.generators.items():
            if isinstance(fit, ECTConfig) and "/" not in fit.base:
                self._must_be_a_generator(fit.base, f"generators.{name}.base")
        for name in self.certification.arms if self.certification else ():
            if name not in self.arms:
                raise ValueError(f"certification.arms: unknown arm {name!r}; known: {', '.join(self.arms)}")
        for name in self.sampling.special:
            self._must_be_a_generator(name, "sampling.special")
        for name in self.keep.special:
            self._must_be_a_generator(name, "keep.special")
        for draw in (self.sampling, *self.sampling.special.values()):
            if draw.guide is not None and "/" not in draw.guide:
                self._must_be_a_generator(draw.guide, "sampling: guide")
        for name, files in self.published.items():
            if not files:
                raise ValueError(f"published.{name} must name at least one file")
        if not self.arms:
            raise ValueError("a recipe needs at least one arm, got none")
        if self.labeller.loss.PURPOSE != "standard":
            kind = self.labeller.loss.kind
            raise ValueError(f"labeller.loss must be plain (the labeler is a standard classifier), got {kind}")
        if len(self.seeds) == 1 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: a study needs two or more different seeds, got {list(self.seeds)}; for a single run set seed"
            )
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
            ValueError: an unknown setting (the known ones are named), or an invalid value.
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
                    f"train.loss.sigma ({trained:g}) and certification.sigma ({certified:g}) must be equal"
                )
        if training.early_stopping and not self.data.validation:
            raise ValueError(
                "early stopping needs validation images; set data.validation, or train.early_stopping=false"
            )
        if training.models > 1 and not self.data.validation:
            raise ValueError("model selection needs validation images; set data.validation, or train.models=1")
