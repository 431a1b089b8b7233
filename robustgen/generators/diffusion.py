"""Class-conditional diffusion in EDM's form (Karras et al. 2022, arXiv:2206.00364)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from robustgen.config.generator_base import GeneratorConfig, TrainedGeneratorConfig
from robustgen.config.generators import EDMConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.generators.augmentation import augmented
from robustgen.generators.contracts import Generator, LossTerm, Optimization, TrainingSpec
from robustgen.generators.solvers import Sampler
from robustgen.generators.unet import NO_LABEL
from robustgen.generators.unet_adm import unet_of
from robustgen.images import DatasetInfo
from robustgen.modes import batch_invariant
from robustgen.randomness import Rng


class Diffusion(Generator):
    """A network F preconditioned to a denoiser D that is well scaled at every noise level.

        D(x; s) = c_skip x + c_out F(c_in x; ln(s) / 4, class)
        c_skip = d^2 / (s^2 + d^2)   c_out = s d / sqrt(s^2 + d^2)   c_in = 1 / sqrt(s^2 + d^2)   d = sigma_data = 0.5

    Images are in [0, 1] outside and in [-1, 1] inside. Trained by `loss`, sampled by `sampler`, guided by `guide`:

        guide + guidance (D - guide)       guide: a weaker model's denoised image (arXiv:2406.02507), or that of D
                                           itself without the class (arXiv:2207.12598)
    """

    kind = "edm"

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, int, int],
        classes: int,
        *,
        sigma_data: float = 0.5,
        log_mean: float = -1.2,
        log_std: float = 1.2,
        label_dropout: float = 0.0,
        augment: float = 0.0,
        min_snr: float | None = None,
        conditional: bool = True,
    ):
        super().__init__()
        self.network = network
        self.shape, self.classes = shape, classes
        self.sigma_data, self.log_mean, self.log_std = sigma_data, log_mean, log_std
        self.label_dropout, self.augment, self.min_snr = label_dropout, augment, min_snr
        self.conditional = conditional
        self.sampler = Sampler()
        self.guidance = 1.0
        self._guide: tuple[Diffusion, ...] = ()  # in a tuple, so that it is not a submodule

    @classmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        assert isinstance(config, EDMConfig)
        return cls(
            unet_of(config, info, rng),
            info.shape,
            len(info.classes),
            log_mean=config.log_mean,
            log_std=config.log_std,
            label_dropout=config.label_dropout,
            augment=config.augment,
            min_snr=config.min_snr,
            conditional=config.conditional,
        )

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor, augmentation: Tensor | None = None) -> Tensor:
        """D(x; sigma): noisy images in [-1, 1] units, sigma (N,), classes (N,) or NO_LABEL."""
        wide = sigma.view(-1, 1, 1, 1)
        total = wide**2 + self.sigma_data**2
        condition = () if augmentation is None else (augmentation,)
        inner = self.network(x / total.sqrt(), sigma.log() / 4, labels, *condition)
        return x * (self.sigma_data**2 / total) + inner * (wide * self.sigma_data / total.sqrt())

    @property
    def knows_unlabelled(self) -> bool:
        """Whether it was trained to denoise images without a class label."""
        return not self.conditional or self.classes == 1 or self.label_dropout > 0

    def unlabelled(self, images: Tensor) -> Tensor:
        """(N,) the labels by which `denoise` takes images of unknown class."""
        label = 0 if self.classes == 1 else NO_LABEL
        return torch.full((len(images),), label, dtype=torch.int64, device=images.device)

    def loss(self, images: Tensor, labels: Tensor, rng: Rng) -> Tensor:
        """Mean over elements of w(s) (D(y + s n; s) - y)^2, ln s normal, w = (s^2 + d^2) / (s d)^2.

        With that weight it starts near 1 at every noise level. (The official code sums over pixels: the same for
        Adam, up to its 1e-8.) With `min_snr` g the weight is multiplied by min(1, g s^2 / d^2): d^2 / s^2 is the
        signal-to-noise ratio (arXiv:2303.09556).
        """
        clean, augmentation = images * 2 - 1, None
        if self.augment:
            clean, augmentation = augmented(clean, self.augment, rng.at("augment"))
        if self.label_dropout:
            labels = torch.where(rng.uniform((len(clean),)) < self.label_dropout, NO_LABEL, labels)
        sigma = (rng.normal((len(clean),)) * self.log_std + self.log_mean).exp()
        wide = sigma.view(-1, 1, 1, 1)
        noisy = clean + wide * rng.normal(clean.shape)
        weight = (wide**2 + self.sigma_data**2) / (wide * self.sigma_data) ** 2
        if self.min_snr is not None:
            weight = weight * (self.min_snr * wide**2 / self.sigma_data**2).clamp_max(1)
        return (weight * (self.denoise(noisy, sigma, labels, augmentation) - clean) ** 2).mean()

    def training_spec(self, config: TrainedGeneratorConfig, rng: Rng) -> TrainingSpec:
        return TrainingSpec(
            optimizations={"network": Optimization(torch.optim.Adam(self.parameters(), lr=config.peak_lr))},
            loss_terms={"loss": LossTerm("network", lambda images, labels, rng, done: self.loss(images, labels, rng))},
        )

    def configure_sampler(self, settings: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]:
        """Set solver, evaluations and guidance.

        Raises:
            ValueError: an unknown solver, a number of evaluations that it cannot make, or guidance without a guide.
        """
        self.refuse_all_but(settings, "solver", "evaluations", "guidance", "guide")
        self._refuse_guidance(settings, guide)
        solver = settings.solver or "heun"
        self.sampler = Sampler(solver, settings.evaluations or (35 if solver == "heun" else 18))
        how: dict[str, Any] = {"solver": solver, "evaluations": self.sampler.evaluations}
        if not self.conditional:
            how["conditional"] = False
        return how | self._guided_by(settings, guide)

    def _refuse_guidance(self, settings: SamplerConfig, guide: nn.Module | None) -> None:
        if not self.conditional and guide is None:
            settings.refuse(f"an unconditional {self.kind}", "guidance")

    def _guided_by(self, settings: SamplerConfig, guide: nn.Module | None) -> dict[str, Any]:
        self.guidance, self._guide = settings.guidance, ()
        if settings.guidance == 1:
            settings.refuse("a guidance of 1", "guide")
            return {}
        if guide is not None:
            if not isinstance(guide, Diffusion) or (guide.shape, guide.classes) != (self.shape, self.classes):
                raise ValueError(f"the guide {settings.guide} is not a diffusion model of the same shape and classes")
            self._guide = (guide,)
        elif not self.knows_unlabelled:
            raise ValueError(
                "guidance without a guide needs a model that was trained with label dropout (label_dropout above 0); "
                "fit one, or name a weaker generator as the guide"
            )
        return {"guidance": settings.guidance, "guide": settings.guide or "without the class"}

    def _guided(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The denoised images, guided away from those of the guide."""
        denoised = self.denoise(x, sigma, labels)
        if self.guidance == 1:
            return denoised
        weaker = self._guide[0] if self._guide else self
        guide = weaker.denoise(x, sigma, labels if self._guide else self.unlabelled(x))
        return guide + self.guidance * (denoised - guide)

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images in [0, 1] of class labels; call in evaluation mode."""
        noise = rng.normal((len(labels), *self.shape)).contiguous(memory_format=torch.channels_last)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return batch_invariant(self._guided, x, x.new_full((len(x),), sigma), labels)

        return (self.sampler(denoise, noise) + 1).div_(2).clamp_(0, 1)
