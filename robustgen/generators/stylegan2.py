"""StyleGAN2 with adaptive augmentation for small images (Karras et al. 2020, arXiv:1912.04958, arXiv:2006.06676)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.config.generator_base import GeneratorConfig, TrainedGeneratorConfig
from robustgen.config.generators import StyleGAN2Config
from robustgen.config.sampler import SamplerConfig
from robustgen.generators.augmentation import Adaptation, varied
from robustgen.generators.biggan import FIRST, doublings_of
from robustgen.generators.contracts import Generator, LossTerm, Optimization, TrainingSpec
from robustgen.generators.low_precision import depthwise
from robustgen.images import DatasetInfo
from robustgen.modes import batch_invariant, channels_last
from robustgen.randomness import Rng
from robustgen.runtime import distributed

PENALTY_EVERY = 16
"""Steps from one gradient penalty to the next."""

GENERATOR_PENALTY_EVERY = 4
"""The same for the generator's penalty on path lengths: not in the CIFAR-10 setting, but its optimizer is set as if."""

LIMIT = 256.0
"""Activations are kept within it, as in the official code, where half precision needs it."""


class StyleGAN2(Generator):
    """z (N, latents) standard normal, classes (N,) and noise to images: mapping and synthesis.

    z and class become a style w; each resolution from 4x4 on has modulated convolutions, noise for each pixel, and adds
    its own image to the enlarged one from below. With 512 channels and images of 32x32 20.2 million parameters. Images
    are in [0, 1] outside and in [-1, 1] inside.

    Raises:
        ValueError: images that are not square, or whose size is not 8, 16, 32 or 64.
    """

    kind = "stylegan2"

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        channels: int = 512,
        latents: int = 512,
        mapping: int = 2,
        conditional: bool = True,
    ):
        super().__init__()
        self.shape, self.classes, self.channels, self.latents = shape, classes, channels, latents
        self.conditional = conditional
        self.sizes = [FIRST << i for i in range(doublings_of(shape) + 1)]
        self.class_in = _Linear(classes, latents) if conditional else None
        inputs = 2 * latents if conditional else latents
        self.mapping = nn.Sequential(
            *(_Linear(latents if i else inputs, latents, leaky=True, lr=0.01) for i in range(mapping))
        )
        self.first = nn.Parameter(torch.randn(1, channels, FIRST, FIRST))
        self.convs = nn.ModuleList()
        self.pictures = nn.ModuleList()
        for size in self.sizes:
            if size > FIRST:
                self.convs.append(_StyledConv(latents, channels, doubles=True))
            self.convs.append(_StyledConv(latents, channels))
            self.pictures.append(_Picture(latents, channels, shape[0]))

    def noise(self, count: int, rng: Rng) -> list[Tensor]:
        """What a forward pass needs for each convolution: (N, 1, size, size) standard normal."""
        sizes = [size for size in self.sizes for _ in range(1 if size == FIRST else 2)]
        return [rng.at("noise", i).normal((count, 1, size, size)) for i, size in enumerate(sizes)]

    @classmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        assert isinstance(config, StyleGAN2Config)
        with rng.seeding_torch():
            return cls(
                info.shape,
                len(info.classes),
                channels=config.channels,
                latents=config.latents,
                mapping=config.mapping,
                conditional=config.conditional,
            )

    def forward(self, z: Tensor, labels: Tensor, *noise: Tensor) -> Tensor:
        known = [_unit(z)]
        if self.class_in is not None:
            known.append(_unit(self.class_in(F.one_hot(labels, self.classes).to(z.dtype))))
        w = self.mapping(torch.cat(known, dim=1))
        x = self.first.expand(len(z), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        given, convs = iter(noise), iter(self.convs)
        for size, picture in zip(self.sizes, self.pictures, strict=True):
            for _ in range(1 if size == FIRST else 2):
                x = next(convs)(x, w, next(given))
            added = picture(x, w).float()
            image = added if image is None else _doubled(image) + added
        assert image is not None
        return image

    def training_spec(self, config: TrainedGeneratorConfig, rng: Rng) -> TrainingSpec:
        """Non-saturating losses, R1 in every 16th step, images varied as much as the discriminator needs."""
        assert isinstance(config, StyleGAN2Config)
        group_of(config.batch_size // distributed.place()[1])
        device = next(self.parameters()).device
        with rng.seeding_torch():
            discriminator = StyleGAN2Discriminator(
                self.shape,
                self.classes,
                channels=config.channels,
                latents=config.latents,
                mapping=config.class_mapping,
                conditional=config.conditional,
            )
        channels_last(discriminator).to(device)
        adaptation = Adaptation(config.ada_target, config.ada_images, device)

        def judged(images: Tensor, labels: Tensor, rng: Rng) -> Tensor:
            seen = varied(images, adaptation.strength, rng) if config.ada else images
            return discriminator(seen, labels)

        def made(labels: Tensor, rng: Rng) -> Tensor:
            z = rng.at("latents").normal((len(labels), self.latents))
            return self(z, labels, *self.noise(len(labels), rng))

        def generator_loss(images: Tensor, labels: Tensor, rng: Rng, done: float) -> Tensor:
            return F.softplus(-judged(made(labels, rng), labels, rng.at("varied"))).mean()

        def discriminator_loss(images: Tensor, labels: Tensor, rng: Rng, done: float) -> Tensor:
            with torch.no_grad():
                fakes = made(labels, rng)
            fake = judged(fakes, labels, rng.at("varied fakes"))
            real = judged(images * 2 - 1, labels, rng.at("varied"))
            adaptation.see(real)
            return logistic(real, fake)

        def penalty(images: Tensor, labels: Tensor, rng: Rng, done: float) -> Tensor:
            r1 = gradient_penalty(lambda real: judged(real, labels, rng.at("varied")), images * 2 - 1)
            return config.r1 * PENALTY_EVERY * r1

        def optimizer(network: nn.Module, every: int) -> torch.optim.Optimizer:
            # A penalty now and then is one more step of the same Adam: all its rates are slowed to make up for it.
            share = every / (every + 1)
            return torch.optim.Adam(network.parameters(), lr=config.peak_lr * share, betas=(0.0, 0.99**share))

        return TrainingSpec(
            optimizations={
                "generator": Optimization(optimizer(self, GENERATOR_PENALTY_EVERY)),
                "discriminator": Optimization(optimizer(discriminator, PENALTY_EVERY)),
            },
            loss_terms={
                "generator": LossTerm("generator", generator_loss),
                "discriminator": LossTerm("discriminator", discriminator_loss),
                **({"r1": LossTerm("discriminator", penalty, every=PENALTY_EVERY)} if config.r1 else {}),
            },
            extra_state={"discriminator": discriminator, "adaptation": adaptation},
            after_step=adaptation.after_step if config.ada else lambda images: None,
        )

    def configure_sampler(self, settings: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]:
        """Nothing can be set."""
        return super().configure_sampler(settings, guide) | ({} if self.conditional else {"conditional": False})

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images in [0, 1] of class labels, from untruncated latents; call in evaluation mode."""
        z = rng.at("latents").normal((len(labels), self.latents))
        return (batch_invariant(self, z, labels, *self.noise(len(labels), rng)) + 1).div_(2).clamp_(0, 1)


class StyleGAN2Discriminator(nn.Module):
    """Images (N, C, H, H) in [-1, 1] and classes to logits (N,): features . vector of the class / sqrt(latents).

    Where it is not `conditional`, a linear layer makes the logit, and labels are ignored.

    Each resolution down to 8x8 has two convolutions, of which the second halves; at 4x4 one more channel says how much
    the images of a group differ. With 512 channels and images of 32x32 23.1 million parameters.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        channels: int = 512,
        latents: int = 512,
        mapping: int = 8,
        conditional: bool = True,
    ):
        super().__init__()
        self.classes = classes
        halvings = doublings_of(shape)
        self.stem = _Conv(shape[0], channels, 1)
        self.convs = nn.Sequential(
            *(_Conv(channels, channels, 3, halves=second) for _ in range(halvings) for second in (False, True))
        )
        self.last = _Conv(channels + 1, channels, 3)
        self.dense = _Linear(channels * FIRST**2, channels, leaky=True)
        self.out = _Linear(channels, latents if conditional else 1)
        self.class_in = _Linear(classes, latents) if conditional else None
        layers = mapping if conditional else 0
        self.mapping = nn.Sequential(*(_Linear(latents, latents, leaky=True, lr=0.01) for _ in range(layers)))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        x = self.convs(self.stem(images.contiguous(memory_format=torch.channels_last)))
        with torch.autocast(x.device.type, enabled=False):
            x = self.last(with_group_deviation(x.float()))
            features: Tensor = self.out(self.dense(x.flatten(1)))
            if self.class_in is None:
                return features.squeeze(1)
            kind = self.class_in(F.one_hot(labels, self.classes).to(x.dtype))
            return (features * self.mapping(_unit(kind))).sum(1) / math.sqrt(features.shape[1])


def logistic(real: Tensor, fake: Tensor) -> Tensor:
    """E[ln(1 + e^-D(real))] + E[ln(1 + e^D(fake))] of logits."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def gradient_penalty(judge: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """R1 for gamma 1: the mean over images of |dD/dx|^2 / 2; arXiv:1801.04406."""
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(judge(images).sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2


def group_of(count: int) -> int:
    """How many of so many images are compared with each other: 32, or all of fewer.

    Raises:
        ValueError: they do not fall into such groups.
    """
    group = min(32, count)
    if count % group:
        raise ValueError(
            f"stylegan2 needs batches of at most 32 images a process, or of a multiple of it, not of {count}"
        )
    return group


def with_group_deviation(x: Tensor) -> Tensor:
    """(N, C, H, W) with one more channel: the standard deviation over an image's group, mean over its channels and
    pixels."""
    count, _, height, width = x.shape
    group = group_of(count)
    grouped = x.unflatten(0, (group, -1))
    variance = (grouped - grouped.mean(0)).square().mean(0)
    deviation = (variance + 1e-8).sqrt().mean((1, 2, 3)).repeat(group)
    spread = deviation.view(-1, 1, 1, 1).expand(-1, 1, height, width)
    return torch.cat([x, spread], dim=1)


def modulated(x: Tensor, styles: Tensor, weight: Tensor, *, demodulate: bool = True, doubles: bool = False) -> Tensor:
    """A convolution whose input channels are scaled by each image's styles, to output of deviation 1 or as it comes.

        w'_oik = s_i w_oik,      over sqrt(sum over i, k of w'_oik^2 + 1e-8) where it is demodulated

    The scales go onto the input and the factors onto the output: the same as a convolution of each image's own, and
    much faster.

    Args:
        x: (N, I, H, W).
        styles: s, (N, I).
        weight: (O, I, k, k).
        doubles: the result is twice as large, each pixel followed by zeros before the convolution, smoothed after it.
    """
    scaled = x * styles[:, :, None, None].to(x.dtype)
    if doubles:
        # 4 makes up for the zeros.
        y = _smoothed(F.conv_transpose2d(scaled, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
    else:
        y = F.conv2d(scaled, weight, padding=weight.shape[2] // 2)
    if not demodulate:
        return y
    with torch.autocast(x.device.type, enabled=False):
        squares = styles.float().square() @ weight.square().sum((2, 3)).T
        factors = (squares + 1e-8).rsqrt()
    return y * factors[:, :, None, None].to(y.dtype)


class _Linear(nn.Module):
    """Weights of deviation 1 / lr, used at lr / sqrt(inputs): all learn at the same pace (arXiv:1710.10196)."""

    def __init__(self, inputs: int, outputs: int, *, leaky: bool = False, lr: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        # lrelu(a x) = a lrelu(x): its gain of sqrt(2) lies in weight and bias.
        self.leaky, self.lr = leaky, lr * (math.sqrt(2) if leaky else 1.0)
        self.gain = self.lr / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.gain, self.bias * self.lr)
        return F.leaky_relu(x, 0.2) if self.leaky else x


class _Conv(nn.Module):
    """Convolution and leaky ReLU at an equal pace; halves by smoothing and taking every second pixel."""

    def __init__(self, inputs: int, outputs: int, size: int, *, halves: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain, self.halves, self.padding = math.sqrt(2 / (inputs * size**2)), halves, size // 2

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight * self.gain, self.bias * math.sqrt(2)
        if self.halves:
            x = F.conv2d(_smoothed(x, padding=2), weight, bias, stride=2)
        else:
            x = F.conv2d(x, weight, bias, padding=self.padding)
        return F.hardtanh(F.leaky_relu(x, 0.2), -LIMIT, LIMIT)


class _StyledConv(nn.Module):
    def __init__(self, latents: int, channels: int, *, doubles: bool = False):
        super().__init__()
        self.style = _Linear(latents, channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.strength = nn.Parameter(torch.zeros(()))
        self.doubles = doubles

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        x = modulated(x, self.style(w), self.weight, doubles=self.doubles)
        x = x + (noise * self.strength + self.bias[:, None, None]).to(x.dtype)
        return F.hardtanh(F.leaky_relu(x, 0.2) * math.sqrt(2), -LIMIT, LIMIT)


class _Picture(nn.Module):
    """Features to an image, by styles that are not made up for."""

    def __init__(self, latents: int, channels: int, colors: int):
        super().__init__()
        self.style = _Linear(latents, channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(colors, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(colors))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.style(w) / math.sqrt(x.shape[1])
        x = modulated(x, styles, self.weight, demodulate=False)
        return F.hardtanh(x + self.bias[:, None, None].to(x.dtype), -LIMIT, LIMIT)


def _unit(x: Tensor) -> Tensor:
    """Rows of mean square 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


@lru_cache
def _filter(channels: int, device: torch.device, dtype: torch.dtype, gain: float) -> Tensor:
    """[1, 3, 3, 1] in both directions, with a sum of `gain`, for each channel by itself."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device, dtype=dtype)
    return (torch.outer(taps, taps) * (gain / 64)).expand(channels, 1, 4, 4).contiguous()


def _smoothed(x: Tensor, *, padding: int, gain: float = 1.0) -> Tensor:
    channels = x.shape[1]
    return depthwise(F.conv2d, x, _filter(channels, x.device, x.dtype, gain), padding=padding)


def _doubled(images: Tensor) -> Tensor:
    """Twice the size: zeros between pixels, then smoothed."""
    colors = images.shape[1]
    smooth = _filter(colors, images.device, images.dtype, 4.0)
    return depthwise(F.conv_transpose2d, images, smooth, stride=2, padding=1)
