"""Easy consistency tuning (ECT): an EDM that makes an image in one or two evaluations (arXiv:2406.14548)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustgen.config.generators import ECTConfig, SamplerConfig, TrainedGeneratorConfig
from robustgen.generators.contracts import LossTerm, Optimization, TrainingSpec
from robustgen.generators.diffusion import Diffusion
from robustgen.modes import batch_invariant
from robustgen.randomness import Rng

SIGMA_MAX = 80.0
SIGMA_AGAIN = 0.821
"""The noise that is put back on for the second evaluation (locuslab/ect)."""


class Consistency(Diffusion):
    """A denoiser tuned to answer every noisy image with the clean end of its trajectory.

        mean over n of |D(x + t e; t) - sg D(x + r e; r)|_2 / (t - r)
        r = max(0, t (1 - q^-(stage + 1) (1 + 8 sigmoid(-t)))),     ln t normal;    at r = 0 the target is x

    Both share noise and dropout. A stage brings r closer to t by the factor q. It starts as a trained EDM, whose
    preconditioning makes D(x; 0) = x already.
    """

    ratio, stages, evaluations = 2.0, 8, 2

    def training_spec(self, fit: TrainedGeneratorConfig, rng: Rng) -> TrainingSpec:
        assert isinstance(fit, ECTConfig)
        self.ratio, self.stages = fit.ratio, fit.stages
        return TrainingSpec(
            optimizations={"network": Optimization(torch.optim.RAdam(self.parameters(), lr=fit.peak_lr))},
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

    def configure_sampler(self, draw: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]:
        """Set whether one or two evaluations are made."""
        draw.refuse("ect", "solver", "guidance", "guide", "temperature")
        evaluations = draw.evaluations or 2
        if evaluations > 2:
            raise ValueError(f"ect makes an image in 1 or 2 evaluations, not in {evaluations}")
        self.evaluations = evaluations
        return {"evaluations": evaluations}

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images in [0, 1] of the asked classes; call in evaluation mode."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return batch_invariant(self.denoise, x, x.new_full((len(x),), sigma), labels)

        x = denoise(rng.normal((len(labels), *self.shape)) * SIGMA_MAX, SIGMA_MAX)
        if self.evaluations == 2:
            x = denoise(x + SIGMA_AGAIN * rng.normal(x.shape), SIGMA_AGAIN)
        return (x + 1).div(2).clamp(0, 1)
