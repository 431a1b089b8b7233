"""Mixtures of discretised logistics: what a pixel of 256 values is likely to be (arXiv:1701.05517)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustgen.randomness import Rng

LEAST_LOG_SCALE = -7.0


def numbers_per_pixel(colors: int, components: int) -> int:
    """How many numbers say one pixel's mixture: weight, means, scales, and a coefficient for each pair of colors."""
    return components * (1 + 2 * colors + colors * (colors - 1) // 2)


def _parts(numbers: Tensor, colors: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log weights (N, M, H, W); means, log scales (N, C, M, H, W); coefficients (N, pairs, M, H, W), in float32."""
    count, _, height, width = numbers.shape
    pairs = colors * (colors - 1) // 2
    rows = numbers.float().reshape(count, 1 + 2 * colors + pairs, -1, height, width)
    weights, means, scales, coefficients = rows.split([1, colors, colors, pairs], dim=1)
    return weights[:, 0].log_softmax(1), means, scales.clamp_min(LEAST_LOG_SCALE), coefficients.tanh()


def _shifted(means: Tensor, coefficients: Tensor, color: int, before: list[Tensor]) -> Tensor:
    """The means of a color, moved by the colors before it."""
    first = color * (color - 1) // 2
    mean = means[:, color]
    for other, values in enumerate(before):
        mean = mean + coefficients[:, first + other] * values
    return mean


def log_likelihood(images: Tensor, numbers: Tensor) -> Tensor:
    """(N,) log probability of images (N, C, H, W) in [-1, 1], in nats, from `numbers_per_pixel` channels.

        p(v) = sum over m of w_m * product over colors of S((v + 1/255 - mean) / s) - S((v - 1/255 - mean) / s)

    S is the logistic function; the first and the last of the 256 values take the whole tail. A mean is moved by the
    true values of the colors before, each times a coefficient in (-1, 1). The difference is computed as
    S(a) S(-b) (1 - e^(b - a)), exact where the authors' code, whose difference may vanish, takes the density.
    """
    colors = images.shape[1]
    log_weights, means, log_scales, coefficients = _parts(numbers, colors)
    values = [images[:, color, None] for color in range(colors)]
    total = log_weights
    for color, value in enumerate(values):
        centred = value - _shifted(means, coefficients, color, values[:color])
        inverse = (-log_scales[:, color]).exp()
        above = F.logsigmoid(inverse * (centred + 1 / 255))
        below = F.logsigmoid(inverse * (1 / 255 - centred))
        width = torch.log(-torch.expm1(inverse * (-2 / 255)))
        first, last = value < -0.999, value > 0.999
        total = total + torch.where(first, above, torch.where(last, below, above + below + width))
    return total.logsumexp(1).flatten(1).sum(1)


def draw(numbers: Tensor, colors: int, rng: Rng) -> Tensor:
    """Images (N, C, H, W) in [-1, 1], color after color; one stream a row, or one for all."""
    log_weights, means, log_scales, coefficients = _parts(numbers, colors)
    gumbel = -torch.log(-torch.log(rng.uniform(log_weights.shape).clamp(1e-5, 1 - 1e-5)))
    chosen = F.one_hot((log_weights + gumbel).argmax(1), log_weights.shape[1]).movedim(-1, 1)[:, None]
    means, log_scales, coefficients = (
        (part * chosen).sum(2, keepdim=True) for part in (means, log_scales, coefficients)
    )
    uniform = rng.uniform((len(numbers), colors, *numbers.shape[2:])).clamp(1e-5, 1 - 1e-5)
    values: list[Tensor] = []
    for color in range(colors):
        mean = _shifted(means, coefficients, color, values)
        spread = log_scales[:, color].exp() * uniform[:, color, None].logit()
        values.append((mean + spread).clamp(-1, 1))
    return torch.cat(values, dim=1)
