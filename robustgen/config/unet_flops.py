"""Operations of the U-Net DDPM++, counted from its settings. Plain arithmetic: no torch here."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def unet_flops(
    side: int,
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    attention: Collection[int],
    *,
    image_channels: int = 3,
    classes: int = 10,
) -> float:
    """Operations of one evaluation on one image of `side` x `side`, as counted by torch (`generators.unet.UNet`).

    A convolution of k x k from i to o channels at s x s pixels has 2 k^2 i o s^2 operations; a block two of 3 x 3, one
    of 1 x 1 where channels or size change, and a linear layer of the embedding; attention four of 1 x 1 and two
    products of 2 c s^4.
    """

    def block(inputs: int, outputs: int, size: int, *, attends: bool = False, resampled: bool = False) -> int:
        weights = 9 * inputs * outputs + 9 * outputs**2 + (inputs * outputs if resampled or inputs != outputs else 0)
        attended = 4 * outputs**2 * size**2 + 2 * outputs * size**4 if attends else 0
        return weights * size**2 + 4 * channels * outputs + attended

    total = classes * channels + 4 * channels**2 + 16 * channels**2 + 9 * image_channels * channels * side**2
    here, skips = channels, [channels]
    for level, multiplier in enumerate(multipliers):
        size = side >> level
        if level:
            total += block(here, here, size, resampled=True)
            skips.append(here)
        for _ in range(blocks):
            total += block(here, channels * multiplier, size, attends=size in attention)
            here = channels * multiplier
            skips.append(here)
    size = side >> (len(multipliers) - 1)
    total += block(here, here, size, attends=True) + block(here, here, size)
    for level, multiplier in reversed(list(enumerate(multipliers))):
        size = side >> level
        if level < len(multipliers) - 1:
            total += block(here, here, size, resampled=True)
        for i in range(blocks + 1):
            attends = i == blocks and size in attention
            total += block(here + skips.pop(), channels * multiplier, size, attends=attends)
            here = channels * multiplier
    return 2.0 * (total + 9 * here * image_channels * side**2)
