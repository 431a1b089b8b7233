"""Class-conditional diffusion in EDM's form (Karras et al. 2022, arXiv:2206.00364)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustgen.generators.solvers import Sampler
from robustgen.generators.unet import NO_LABEL
from robustgen.modes import row_stable
from robustgen.randomness import Rng


class Diffusion(nn.Module):
    """A network F made a denoiser D that is well scaled at every noise level.

        D(x; s) = c_skip x + c_out F(c_in x; ln(s) / 4, class)
        c_skip = d^2 / (s^2 + d^2)   c_out = s d / sqrt(s^2 + d^2)   c_in = 1 / sqrt(s^2 + d^2)   d = sigma_data = 0.5

    Images are in [0, 1] outside and in [-1, 1] inside. Trained by `loss`, sampled by `sampler`.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, int, int],
        classes: int,
        *,
        sigma_data: float = 0.5,
        log_mean: float = -1.2,
        log_std: float = 1.2,
        flip: bool = False,
        label_dropout: float = 0.0,
    ):
        super().__init__()
        self.network = network
        self.shape, self.classes = shape, classes
        self.sigma_data, self.log_mean, self.log_std = sigma_data, log_mean, log_std
        self.flip = flip
        self.label_dropout = label_dropout
        self.sampler = Sampler()

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x; sigma): noisy images in [-1, 1] units, sigma (N,), classes (N,) or NO_LABEL."""
        wide = sigma.view(-1, 1, 1, 1)
        total = wide**2 + self.sigma_data**2
        inner = self.network(x / total.sqrt(), sigma.log() / 4, labels)
        return x * (self.sigma_data**2 / total) + inner * (wide * self.sigma_data / total.sqrt())

    @property
    def knows_unlabelled(self) -> bool:
        """Whether it was trained to denoise images without knowing their class."""
        return self.classes == 1 or self.label_dropout > 0

    def unlabelled(self, images: Tensor) -> Tensor:
        """(N,) what `denoise` takes for images of unknown class."""
        label = 0 if self.classes == 1 else NO_LABEL
        return torch.full((len(images),), label, dtype=torch.int64, device=images.device)

    def loss(self, images: Tensor, labels: Tensor, rng: Rng) -> Tensor:
        """Mean over elements of w(s) (D(y + s n; s) - y)^2, ln s normal, w = (s^2 + d^2) / (s d)^2.

        With that weight it starts near 1 at every noise level. (The official code sums over pixels: the same for
        Adam, up to its 1e-8.)
        """
        clean = images * 2 - 1
        if self.flip:
            mirrored = (rng.uniform((len(clean),)) < 0.5).view(-1, 1, 1, 1)
            clean = torch.where(mirrored, clean.flip(3), clean)
        if self.label_dropout:
            labels = torch.where(rng.uniform((len(clean),)) < self.label_dropout, NO_LABEL, labels)
        sigma = (rng.normal((len(clean),)) * self.log_std + self.log_mean).exp()
        wide = sigma.view(-1, 1, 1, 1)
        noisy = clean + wide * rng.normal(clean.shape)
        weight = (wide**2 + self.sigma_data**2) / (wide * self.sigma_data) ** 2
        return (weight * (self.denoise(noisy, sigma, labels) - clean) ** 2).mean()

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images in [0, 1] of the asked classes; call in evaluation mode."""
        noise = rng.normal((len(labels), *self.shape)).contiguous(memory_format=torch.channels_last)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return row_stable(self.denoise, x, x.new_full((len(x),), sigma), labels)

        return (self.sampler(denoise, noise) + 1).div_(2).clamp_(0, 1)
