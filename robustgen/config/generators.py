"""Settings of generative models, one class per kind. Plain data: no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from robustgen.config.base import Count, Fraction01, NotNegative, Number, Positive
from robustgen.config.generator_base import GeneratorConfig, ImageCount, TrainedGeneratorConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.config.unet_flops import unet_flops
from robustgen.units import show_value

Layers = Annotated[int, Field(ge=1, le=1000)]
Multipliers = Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)]


class GaussianConfig(GeneratorConfig):
    """One Gaussian per class in pixel space; nothing to set."""

    kind: Literal["gaussian"] = "gaussian"

    def fit_flops(self, side: int) -> float:
        """0: negligible next to any other generator's."""
        return 0.0

    def sample_flops(self, sampler: SamplerConfig, side: int) -> float:
        return 2.0 * (3 * side**2) ** 2


class AugmentedConfig(GeneratorConfig):
    """The training images themselves, augmented: not a generator, but measured like one."""

    kind: Literal["augmented"] = "augmented"
    augment: str = "crop-flip"
    """An augmentation, or several joined by +: see `robustgen list augmentations`."""

    def fit_flops(self, side: int) -> float:
        return 0.0

    def sample_flops(self, sampler: SamplerConfig, side: int) -> float:
        return 0.0


class CustomConfig(GeneratorConfig):
    """A generator of your own: a function of (labels, seed) or a network with `sample`, or a finished folder."""

    kind: Literal["custom"] = "custom"
    source: str
    """FILE.py:NAME or PACKAGE.MODULE:NAME, with arguments if any: `gen.py:make(width=64)`; or the folder of a generator
    that is finished, such as one made by `import-generator`."""
    conditional: bool = True
    """Whether images are of the class of their label. Otherwise labels are ignored, and images are labeled later."""


class UNetConfig(TrainedGeneratorConfig):
    """The U-Net and the training noise that `edm` and `ect` share."""

    network: Literal["ddpm++", "ncsn++", "adm"] = "ddpm++"
    """The U-Net of EDM's vp settings, of its ve settings, or of its ImageNet settings (arXiv:2105.05233)."""
    conditional: bool = True
    """Whether it is conditioned on the class label. Otherwise images come from any class, and are labeled later."""
    channels: Count = 128
    multipliers: Multipliers = (2, 2, 2)
    blocks: Layers = 4
    attention: tuple[Count, ...] = (16,)
    """Sizes in pixels at which blocks have attention."""
    dropout: Fraction01 = 0.13
    label_dropout: Fraction01 = 0.0
    """Share of training images whose class label is withheld. Above 0 the network can denoise for `certify --denoise`,
    and supports classifier-free guidance."""
    augment: Fraction01 = 0.12
    """Probability of each of EDM's augmentations. The network is conditioned on them, so samples come out unaugmented.
    At 0 only `flip` augments."""
    log_mean: Number = -1.2
    log_std: Positive = 1.2
    """Mean and standard deviation of the logarithm of the training noise."""

    SMALLEST_NETWORK = {"channels": 8, "multipliers": (1, 1), "blocks": 1, "attention": (), "augment": 0.0}
    PUBLISHED_NETWORK = ("network", "channels", "multipliers", "blocks", "attention")
    FLOPS_PER_EVALUATION = 42.4e9
    EVALUATIONS_PER_TRAINING_IMAGE: ClassVar[int]
    """Cost of a training image in evaluations of the network."""

    def training_flops(self, side: int) -> float | None:
        flops = self.evaluation_flops(side)
        return None if flops is None else self.EVALUATIONS_PER_TRAINING_IMAGE * flops

    def evaluation_flops(self, side: int) -> float | None:
        published = super().evaluation_flops(side)
        if published is not None or self.network != "ddpm++":
            return published
        return unet_flops(side, self.channels, self.multipliers, self.blocks, self.attention)


class EDMConfig(UNetConfig):
    """A class-conditional diffusion model in EDM's form. The defaults are its CIFAR-10 network and schedule."""

    kind: Literal["edm"] = "edm"
    min_snr: Positive | None = None
    """Clamp the signal-to-noise ratio in the loss weight to this value (arXiv:2303.09556); 5 is usual."""
    total_images: Count = 200_000_000
    batch_size: Count = 512
    peak_lr: Positive = 1e-3
    """Of Adam."""
    warmup_images: ImageCount = 10_000_000

    SHORTEST_RUN = {**TrainedGeneratorConfig.SHORTEST_RUN, "peak_lr": 2e-3}
    EVALUATIONS_PER_TRAINING_IMAGE = 3

    def evaluations(self, sampler: SamplerConfig) -> int:
        return sampler.evaluations or (35 if sampler.solver in (None, "heun") else 18)


