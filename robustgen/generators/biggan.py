"""BigGAN for small images (Brock et al. 2019, arXiv:1809.11096; ajbrock/BigGAN-PyTorch, launch_cifar_ema.sh)."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.config.generator_base import GeneratorConfig, TrainedGeneratorConfig
from robustgen.config.generators import BigGANConfig
from robustgen.generators.contracts import Generator, LossTerm, Optimization, TrainingSpec
from robustgen.images import DatasetInfo
from robustgen.modes import batch_invariant, channels_last
from robustgen.randomness import Rng

FIRST = 4
"""Pixels on a side at which images begin."""

DEVIATION = 0.02
"""Of the weights that training starts from."""


class BigGAN(Generator):
    """z (N, latents) standard normal and classes (N,) to images: the generator, with all that is learnt with it.

    A linear layer makes 4x4 pixels, blocks of two convolutions double them; the class enters by the batch norms. Every
    weight of generator and discriminator is divided by its largest singular value. With 256 channels and images of
    32x32 4.30 million parameters. Images are in [0, 1] outside and in [-1, 1] inside.

    Raises:
        ValueError: images that are not square, or whose size is not 8, 16, 32 or 64.
    """

    kind = "biggan"

    def __init__(self, shape: tuple[int, int, int], classes: int, *, channels: int = 256, latents: int = 128):
        super().__init__()
        doublings = doublings_of(shape)
        self.shape, self.classes, self.channels, self.latents = shape, classes, channels, latents
        self.first = _Linear(latents, channels * FIRST**2)
        self.blocks = nn.ModuleList(_Up(channels, classes) for _ in range(doublings))
        self.norm = nn.BatchNorm2d(channels)
        self.last = _Conv(channels, shape[0], 3)

    @classmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        assert isinstance(config, BigGANConfig)
        with rng.seeding_torch():
            return cls(info.shape, len(info.classes), channels=config.channels, latents=config.latents)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = self.first(z).view(-1, self.channels, FIRST, FIRST).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, labels)
        return torch.tanh(self.last(F.relu(self.norm(x))))

    def training_spec(self, config: TrainedGeneratorConfig, rng: Rng) -> TrainingSpec:
        """`critic_steps` steps of the discriminator for each of the generator; hinge losses."""
        assert isinstance(config, BigGANConfig)
        with rng.seeding_torch():
            discriminator = BigGANDiscriminator(self.shape, self.classes, channels=config.channels)
        channels_last(discriminator).to(next(self.parameters()).device)

        def made(count: int, rng: Rng) -> tuple[Tensor, Tensor]:
            """As many images in [-1, 1], and their classes, all equally likely."""
            labels = rng.at("classes").integers(self.classes, (count,))
            return self(rng.at("latents").normal((count, self.latents)), labels), labels

        def critic_loss(images: Tensor, labels: Tensor, rng: Rng, done: float) -> Tensor:
            with torch.no_grad():
                fakes, asked = made(len(images), rng)
            logits = discriminator(torch.cat([images * 2 - 1, fakes]), torch.cat([labels, asked]))
            real, fake = logits.float().chunk(2)
            return hinge(real, fake)

        def generator_loss(images: Tensor, labels: Tensor, rng: Rng, done: float) -> Tensor:
            fakes, asked = made(len(images), rng)
            return -discriminator(fakes, asked).float().mean()

        def optimizer(network: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.Adam(network.parameters(), lr=config.peak_lr, betas=(0.0, 0.999))

        def finish(model: nn.Module, rng: Rng) -> None:
            assert isinstance(model, BigGAN)
            if config.standing:
                model.measure_statistics(config.standing, config.batch_size, rng)

        return TrainingSpec(
            optimizations={
                "generator": Optimization(optimizer(self)),
                "discriminator": Optimization(optimizer(discriminator)),
            },
            loss_terms={
                "discriminator": LossTerm("discriminator", critic_loss, repeats=config.critic_steps),
                "generator": LossTerm("generator", generator_loss),
            },
            extra_state={"discriminator": discriminator},
            average_buffers=True,
            finish=finish,
        )

    @torch.no_grad()
    def measure_statistics(self, passes: int, batch_size: int, rng: Rng) -> None:
        """Make the batch norms' running statistics the mean over fresh batches: standing statistics.

        Leaves the model in training mode; these passes also bring the largest singular values up to date.
        """
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then keeps the mean over all passes
        self.train()
        for number in range(passes):
            place = rng.at("standing", number)
            labels = place.at("classes").integers(self.classes, (batch_size,))
            self(place.at("latents").normal((batch_size, self.latents)), labels)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images in [0, 1] of class labels, from untruncated latents; call in evaluation mode."""
        z = rng.normal((len(labels), self.latents))
        return (batch_invariant(self, z, labels) + 1).div_(2).clamp_(0, 1)


