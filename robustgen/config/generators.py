"""What generators are told: the settings of each kind, and how they are drawn from. Plain data: no torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robustgen.config.base import Config, Count, Fraction01, NotNegative, Number, Positive, TrainingBudget

Images = Annotated[int, Field(ge=0)]


class GaussianConfig(Config):
    """One Gaussian per class in pixel space; nothing to set."""

    kind: Literal["gaussian"] = "gaussian"


class AugmentedConfig(Config):
    """The training images themselves, augmented; no generator, but measured like one."""

    kind: Literal["augmented"] = "augmented"
    augment: str = "crop-flip"
    """An augmentation, or several joined by +: see `robustgen list augmentations`."""


class TrainedGeneratorConfig(TrainingBudget):
    """What every generator that learns by steps is told. Counts are in training images."""

    total_images: Count
    batch_size: Count
    """Over all processes."""
    peak_lr: Positive
    warmup_images: Images = 0
    cooldown: Fraction01 = 0.0
    """Share of the run, at its end, over which the learning rate falls to 0; 0.3 helps short runs."""
    averaging_images: Positive = 500_000.0
    """Half-life of the weight average ..."""
    averaging_share: Positive | None = 0.05
    """... but at most this share of the images seen so far; no such limit when not given."""
    flip: bool = False
    """Mirror training images at random."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: matrix products and convolutions of the training passes in it, by torch's autocast."""
    previews: Images = 8
    """How often a grid of samples is drawn into `grids/` while it trains, evenly over the run."""


class _UNetConfig(TrainedGeneratorConfig):
    channels: Count = 128
    multipliers: tuple[Count, ...] = (2, 2, 2)
    blocks: Count = 4
    attention: tuple[Count, ...] = (16,)
    """Sizes in pixels at which blocks attend."""
    dropout: Fraction01 = 0.13
    label_dropout: Fraction01 = 0.0
    """Share of training images whose class is kept from the network; above 0 it can denoise for `certify --denoise`
    and be guided away from images of no class."""
    augment: Fraction01 = 0.12
    """How likely each of EDM's augmentations is; the network is told what was done, and asked for nothing of it. With
    0 images stay as they are, and are not mirrored but by `flip`."""
    log_mean: Number = -1.2
    log_std: Positive = 1.2
    """Mean and deviation of the logarithm of the training noise."""


class EDMConfig(_UNetConfig):
    """A class-conditional diffusion model in EDM's form. The defaults are its CIFAR-10 network and schedule."""

    kind: Literal["edm"] = "edm"
    min_snr: Positive | None = None
    """Weigh little noise less, as if its signal-to-noise ratio were this at most (arXiv:2303.09556); 5 is usual."""
    total_images: Count = 200_000_000
    batch_size: Count = 512
    peak_lr: Positive = 1e-3
    """Of Adam."""
    warmup_images: Images = 10_000_000


class ECTConfig(_UNetConfig):
    """An EDM tuned to make images in one or two evaluations (ECT). Its network must be its base's."""

    kind: Literal["ect"] = "ect"
    base: str = "edm"
    """The trained EDM that it starts from: a generator of the same recipe, or a folder."""
    ratio: Annotated[Number, Field(gt=1)] = 2.0
    """q: each stage brings the two noise levels that are compared closer by this factor; 256 with a single stage."""
    stages: Count = 8
    """Even parts of the run."""
    dropout: Fraction01 = 0.2
    augment: Fraction01 = 0.12
    """Its base's: above 0 the network has an input for it. Tuning itself augments nothing."""
    log_mean: Number = -1.1
    log_std: Positive = 2.0
    total_images: Count = 51_200_000
    batch_size: Count = 128
    peak_lr: Positive = 1e-4
    """Of RAdam."""
    averaging_images: Positive = 887_187.0
    """0.9999 a step of 128."""


class DDPMConfig(TrainedGeneratorConfig):
    """The diffusion model of Ho et al. (arXiv:2006.11239). The defaults are its CIFAR-10 network and schedule."""

    kind: Literal["ddpm"] = "ddpm"
    channels: Count = 128
    multipliers: tuple[Count, ...] = (1, 2, 2, 2)
    blocks: Count = 2
    attention: tuple[Count, ...] = (16,)
    """Sizes in pixels at which blocks attend."""
    dropout: Fraction01 = 0.1
    conditional: bool = False
    """Whether it is told the class; without, images are drawn of any class, and labelled afterwards."""
    label_dropout: Fraction01 = 0.0
    """Share of training images whose class is kept from a conditional network; above 0 it can denoise for
    `certify --denoise` and be guided away from images of no class."""
    timesteps: Annotated[int, Field(ge=2)] = 1000
    betas: Literal["linear", "cosine"] = "linear"
    """linear: from 1e-4 to 0.02. cosine: arXiv:2102.09672."""
    total_images: Count = 102_400_000
    batch_size: Count = 128
    peak_lr: Positive = 2e-4
    """Of Adam."""
    warmup_images: Images = 640_000
    flip: bool = True
    averaging_images: Positive = 887_187.0
    """0.9999 a step of 128."""
    averaging_share: Positive | None = None


