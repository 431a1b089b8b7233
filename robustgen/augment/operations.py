"""Image operations of AutoAugment and RandAugment on batches of bytes, bitwise equal to Pillow's.

Each operation takes pixels (N, C, H, W) uint8 with one or three channels and amounts (N,) float64, one per image, in
Pillow's units, and returns new pixels. Pixels from outside the image are black. (AutoAugment's own code fills them with
the mean color in most cases; its ports use black or gray.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Operation = Callable[[Tensor, Tensor], Tensor]


def _affine(pixels: Tensor, matrix: Sequence[Tensor | float]) -> Tensor:
    """Sample the nearest pixel at (a x + b y + c, d x + e y + f) for each (x, y), in Pillow's 1/65536 fixed point."""
    count, channels, height, width = pixels.shape
    first = pixels.new_zeros(count, dtype=torch.float64)
    a, b, c, d, e, f = (first + value for value in matrix)

    def place(across: Tensor, down: Tensor, offset: Tensor) -> Tensor:
        x, y = torch.arange(width, device=pixels.device), torch.arange(height, device=pixels.device)
        steps = [(value * 65536 + 0.5).floor().long()[:, None, None] for value in (across, down, offset)]
        return (x * steps[0] + y[:, None] * steps[1] + steps[2]) >> 16

    column, row = place(a, b, c + a * 0.5 + b * 0.5), place(d, e, f + d * 0.5 + e * 0.5)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.where(inside, row * width + column, 0).flatten(1)[:, None].expand(-1, channels, -1)
    return pixels.flatten(2).gather(2, index).view_as(pixels) * inside[:, None]


def _shear_x(pixels: Tensor, amount: Tensor) -> Tensor:
    return _affine(pixels, (1, amount, 0, 0, 1, 0))


def _shear_y(pixels: Tensor, amount: Tensor) -> Tensor:
    return _affine(pixels, (1, 0, 0, amount, 1, 0))


def _translate_x(pixels: Tensor, amount: Tensor) -> Tensor:
    return _affine(pixels, (1, 0, amount, 0, 1, 0))


def _translate_y(pixels: Tensor, amount: Tensor) -> Tensor:
    return _affine(pixels, (1, 0, 0, 0, 1, amount))


def _rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Rotate counterclockwise around the center."""
    angle = -torch.deg2rad(degrees)
    cos, sin = angle.cos().round(decimals=15), angle.sin().round(decimals=15)
    x, y = pixels.shape[3] / 2, pixels.shape[2] / 2
    return _affine(pixels, (cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y))


def _invert(pixels: Tensor, amount: Tensor) -> Tensor:
    return 255 - pixels


def _solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert pixels at or above the threshold."""
    return torch.where(pixels < threshold.view(-1, 1, 1, 1), pixels, 255 - pixels)


def _posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the leading bits of each pixel."""
    mask = 256 - (1 << (8 - bits.long()))
    return pixels & mask.to(torch.uint8).view(-1, 1, 1, 1)


def _auto_contrast(pixels: Tensor, amount: Tensor) -> Tensor:
    """Stretch each channel linearly to the range 0 to 255."""
    low, high = (end.double() for end in torch.aminmax(pixels.flatten(2), dim=2, keepdim=True))
    # Tensor by tensor, because 255 / tensor multiplies by a rounded reciprocal.
    scale = torch.full_like(low, 255.0) / (high - low).clamp_min(1)
    stretched = (pixels.flatten(2).double() * scale + -low * scale).trunc().clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, pixels.flatten(2)).view_as(pixels)


def _equalize(pixels: Tensor, amount: Tensor) -> Tensor:
    """Equalize the histogram of each channel."""
    levels = pixels.flatten(2).long()
    counts = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, torch.ones_like(levels))
    last = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - last) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp_max(255)
    return torch.where(step > 0, table.gather(2, levels), levels).to(torch.uint8).view_as(pixels)


def _gray(pixels: Tensor) -> Tensor:
    """(N, 1, H, W) ITU-R 601 luminance, as int64."""
    if pixels.shape[1] == 1:
        return pixels.long()
    weights = torch.tensor([19595, 38470, 7471], device=pixels.device).view(1, 3, 1, 1)
    return ((pixels.long() * weights).sum(1, keepdim=True) + 0x8000) >> 16


def _blend(degenerate: Tensor | int, pixels: Tensor, factor: Tensor) -> Tensor:
    """degenerate + factor * (pixels - degenerate) in float32, clipped and truncated to bytes."""
    difference = (pixels.int() - degenerate).float()
    blended = difference * factor.float().view(-1, 1, 1, 1)
    return (blended + degenerate).clamp(0, 255).to(torch.uint8)


def _color(pixels: Tensor, factor: Tensor) -> Tensor:
    return _blend(_gray(pixels).int(), pixels, factor)


def _contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    gray = _gray(pixels).flatten(1)
    mean = (gray.sum(1).double() / gray.shape[1] + 0.5).int()
    return _blend(mean.view(-1, 1, 1, 1), pixels, factor)


def _brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return _blend(0, pixels, factor)


def _sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with a 3x3 mean in which the center has weight 5; border pixels are unchanged."""
    smooth = pixels.int()
    if min(pixels.shape[2:]) > 2:
        padded = F.pad(smooth, (-1, -1, -1, -1))
        total = 4 * padded
        for y in (0, 1, 2):
            for x in (0, 1, 2):
                total = total + smooth[:, :, y : y + padded.shape[2], x : x + padded.shape[3]]
        smooth = smooth.clone()
        smooth[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26  # total / 13, rounded; there are no ties, because 13 is odd
    return _blend(smooth, pixels, factor)


OPERATIONS: dict[str, Operation] = {
    "shear-x": _shear_x,
    "shear-y": _shear_y,
    "translate-x": _translate_x,
    "translate-y": _translate_y,
    "rotate": _rotate,
    "auto-contrast": _auto_contrast,
    "invert": _invert,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "contrast": _contrast,
    "color": _color,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "identity": lambda pixels, amount: pixels,
}
TWO_WAYS = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")
"""Operations whose amount has a random sign."""


def amount_of(operation: str, level: float, side: int) -> float:
    """The amount of an operation at a level of 0 to 10, without its sign, as in the code of AutoAugment's authors.

    Translations are in whole pixels: one per level for 32x32 images, in proportion for larger ones. Posterize keeps at
    least one bit. (The paper's table and ports keep 4 to 8 bits, the authors' code keeps at most 4.)

    Source: tensorflow/models, research/autoaugment/augmentation_transforms.py.
    """
    if operation.startswith("shear"):
        return level * 0.3 / 10
    if operation.startswith("translate"):
        return int(level * side / 32)
    if operation == "rotate":
        return int(level * 30 / 10)
    if operation == "solarize":
        return 256 - int(level * 256 / 10)
    if operation == "posterize":
        return max(1, 4 - int(level * 4 / 10))
    return level * 1.8 / 10 + 0.1


def apply_each(names: Sequence[str], chosen: Tensor, amounts: Tensor, pixels: Tensor) -> Tensor:
    """Apply operation names[chosen[n]] with amounts[n] to image n; no operation where `chosen` is negative."""
    result = pixels.clone()
    for number, name in enumerate(names):
        rows = (chosen == number).nonzero().squeeze(1)
        if len(rows):
            result[rows] = OPERATIONS[name](pixels[rows], amounts[rows])
    return result
