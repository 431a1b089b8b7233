"""Easy consistency tuning (ECT): an EDM that makes an image in one or two evaluations (arXiv:2406.14548)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from robustgen.config.generator_base import GeneratorConfig, TrainedGeneratorConfig
from robustgen.config.generators import ECTConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.generators.contracts import LossTerm, Optimization, TrainingSpec
from robustgen.generators.diffusion import Diffusion
from robustgen.generators.unet_adm import unet_of
from robustgen.images import DatasetInfo
from robustgen.modes import batch_invariant
from robustgen.randomness import Rng

SIGMA_MAX = 80.0
SIGMA_AGAIN = 0.821
"""The noise level that is added again for the second evaluation (locuslab/ect)."""


class ConsistencyModel(Diffusion):
    """A denoiser tuned to map every noisy image to the clean end of its trajectory.

        mean over n of |D(x + t e; t) - sg D(x + r e; r)|_2 / (t - r)
        r = max(0, t (1 - q^-(stage + 1) (1 + 8 sigmoid(-t)))),     ln t normal;    at r = 0 the target is x

    Both share noise and dropout. A stage brings r closer to t by the factor q. It starts as a trained EDM, whose
    preconditioning makes D(x; 0) = x already.
    """

    kind = "ect"
    ratio, stages, evaluations = 2.0, 8, 2

    @classmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        assert isinstance(config, ECTConfig)
        return cls(
            unet_of(config, info, rng),
            info.shape,
            len(info.classes),
            log_mean=config.log_mean,
            log_std=config.log_std,
            label_dropout=config.label_dropout,
            conditional=config.conditional,
        )

    def training_spec(self, config: TrainedGeneratorConfig, rng: Rng) -> TrainingSpec:
        assert isinstance(config, ECTConfig)
        self.ratio, self.stages = config.ratio, config.stages
        return TrainingSpec(
            optimizations={"network": Optimization(torch.optim.RAdam(self.parameters(), lr=config.peak_lr))},
            loss_terms={"loss": LossTerm("network", self.tuning_loss)},
        )

    def earlier(self, t: Tensor, stage: int) -> Tensor:
        """r(t): the lower of the two noise levels."""
        return (t * (1 - self.ratio ** -(stage + 1) * (1 + 8 * torch.sigmoid(-t)))).clamp_min(0)

    def tuning_loss(self, images: Tensor, labels: Tensor, rng: Rng, done: float) -> Tensor:
        clean = images * 2 - 1
        t = (rng.normal((len(clean),)) * self.log_std + self.log_mean).exp()
        r = self.earlier(t, int(done * self.stages))
        noise = rng.normal(clean.shape)
        with rng.at("dropout").seeding_torch():
            ahead = self.denoise(clean + t.view(-1, 1, 1, 1) * noise, t, labels)
        with torch.no_grad(), rng.at("dropout").seeding_torch():
            behind = self.denoise(clean + r.view(-1, 1, 1, 1) * noise, r.clamp_min(1e-4), labels)
        target = torch.where((r > 0).view(-1, 1, 1, 1), behind, clean)
        return ((ahead - target).flatten(1).norm(dim=1) / (t - r)).mean()

    def configure_sampler(self, settings: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]:
        """Set the number of evaluations: 1 or 2."""
        self.refuse_all_but(settings, "evaluations")
        evaluations = settings.evaluations or 2
        if evaluations > 2:
            raise ValueError(f"ect makes an image in 1 or 2 evaluations, not in {evaluations}")
        self.evaluations = evaluations
        return {"evaluations": evaluations} if self.conditional else {"evaluations": evaluations, "conditional": False}

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images in [0, 1] of class labels; call in evaluation mode."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return batch_invariant(self.denoise, x, x.new_full((len(x),), sigma), labels)

        x = denoise(rng.normal((len(labels), *self.shape)) * SIGMA_MAX, SIGMA_MAX)
        if self.evaluations == 2:
            x = denoise(x + SIGMA_AGAIN * rng.normal(x.shape), SIGMA_AGAIN)
        return (x + 1).div(2).clamp(0, 1)