class ECTConfig(UNetConfig):
    """An EDM fine-tuned to sample in one or two evaluations (ECT). Its network must be that of its base."""

    kind: Literal["ect"] = "ect"
    base: str = "edm"
    """The trained EDM to initialize from: a generator of the same recipe, or a folder."""
    ratio: Annotated[Number, Field(gt=1)] = 2.0
    """q: each stage brings the two compared noise levels closer by this factor; 256 with a single stage."""
    stages: Count = 8
    """Number of stages, all equally long."""
    dropout: Fraction01 = 0.2
    augment: Fraction01 = 0.12
    """As in its base: above 0 the network has an input for augmentations. ECT itself trains without augmentation."""
    log_mean: Number = -1.1
    log_std: Positive = 2.0
    total_images: Count = 51_200_000
    batch_size: Count = 128
    peak_lr: Positive = 1e-4
    """Of RAdam."""
    ema_half_life_images: Positive = 887_187.0
    """A decay of 0.9999 per step of 128 images."""

    SHORTEST_RUN = {**TrainedGeneratorConfig.SHORTEST_RUN, "peak_lr": 1e-3}
    EVALUATIONS_PER_TRAINING_IMAGE = 4

    def evaluations(self, sampler: SamplerConfig) -> int:
        return sampler.evaluations or 2


class DDPMConfig(TrainedGeneratorConfig):
    """The diffusion model of Ho et al. (arXiv:2006.11239). The defaults are its CIFAR-10 network and schedule."""

    kind: Literal["ddpm"] = "ddpm"
    channels: Count = 128
    multipliers: Multipliers = (1, 2, 2, 2)
    blocks: Layers = 2
    attention: tuple[Count, ...] = (16,)
    """Sizes in pixels at which blocks have attention."""
    dropout: Fraction01 = 0.1
    conditional: bool = False
    """Whether it is conditioned on the class label. Otherwise images are of any class, and are pseudo-labeled later."""
    label_dropout: Fraction01 = 0.0
    """Share of training images whose class label is withheld from a conditional network. Above 0 it can denoise for
    `certify --denoise`, and supports classifier-free guidance."""
    timesteps: Annotated[int, Field(ge=2, le=1_000_000)] = 1000
    betas: Literal["linear", "cosine"] = "linear"
    """linear: from 1e-4 to 0.02. cosine: arXiv:2102.09672."""
    total_images: Count = 102_400_000
    batch_size: Count = 128
    peak_lr: Positive = 2e-4
    """Of Adam."""
    warmup_images: ImageCount = 640_000
    flip: bool = True
    ema_half_life_images: Positive = 887_187.0
    """A decay of 0.9999 per step of 128 images."""
    ema_half_life_share: Positive | None = None

    SMALLEST_NETWORK = {"channels": 8, "multipliers": (1, 1), "blocks": 1, "attention": ()}
    SHORTEST_RUN = {**TrainedGeneratorConfig.SHORTEST_RUN, "peak_lr": 2e-3, "timesteps": 50}
    PUBLISHED_NETWORK = ("channels", "multipliers", "blocks", "attention")
    FLOPS_PER_TRAINING_IMAGE = 3 * 12.44e9
    FLOPS_PER_EVALUATION = 12.44e9

    def evaluations(self, sampler: SamplerConfig) -> int:
        return sampler.evaluations or (50 if sampler.solver in ("ddim", "ddim-quadratic") else self.timesteps)


class VDVAEConfig(TrainedGeneratorConfig):
    """The very deep variational autoencoder of Child (arXiv:2011.10650). The defaults are its CIFAR-10 setting."""

    kind: Literal["vdvae"] = "vdvae"
    width: Count = 384
    bottleneck: Positive = 0.25
    """Channels inside a block, as a share of `width`."""
    latents: Count = 16
    """Channels of z."""
    encoder: str = "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3"
    """SIZExBLOCKS, or SIZEdFACTOR for a block whose output is average-pooled by FACTOR."""
    decoder: str = "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21"
    """SIZExBLOCKS, or SIZEmFROM for a block that first adds the state of size FROM, upsampled by repetition."""
    components: Count = 10
    """Logistics in the mixture of each pixel value."""
    conditional: bool = False
    """Whether it is conditioned on the class label (the paper's is not)."""
    weight_decay: NotNegative = 0.01
    total_images: Count = 32_000_000
    batch_size: Count = 32
    peak_lr: Positive = 2e-4
    """Of AdamW."""
    warmup_images: ImageCount = 3_200
    ema_half_life_images: Positive = 221_797.0
    """A decay of 0.9999 per step of 32 images."""
    ema_half_life_share: Positive | None = None

    SMALLEST_NETWORK = {
        "width": 16, "latents": 4, "components": 2, "encoder": "8x1,8d2,4d4,1x1", "decoder": "1x1,4m1,8m4,8x1",
    }  # fmt: skip
    SHORTEST_RUN = {**TrainedGeneratorConfig.SHORTEST_RUN, "peak_lr": 2e-3}
    PUBLISHED_NETWORK = ("width", "bottleneck", "latents", "encoder", "decoder")
    FLOPS_PER_TRAINING_IMAGE = 3 * 44.8e9
    FLOPS_PER_EVALUATION = 25.3e9


