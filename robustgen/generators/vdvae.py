"""A very deep variational autoencoder (Child 2021, arXiv:2011.10650)."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.config.generator_base import GeneratorConfig, TrainedGeneratorConfig
from robustgen.config.generators import VDVAEConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.generators.contracts import Generator, LossTerm, Optimization, TrainingSpec
from robustgen.generators.logistics import draw, log_likelihood, numbers_per_pixel
from robustgen.generators.vdvae_layout import decoder_places, encoder_places
from robustgen.images import DatasetInfo
from robustgen.randomness import Rng

LARGEST_BIAS = 64
"""States of sizes up to this start from a learnt tensor, larger ones from 0."""

PIXEL_MEAN, PIXEL_DEVIATION = 120.63838 / 255, 64.16736 / 255
"""Normalization of the encoder's input, CIFAR-10's for every data set; the convolutions adapt to it."""


class _Block(nn.Module):
    """Four convolutions, each after a GELU: to few channels, two of 3x3 (1x1 at sizes up to 2), and out."""

    def __init__(self, inputs: int, middle: int, outputs: int, size: int):
        super().__init__()
        kernel = 3 if size > 2 else 1
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(inputs, middle, 1),
                nn.Conv2d(middle, middle, kernel, padding=kernel // 2),
                nn.Conv2d(middle, middle, kernel, padding=kernel // 2),
                nn.Conv2d(middle, outputs, 1),
            ]
        )
        for conv in self.convs:
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(F.gelu(x))
        return x

    def scale_last(self, factor: float) -> None:
        with torch.no_grad():
            self.convs[-1].weight.mul_(factor)  # type: ignore[operator]


class _Step(nn.Module):
    """One stochastic layer: prior and posterior of z, and what z does to the state."""

    def __init__(self, width: int, middle: int, latents: int, size: int, depth: int):
        super().__init__()
        self.width, self.latents = width, latents
        self.posterior = _Block(2 * width, middle, 2 * latents, size)
        self.prior = _Block(width, middle, 2 * latents + width, size)
        self.project = nn.Conv2d(latents, width, 1)
        self.residual = _Block(width, middle, width, size)
        self.prior.scale_last(0.0)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.project.weight.mul_(math.sqrt(1 / depth))
        self.residual.scale_last(math.sqrt(1 / depth))

    def forward(self, x: Tensor, seen: Tensor | None, rng: Rng, temperature: float) -> tuple[Tensor, Tensor | None]:
        """The state after the layer, and (N,) nats of KL(posterior || prior) where the image has been `seen`."""
        mean, log_scale, more = self.prior(x).split([self.latents, self.latents, self.width], dim=1)
        mean, log_scale, kl = mean.float(), log_scale.float(), None
        if seen is None:
            log_scale = log_scale + math.log(temperature)
        else:
            found, log_found = self.posterior(torch.cat([x, seen], dim=1)).float().chunk(2, dim=1)
            kl = gaussian_kl(found, log_found, mean, log_scale).flatten(1).sum(1)
            mean, log_scale = found, log_found
        z = mean + log_scale.exp() * rng.normal(mean.shape)
        x = x + more + self.project(z)
        return x + self.residual(x), kl


def gaussian_kl(mean: Tensor, log_scale: Tensor, prior_mean: Tensor, prior_log_scale: Tensor) -> Tensor:
    """KL(N(mean, scale^2) || N(prior mean, prior scale^2)) of each element, in nats."""
    ratio = (2 * (log_scale - prior_log_scale)).exp()
    distance = ((mean - prior_mean) * (-prior_log_scale).exp()) ** 2
    return prior_log_scale - log_scale + (ratio + distance - 1) / 2


class VDVAE(Generator):
    """Latents z of all sizes, from one position to every pixel; each layer's prior knows all before it.

        p(x, z) = p(x | z) * product over l of p(z_l | z_<l)       q(z | x) = product over l of q(z_l | z_<l, x)
        loss    = mean over n of (-log p(x | z) + sum over l of KL(q_l || p_l)) / values in an image

    A state of each size starts from a learnt tensor. A layer of the decoder adds to it the output of the prior next to
    the distribution of z, z itself, and a residual block; the larger state first adds the smaller one, repeated. Where
    it is `conditional`, a class embedding is added to the smallest state (not in the paper); where not, labels are
    ignored, and images come as they do in the data. Layouts: see `fits.VDVAEConfig`.

    Raises:
        ValueError: images that are not square, or layouts that do not fit them.
    """

    kind = "vdvae"

    def __init__(self, shape: tuple[int, int, int], classes: int, settings: VDVAEConfig):
        super().__init__()
        colors, height, width_of_image = shape
        if height != width_of_image:
            raise ValueError(f"a vdvae makes square images only, not {height}x{width_of_image}")
        self.shape, self.classes, self.conditional = shape, classes, settings.conditional
        self.temperature = 1.0
        width, middle = settings.width, max(1, int(settings.width * settings.bottleneck))
        self.encoder_places = encoder_places(settings.encoder, height)
        self.decoder_places = decoder_places(settings.decoder, self.encoder_places, height)
        self.stem = nn.Conv2d(colors, width, 3, padding=1)
        self.encoder = nn.ModuleList(_Block(width, middle, width, place.size) for place in self.encoder_places)
        for block in self.encoder:
            assert isinstance(block, _Block)
            block.scale_last(math.sqrt(1 / len(self.encoder)))
        depth = len(self.decoder_places)
        self.decoder = nn.ModuleList(
            _Step(width, middle, settings.latents, place.size, depth) for place in self.decoder_places
        )
        sizes = sorted({place.size for place in self.decoder_places if place.size <= LARGEST_BIAS})
        self.biases = nn.ParameterDict({str(size): nn.Parameter(torch.zeros(width, size, size)) for size in sizes})
        self.class_embedding = nn.Embedding(classes, width) if settings.conditional else None
        self.gain, self.bias = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))
        self.out = nn.Conv2d(width, numbers_per_pixel(colors, settings.components), 1)
        for conv in (self.stem, self.out):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        assert isinstance(config, VDVAEConfig)
        with rng.seeding_torch():
            return cls(info.shape, len(info.classes), config)

    def encode(self, images: Tensor) -> dict[int, Tensor]:
        """What the encoder leaves of images in [0, 1], by size."""
        x = self.stem((images - PIXEL_MEAN) / PIXEL_DEVIATION)
        left = {x.shape[2]: x}
        for place, block in zip(self.encoder_places, self.encoder, strict=True):
            x = x + block(x)
            if place.factor > 1:
                x = F.avg_pool2d(x, place.factor)
            left[x.shape[2]] = x
        return left

    def decode(
        self, labels: Tensor, rng: Rng, seen: dict[int, Tensor] | None = None, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Numbers of the pixels' mixtures, and (N,) nats of KL; z from the posterior where images have been `seen`."""
        kl = torch.zeros(len(labels), device=labels.device)
        states: dict[int, Tensor] = {}
        for place, step in zip(self.decoder_places, self.decoder, strict=True):
            x = states[place.size] if place.size in states else self._start(place.size, labels)
            if place.source is not None:
                x = x + F.interpolate(states[place.source], scale_factor=place.size // place.source)
            x, cost = step(x, None if seen is None else seen[place.size], rng, temperature)
            states[place.size] = x
            kl = kl if cost is None else kl + cost
        return self.out(states[self.shape[1]] * self.gain + self.bias), kl

    def _start(self, size: int, labels: Tensor) -> Tensor:
        """(N, width, size, size) before any layer of that size."""
        width = len(self.gain)
        start = self.gain.new_zeros(len(labels), width, size, size).contiguous(memory_format=torch.channels_last)
        if str(size) in self.biases:
            start = start + self.biases[str(size)]
        if self.class_embedding is not None and size == self.decoder_places[0].size:
            start = start + self.class_embedding(labels)[:, :, None, None]
        return start

    def nats(self, images: Tensor, labels: Tensor, rng: Rng) -> Tensor:
        """(N,) an upper bound of -log p(x) for images in [0, 1] of 256 values, in nats, by one posterior draw."""
        numbers, kl = self.decode(labels, rng, self.encode(images))
        return kl - log_likelihood(images * 2 - 1, numbers)

    @torch.no_grad()
    def bits_per_dim(self, images: Tensor, labels: Tensor, rng: Rng) -> Tensor:
        """(N,) the same bound in bits for each value of an image; 8 means no knowledge. Call in evaluation mode."""
        return self.nats(images, labels, rng) / (math.prod(self.shape) * math.log(2))

    def loss(self, images: Tensor, labels: Tensor, rng: Rng) -> Tensor:
        """Mean bound, in nats for each value of an image."""
        return self.nats(images, labels, rng).mean() / math.prod(self.shape)

    def training_spec(self, config: TrainedGeneratorConfig, rng: Rng) -> TrainingSpec:
        """AdamW; a step whose gradient norm exceeds 400 is skipped, since rare batches would undo much training."""
        assert isinstance(config, VDVAEConfig)
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=config.peak_lr, betas=(0.9, 0.9), weight_decay=config.weight_decay
        )
        return TrainingSpec(
            optimizations={"network": Optimization(optimizer, clip=200.0, skip_above=400.0)},
            loss_terms={"loss": LossTerm("network", lambda images, labels, rng, done: self.loss(images, labels, rng))},
        )

    def configure_sampler(self, settings: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]:
        """Set the temperature: the factor of the standard deviations of the latents' priors."""
        self.refuse_all_but(settings, "solver", "evaluations", "temperature")
        self.temperature = settings.temperature
        return {"temperature": settings.temperature, "conditional": self.conditional}

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images in [0, 1] of class labels, which are ignored where it is not conditional."""
        # Kernels are chosen by size (see `modes.batch_invariant`); here streams are padded along with the rows.
        rows = torch.arange(len(labels) + -len(labels) % 16, device=labels.device)
        rows[len(labels) :] = 0
        filled = rng.rows(rows)
        numbers, _ = self.decode(labels[rows], filled, temperature=self.temperature)
        return draw(numbers, self.shape[0], filled)[: len(labels)].add(1).div(2)