class BigGANDiscriminator(nn.Module):
    """Images (N, C, H, W) in [-1, 1] and classes to logits (N,): h . w + b + h . class vector, h summed over pixels.

    Blocks halve the images while they are larger than 8, once at least; two more keep the size. With 256 channels and
    images of 32x32 4.21 million parameters.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, *, channels: int = 256):
        super().__init__()
        halvings = max(1, doublings_of(shape) - 1)
        self.blocks = nn.ModuleList(
            _Down(shape[0] if i == 0 else channels, channels, first=i == 0, halves=i < halvings)
            for i in range(halvings + 2)
        )
        self.out = _Linear(channels, 1)
        self.classes = _Embedding(classes, channels)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        x = images
        for block in self.blocks:
            x = block(x)
        features = F.relu(x).float().sum((2, 3))
        return self.out(features).squeeze(1) + (self.classes(labels) * features).sum(1)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))] of logits."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def doublings_of(shape: tuple[int, int, int]) -> int:
    """How often 4x4 pixels are doubled to make images of a shape.

    Raises:
        ValueError: not square, or the size is not a power of 2 from 8 to 64.
    """
    _, height, width = shape
    if height != width or height not in (8, 16, 32, 64):
        raise ValueError(f"a GAN needs images of 8x8, 16x16, 32x32 or 64x64, not {height}x{width}; try edm or vdvae")
    return (height // FIRST).bit_length() - 1


class _Up(nn.Module):
    """Class batch norm, ReLU, double, convolution; again without doubling; plus a 1x1 shortcut."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm_0 = _ClassNorm(channels, classes)
        self.conv_0 = _Conv(channels, channels, 3)
        self.norm_1 = _ClassNorm(channels, classes)
        self.conv_1 = _Conv(channels, channels, 3)
        self.skip = _Conv(channels, channels, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.norm_0(x, labels)), scale_factor=2, mode="nearest")
        h = self.conv_1(F.relu(self.norm_1(self.conv_0(h), labels)))
        # A 1x1 convolution of repeated pixels is the repetition of its result, at a quarter of the cost.
        return h + F.interpolate(self.skip(x), scale_factor=2, mode="nearest")


class _Down(nn.Module):
    """ReLU (not of pixels, in the first block), convolution, ReLU, convolution, halved by means; plus a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, first: bool, halves: bool):
        super().__init__()
        self.first, self.halves = first, halves
        self.conv_0 = _Conv(inputs, outputs, 3)
        self.conv_1 = _Conv(outputs, outputs, 3)
        self.skip = _Conv(inputs, outputs, 1) if first or halves else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_1(F.relu(self.conv_0(x if self.first else F.relu(x))))
        if self.halves:
            # Means before a 1x1 convolution are the means after it, at a quarter of the cost.
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + (x if self.skip is None else self.skip(x))


class _ClassNorm(nn.Module):
    """Batch norm whose gain and bias are tables with a row a class; gains are 1 more than what is in theirs."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = (nn.Embedding(classes, channels) for _ in range(2))
        for table in (self.gain, self.bias):
            nn.init.normal_(table.weight, std=DEVIATION)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = self.norm(x)
        gain, bias = (table(labels).to(x.dtype)[:, :, None, None] for table in (self.gain, self.bias))
        return torch.addcmul(bias, x, 1 + gain)


class _Conv(nn.Conv2d):
    u: Tensor

    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__(inputs, outputs, size, padding=size // 2)
        self.register_buffer("u", torch.randn(outputs))
        nn.init.normal_(self.weight, std=DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, spectrally_normalized(self), self.bias)


class _Linear(nn.Linear):
    u: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.register_buffer("u", torch.randn(outputs))
        nn.init.normal_(self.weight, std=DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, spectrally_normalized(self), self.bias)


class _Embedding(nn.Embedding):
    u: Tensor

    def __init__(self, count: int, outputs: int):
        super().__init__(count, outputs)
        self.register_buffer("u", torch.randn(count))
        nn.init.normal_(self.weight, std=DEVIATION)

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, spectrally_normalized(self))


def spectrally_normalized(layer: _Conv | _Linear | _Embedding) -> Tensor:
    """A layer's weight over its largest singular value, by one step of power iteration from where the last one ended.

    v = W^T u / |W^T u|,   u = W v / |W v|,   W / (u^T W v)       W as (outputs, rest)

    In training mode u is kept for the next time; in evaluation mode the layer stays as it is.

    Source: Miyato et al. 2018, arXiv:1802.05957.
    """
    with torch.autocast(layer.weight.device.type, enabled=False):
        matrix = layer.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(layer.u @ matrix, dim=0, eps=1e-12)
            u = F.normalize(matrix @ v, dim=0, eps=1e-12)
            if layer.training:
                layer.u.copy_(u)
        return layer.weight / torch.dot(u, matrix @ v)
