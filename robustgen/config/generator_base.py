"""What the settings of all generative models have in common. Plain data: no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from robustgen.config.base import Config, Count, Fraction01, Positive, Precision, TrainingBudget
from robustgen.config.sampler import SamplerConfig

ImageCount = Annotated[int, Field(ge=0)]


class GeneratorConfig(Config):
    """Settings of one generative model, and what can be computed from them without its network.

    `GENERATOR_CONFIGS` lists the classes by `kind`; `generators.GENERATORS` the models that they configure.
    """

    kind: str

    SMALLEST_NETWORK: ClassVar[Mapping[str, Any]] = {}
    """Settings of the smallest network for images of 8x8 pixels."""
    SHORTEST_RUN: ClassVar[Mapping[str, Any]] = {}
    """Settings of the shortest useful training of that network."""

    def smallest(self) -> Self:
        """The same kind with its smallest network and shortest training, for recipes at `--scale tiny`."""
        return type(self).model_validate({**dict(self), **self.SMALLEST_NETWORK, **self.SHORTEST_RUN})

    def fit_flops(self, side: int) -> float | None:
        """Operations of the whole training on images of `side` x `side` pixels; None if not counted."""
        return None

    def sample_flops(self, sampler: SamplerConfig, side: int) -> float | None:
        """Operations per sampled image; None if not counted."""
        return None


class TrainedGeneratorConfig(TrainingBudget, GeneratorConfig):
    """Settings of every generator that is trained by steps. Counts are in training images."""

    total_images: Count
    batch_size: Count
    """Over all processes."""
    peak_lr: Positive
    warmup_images: ImageCount = 0
    cooldown: Fraction01 = 0.0
    """Share of the run, at its end, over which the learning rate falls to 0; 0.3 helps short runs."""
    ema_half_life_images: Positive = 500_000.0
    """Half-life of the EMA of weights ..."""
    ema_half_life_share: Positive | None = 0.05
    """... but at most this share of the images seen so far; no such limit when null."""
    flip: bool = False
    """Mirror training images at random."""
    precision: Precision = "float32"
    """Precision of matrix products and convolutions of the training passes: float32, bfloat16 (by autocast), or auto
    for the faster one on the device. Weights, EMA and losses are always in float32."""
    previews: ImageCount = 8
    """Number of sample grids drawn into `grids/` during training, evenly over the run."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "averaging_images": "ema_half_life_images",
        "averaging_share": "ema_half_life_share",
    }
    """Names of version 0.1, which files on disk still have, and the current ones."""
    SHORTEST_RUN = {
        "total_images": 160 * 32, "batch_size": 32, "warmup_images": 0, "previews": 1, "precision": "float32",
    }  # fmt: skip
    PUBLISHED_NETWORK: ClassVar[tuple[str, ...]] = ()
    """Settings that must be at their defaults (the published network) for the two counts below to be valid."""
    FLOPS_PER_TRAINING_IMAGE: ClassVar[float | None] = None
    """Operations per training image of 3x32x32, forward and backward."""
    FLOPS_PER_EVALUATION: ClassVar[float | None] = None
    """Operations of one evaluation of the network on one image of 3x32x32."""

    @model_validator(mode="before")
    @classmethod
    def _from_old_names(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {new if (new := cls.RENAMED.get(name, name)) not in value else name: v for name, v in value.items()}
        return value

    def fit_flops(self, side: int) -> float | None:
        flops = self.training_flops(side)
        return None if flops is None else flops * self.total_images

    def sample_flops(self, sampler: SamplerConfig, side: int) -> float | None:
        flops = self.evaluation_flops(side)
        passes = self.evaluations(sampler) * (2 if sampler.guidance != 1 else 1)
        return None if flops is None else passes * flops

    def training_flops(self, side: int) -> float | None:
        """Operations per training image, forward and backward; None if not counted."""
        flops = self._if_published(self.FLOPS_PER_TRAINING_IMAGE)
        return None if flops is None else flops * (side / 32) ** 2

    def evaluation_flops(self, side: int) -> float | None:
        """Operations of one evaluation of the network on one image; None if not counted."""
        flops = self._if_published(self.FLOPS_PER_EVALUATION)
        return None if flops is None else flops * (side / 32) ** 2

    def evaluations(self, sampler: SamplerConfig) -> int:
        """Network evaluations per sampled image, without those of a guide."""
        return 1

    def _if_published(self, flops: float | None) -> float | None:
        fields = type(self).model_fields
        return flops if all(getattr(self, n) == fields[n].default for n in self.PUBLISHED_NETWORK) else None