class VDVAEConfig(TrainedGeneratorConfig):
    """The very deep variational autoencoder of Child (arXiv:2011.10650). The defaults are its CIFAR-10 setting."""

    kind: Literal["vdvae"] = "vdvae"
    width: Count = 384
    bottleneck: Positive = 0.25
    """Channels inside a block, of its width."""
    latents: Count = 16
    """Channels of z."""
    encoder: str = "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3"
    """SIZExBLOCKS, and SIZEdFACTOR for a block that is averaged down by FACTOR."""
    decoder: str = "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21"
    """SIZExBLOCKS, and SIZEmFROM for a block that first adds the state of size FROM, repeated."""
    components: Count = 10
    """Logistics in the mixture of each pixel."""
    conditional: bool = False
    """Whether it is told the class (not in the paper)."""
    weight_decay: NotNegative = 0.01
    total_images: Count = 32_000_000
    batch_size: Count = 32
    peak_lr: Positive = 2e-4
    """Of AdamW."""
    warmup_images: Images = 3_200
    averaging_images: Positive = 221_797.0
    """0.9999 a step of 32."""
    averaging_share: Positive | None = None


class BigGANConfig(TrainedGeneratorConfig):
    """BigGAN (arXiv:1809.11096). The defaults are the CIFAR-10 setting of its authors' PyTorch code."""

    kind: Literal["biggan"] = "biggan"
    channels: Count = 256
    latents: Count = 128
    critic_steps: Count = 4
    """Steps of the discriminator for one of the generator, each on fresh images."""
    standing: Images = 16
    """Passes by which the finished generator's batch-norm statistics are measured; 0 keeps the running ones."""
    total_images: Count = 6_250_000
    """Counted once a generator step."""
    batch_size: Count = 50
    peak_lr: Positive = 2e-4
    """Of both Adams."""
    averaging_images: Positive = 346_557.0
    """0.9999 a step of 50."""


class StyleGAN2Config(TrainedGeneratorConfig):
    """StyleGAN2 with adaptive discriminator augmentation (arXiv:2006.06676). The defaults are its `cifar` setting."""

    kind: Literal["stylegan2"] = "stylegan2"
    channels: Count = 512
    latents: Count = 512
    mapping: Count = 2
    """Layers of the mapping from z to w."""
    class_mapping: Count = 8
    """Layers of the discriminator's mapping of the class."""
    r1: NotNegative = 0.01
    """gamma of the gradient penalty."""
    ada_target: Fraction01 = 0.6
    """Share by which the discriminator may be surer of real images than not, before images are augmented more."""
    ada_images: Positive = 500_000.0
    """Images over which the strength of the augmentation may grow by 1."""
    ada: bool = True
    """Whether the discriminator sees augmented images."""
    total_images: Count = 100_000_000
    batch_size: Count = 64
    peak_lr: Positive = 2.5e-3
    """Of both Adams."""


Generator = Annotated[
    GaussianConfig
    | AugmentedConfig
    | DDPMConfig
    | EDMConfig
    | ECTConfig
    | VDVAEConfig
    | BigGANConfig
    | StyleGAN2Config,
    Field(discriminator="kind"),
]
GENERATOR_CONFIGS: dict[str, type[Config]] = {
    "gaussian": GaussianConfig,
    "ddpm": DDPMConfig,
    "edm": EDMConfig,
    "ect": ECTConfig,
    "vdvae": VDVAEConfig,
    "biggan": BigGANConfig,
    "stylegan2": StyleGAN2Config,
    "augmented": AugmentedConfig,
}
Trained = DDPMConfig | EDMConfig | ECTConfig | VDVAEConfig | BigGANConfig | StyleGAN2Config


class SamplerConfig(Config):
    """How images are drawn from a generator."""

    solver: str | None = None
    """Of diffusion models: see `robustgen list solvers`; for ddpm also ancestral, ancestral-small, ddim and
    ddim-quadratic. When not given heun, for ddpm ancestral."""
    evaluations: Count | None = None
    """Network evaluations for an image of a diffusion model. When not given 35 for heun, 18 for the other solvers;
    all its times for ancestral, 50 for ddim; 2 for ect."""
    guidance: NotNegative = 1.0
    """w in guide + w (denoised - guide), for diffusion models; 1 is no guidance."""
    guide: str | None = None
    """The generator to be guided away from, a weaker one of the same classes (autoguidance): a generator of the same
    recipe, or a folder. When not given: the network itself, not told the class (classifier-free guidance)."""
    temperature: Positive = 1.0
    """Of the latents of a vdvae: factor of their deviation."""

    def refuse(self, kind: str, *names: str) -> None:
        """Raises ValueError when one of these is set: it would change nothing."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} ({getattr(self, name)}) changes nothing for {kind}; leave it out")
