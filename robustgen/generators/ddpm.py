"""Denoising diffusion in discrete time: DDPM (arXiv:2006.11239), sampled by its chain or by DDIM (arXiv:2010.02502)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.config.generator_base import GeneratorConfig, TrainedGeneratorConfig
from robustgen.config.generators import DDPMConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.generators.contracts import LossTerm, Optimization, TrainingSpec
from robustgen.generators.ddpm_steps import REVERSE_PROCESSES, ReverseProcess, alphas_bar
from robustgen.generators.ddpm_unet import DDPMUNet
from robustgen.generators.diffusion import Diffusion
from robustgen.generators.solvers import SOLVERS, Sampler
from robustgen.generators.unet import NO_LABEL
from robustgen.images import DatasetInfo
from robustgen.modes import batch_invariant
from robustgen.randomness import Rng


class DDPM(Diffusion):
    """A network that predicts the noise e in x_t = sqrt(abar_t) x + sqrt(1 - abar_t) e, t = 0 ... T - 1.

    It is a denoiser for every noise level too, and so supports all solvers, guidance and denoised smoothing:

        D(x; s) = x - s network(x / sqrt(1 + s^2), t(s), class),     s_t = sqrt((1 - abar_t) / abar_t)

    t(s) is linear in ln s between the timesteps, and the first or last timestep beyond them. Where it is not
    `conditional`, labels are ignored: classes are as frequent as in the training images.
    """

    kind = "ddpm"
    sigmas: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, int, int],
        classes: int,
        *,
        conditional: bool,
        timesteps: int = 1000,
        betas: str = "linear",
        label_dropout: float = 0.0,
    ):
        super().__init__(network, shape, classes, label_dropout=label_dropout, conditional=conditional)
        self.timesteps, self.betas = timesteps, betas
        self.alphas_bar = alphas_bar(timesteps, betas)
        sigmas = torch.from_numpy(np.sqrt((1 - self.alphas_bar) / self.alphas_bar)).float()
        self.register_buffer("sigmas", sigmas, persistent=False)
        # For the sample grids during training; `configure_sampler` sets it for proxy sets.
        self.chain: ReverseProcess | None = REVERSE_PROCESSES["ddim"]
        self.evaluations = min(timesteps, 50)

    @classmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        assert isinstance(config, DDPMConfig)
        with rng.seeding_torch():
            network = DDPMUNet.from_config(config, info.shape, len(info.classes))
        return cls.around(network, config, info.shape, len(info.classes))

    @classmethod
    def around(cls, network: DDPMUNet, config: DDPMConfig, shape: tuple[int, int, int], classes: int) -> Self:
        """The model of a network that exists already."""
        return cls(
            network,
            shape,
            classes,
            conditional=config.conditional,
            timesteps=config.timesteps,
            betas=config.betas,
            label_dropout=config.label_dropout,
        )

    def time(self, sigma: Tensor) -> Tensor:
        """t(s), rounded to 1/64, so that the timesteps' own noise levels, rounded to float32, give integers."""
        after = torch.searchsorted(self.sigmas, sigma.contiguous()).clamp(1, self.timesteps - 1)
        low, high = self.sigmas[after - 1].log(), self.sigmas[after].log()
        share = ((sigma.log() - low) / (high - low)).clamp(0, 1)
        return ((after - 1 + share) * 64).round() / 64

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor, augmentation: Tensor | None = None) -> Tensor:
        wide = sigma.view(-1, 1, 1, 1)
        return x - wide * self.network(x * torch.rsqrt(1 + wide**2), self.time(sigma), labels)

    def loss(self, images: Tensor, labels: Tensor, rng: Rng) -> Tensor:
        """Mean over elements of (e - network(x_t, t, class))^2, t uniform."""
        if self.label_dropout:
            labels = torch.where(rng.uniform((len(images),)) < self.label_dropout, NO_LABEL, labels)
        t = rng.integers(self.timesteps, (len(images),))
        noise = rng.normal(images.shape)
        wide = self.sigmas[t].view(-1, 1, 1, 1)
        noisy = (images * 2 - 1 + wide * noise) * torch.rsqrt(1 + wide**2)
        return ((self.network(noisy, t.float(), labels) - noise) ** 2).mean()

    def training_spec(self, config: TrainedGeneratorConfig, rng: Rng) -> TrainingSpec:
        return TrainingSpec(
            optimizations={"network": Optimization(torch.optim.Adam(self.parameters(), lr=config.peak_lr), clip=1.0)},
            loss_terms={"loss": LossTerm("network", lambda images, labels, rng, done: self.loss(images, labels, rng))},
        )

    def configure_sampler(self, settings: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]:
        """Set solver (a reverse process of `REVERSE_PROCESSES` or a solver of `SOLVERS`), evaluations and guidance.

        Raises:
            ValueError: an unknown solver, a number of evaluations that it cannot make, or guidance without a guide.
        """
        self.refuse_all_but(settings, "solver", "evaluations", "guidance", "guide")
        self._refuse_guidance(settings, guide)
        solver = settings.solver or "ancestral"
        self.chain = REVERSE_PROCESSES.get(solver)
        if self.chain is not None:
            self.evaluations = settings.evaluations or self.chain.evaluations or self.timesteps
            if self.evaluations > self.timesteps:
                raise ValueError(f"{solver} makes {self.timesteps} evaluations at most, not {self.evaluations}")
        elif solver in SOLVERS:
            self.evaluations = settings.evaluations or (35 if solver == "heun" else 18)
            # At EDM's 80 nothing is left of an image; cosine timesteps reach 20 000, and would take most steps.
            self.sampler = Sampler(solver, self.evaluations, float(self.sigmas[0]), min(80.0, float(self.sigmas[-1])))
        else:
            raise ValueError(f"unknown solver {solver!r}; known for ddpm: {', '.join([*REVERSE_PROCESSES, *SOLVERS])}")
        how = {"solver": solver, "evaluations": self.evaluations, "conditional": self.conditional}
        return how | self._guided_by(settings, guide)

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images in [0, 1] of class labels, which are ignored where it is not conditional.

        Chains clip each denoised image to the range of images, as published; solvers do not.
        """
        if self.chain is None:
            return super().sample(labels, rng)
        x = rng.normal((len(labels), *self.shape)).contiguous(memory_format=torch.channels_last)
        times = self.chain.times(self.timesteps, self.evaluations)
        levels = [*(float(self.alphas_bar[t]) for t in times), 1.0]
        for t, (now, then) in zip(times, pairwise(levels), strict=True):
            sigma = self.sigmas[t].expand(len(x))
            clean = batch_invariant(self._guided, x / math.sqrt(now), sigma, labels).clamp_(-1, 1)
            step = self.chain.weights(now, then)
            x = clean.mul_(step.clean).add_(x, alpha=step.noisy)
            if step.deviation:
                x = x.add_(rng.normal(x.shape), alpha=step.deviation)
        return (x + 1).div_(2).clamp_(0, 1)