class BigGANConfig(TrainedGeneratorConfig):
    """BigGAN (arXiv:1809.11096). The defaults are the CIFAR-10 setting of its authors' PyTorch code."""

    kind: Literal["biggan"] = "biggan"
    channels: Count = 256
    latents: Count = 128
    critic_steps: Count = 4
    """Discriminator steps per generator step, each on fresh images."""
    standing: ImageCount = 16
    """Forward passes that measure the finished generator's batch-norm statistics (standing statistics); 0 keeps the
    running ones."""
    total_images: Count = 6_250_000
    """Counted once per generator step."""
    batch_size: Count = 50
    peak_lr: Positive = 2e-4
    """Of both Adams."""
    ema_half_life_images: Positive = 346_557.0
    """A decay of 0.9999 per step of 50 images."""

    SMALLEST_NETWORK = {"channels": 8, "latents": 4}
    SHORTEST_RUN = {**TrainedGeneratorConfig.SHORTEST_RUN, "standing": 2}
    PUBLISHED_NETWORK = ("channels", "latents", "critic_steps")
    # A generator step through the discriminator, and four discriminator steps on real and generated images.
    FLOPS_PER_TRAINING_IMAGE = 3 * 3.36e9 + 3 * 2.16e9 + 4 * (3.36e9 + 6 * 2.16e9)
    FLOPS_PER_EVALUATION = 3.36e9


class StyleGAN2Config(TrainedGeneratorConfig):
    """StyleGAN2 with adaptive discriminator augmentation (arXiv:2006.06676). The defaults are its `cifar` setting."""

    kind: Literal["stylegan2"] = "stylegan2"
    channels: Count = 512
    latents: Count = 512
    mapping: Layers = 2
    """Layers of the mapping network from z to w."""
    class_mapping: Layers = 8
    """Layers of the discriminator's mapping network of the class label."""
    conditional: bool = True
    """Whether it is conditioned on the class label. Otherwise images come from any class, and are labeled later."""
    r1: NotNegative = 0.01
    """gamma of the gradient penalty."""
    ada_target: Fraction01 = 0.6
    """Target of E[sign(D(real))]; the augmentation strength grows while it is above the target."""
    ada_images: Positive = 500_000.0
    """Training images over which the augmentation strength may grow by 1."""
    ada: bool = True
    """Whether the discriminator's images are augmented adaptively."""
    total_images: Count = 100_000_000
    batch_size: Count = 64
    peak_lr: Positive = 2.5e-3
    """Of both Adams."""

    SMALLEST_NETWORK = {"channels": 8, "latents": 8, "class_mapping": 1}
    PUBLISHED_NETWORK = ("channels", "latents", "mapping", "class_mapping")
    # Without the gradient penalty, which is computed every 16th step.
    FLOPS_PER_TRAINING_IMAGE = 3 * 12.8e9 + 3 * 8.0e9 + 12.8e9 + 6 * 8.0e9
    FLOPS_PER_EVALUATION = 12.8e9


GENERATOR_CONFIGS: dict[str, type[GeneratorConfig]] = {
    "gaussian": GaussianConfig,
    "ddpm": DDPMConfig,
    "edm": EDMConfig,
    "ect": ECTConfig,
    "vdvae": VDVAEConfig,
    "biggan": BigGANConfig,
    "stylegan2": StyleGAN2Config,
    "augmented": AugmentedConfig,
    "custom": CustomConfig,
}
"""By `kind`. A program may add its own, together with the model in `generators.GENERATORS`."""


def generator_config(value: object) -> GeneratorConfig:
    """The settings in a dictionary, validated by the class of their `kind`; settings that are validated already pass.

    Raises:
        ValueError: an unknown kind (the known ones are listed), or settings that do not fit.
    """
    if isinstance(value, GeneratorConfig):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in GENERATOR_CONFIGS:
        known = ", ".join(GENERATOR_CONFIGS)
        raise ValueError(f"expected settings with a kind of generator, one of {known}; got kind {show_value(kind)}")
    return GENERATOR_CONFIGS[kind].model_validate(value)


AnyGeneratorConfig = Annotated[SerializeAsAny[GeneratorConfig], BeforeValidator(generator_config)]
"""The type of a field that holds the settings of any registered kind."""
