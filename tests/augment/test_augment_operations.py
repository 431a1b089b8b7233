"""AutoAugment's and RandAugment's operations beside Pillow's, and how they are drawn."""

import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from conftest import REPOSITORY, real_data
from robustgen.augment import AutoAugment, RandAugment
from robustgen.augment.autoaugment import POLICIES, RANDOM_OPERATIONS
from robustgen.augment.operations import OPERATIONS, TWO_WAYS, amount_of, apply_each
from robustgen.images import to_unit
from robustgen.randomness import rng_for

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from unpack_cifar10 import read_packed

AFFINE = Image.Transform.AFFINE
PILLOW = {
    "shear-x": lambda image, amount: image.transform(image.size, AFFINE, (1, amount, 0, 0, 1, 0)),
    "shear-y": lambda image, amount: image.transform(image.size, AFFINE, (1, 0, 0, amount, 1, 0)),
    "translate-x": lambda image, amount: image.transform(image.size, AFFINE, (1, 0, amount, 0, 1, 0)),
    "translate-y": lambda image, amount: image.transform(image.size, AFFINE, (1, 0, 0, 0, 1, amount)),
    "rotate": lambda image, amount: image.rotate(amount),
    "auto-contrast": lambda image, amount: ImageOps.autocontrast(image),
    "invert": lambda image, amount: ImageOps.invert(image),
    "equalize": lambda image, amount: ImageOps.equalize(image),
    "solarize": lambda image, amount: ImageOps.solarize(image, amount),
    "posterize": lambda image, amount: ImageOps.posterize(image, int(amount)),
    "contrast": lambda image, amount: ImageEnhance.Contrast(image).enhance(amount),
    "color": lambda image, amount: ImageEnhance.Color(image).enhance(amount),
    "brightness": lambda image, amount: ImageEnhance.Brightness(image).enhance(amount),
    "sharpness": lambda image, amount: ImageEnhance.Sharpness(image).enhance(amount),
    "identity": lambda image, amount: image,
}


def bytes_of(name: str) -> np.ndarray:
    """(N, H, W, C) real CIFAR-10 images; noise with few levels, flat images and a ramp; both in grey."""
    if name.startswith("real"):
        images = read_packed(real_data("cifar10_test_0_7999.npz"), 40)[0]
    else:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (12, 20, 24, 3), dtype=np.uint8)
        images[0], images[1], images[2, :, :12], images[3] = 0, 255, 7, images[3] // 64 * 64
        images[4] = np.arange(24)[None, :, None] * 10
        images[5, 0, 0], images[5, 1:], images[6] = 3, 200, images[6] // 16 + 100
    return images[..., :1] if name.endswith("grey") else images


LEVELS = sorted({*range(11), *(magnitude / 3 for magnitude in range(31))})
"""AutoAugment's, and those of RandAugment's magnitudes."""


@pytest.mark.parametrize("kind", ["real", "real grey", "made", "made grey"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_equals_pillow_at_every_magnitude(operation, kind):
    images = bytes_of(kind)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    pictures = [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images]
    sizes = {amount_of(operation, level, images.shape[2]) for level in LEVELS}
    for size in sizes:
        for amount in {size, -size} if operation in TWO_WAYS else {size}:
            expected = np.stack([np.asarray(PILLOW[operation](picture, amount)) for picture in pictures])
            found = OPERATIONS[operation](pixels, torch.full((len(pixels),), float(amount), dtype=torch.float64))
            found = found.permute(0, 2, 3, 1).numpy()
            assert np.array_equal(found, expected.reshape(found.shape)), f"{operation} by {amount}"


def test_levels_mean_what_the_authors_code_says():
    expected = {
        ("shear-x", 8): 0.24,
        ("translate-y", 9): 9,
        ("rotate", 2): 6,
        ("solarize", 3): 256 - 76,
        ("posterize", 7): 2,
        ("posterize", 10): 1,
        ("color", 0): 0.1,
        ("contrast", 5): 1.0,
    }
    for (operation, level), amount in expected.items():
        assert amount_of(operation, level, 32) == pytest.approx(amount)
    assert amount_of("translate-x", 5, 64) == 10
    for magnitude in range(31):  # thirds of levels lose nothing to rounding
        assert amount_of("rotate", magnitude / 3, 32) == magnitude
        assert amount_of("translate-x", magnitude / 3, 32) == magnitude // 3
        assert amount_of("solarize", magnitude / 3, 32) == 256 - Fraction(256 * magnitude, 30).__floor__()


def test_policies_are_pairs_of_known_operations():
    assert {name: len(policy) for name, policy in POLICIES.items()} == {"cifar10": 25, "svhn": 25}
    for policy in POLICIES.values():
        for operation, chance, level in (step for pair in policy for step in pair):
            assert operation in OPERATIONS and 0 <= chance <= 1 and 0 <= level <= 9
    assert len(RANDOM_OPERATIONS) == 14 and set(RANDOM_OPERATIONS) <= set(OPERATIONS)


def test_operations_reach_the_images_they_were_drawn_for():
    pixels = torch.from_numpy(bytes_of("made")).permute(0, 3, 1, 2)
    chosen = torch.tensor([0, -1, 1] * 4)
    found = apply_each(("invert", "identity"), chosen, torch.zeros(12, dtype=torch.float64), pixels)
    assert torch.equal(found[chosen == 0], 255 - pixels[chosen == 0])
    assert torch.equal(found[chosen != 0], pixels[chosen != 0])


def outcomes(policy, image: np.ndarray) -> dict[bytes, float]:
    """Every picture that a policy makes of one, by Pillow, with its probability."""
    found: dict[bytes, float] = {}
    for pair in policy:
        ways = [(Image.fromarray(image), 1 / len(policy))]
        for operation, chance, level in pair:
            size = amount_of(operation, level, image.shape[1])
            amounts = (size, -size) if operation in TWO_WAYS else (size,)
            ways = [(picture, share * (1 - chance)) for picture, share in ways] + [
                (PILLOW[operation](picture, amount), share * chance / len(amounts))
                for picture, share in ways
                for amount in amounts
            ]
        for picture, share in ways:
            found[picture.tobytes()] = found.get(picture.tobytes(), 0.0) + share
    return found


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_make_each_picture_as_often_as_they_say(policy):
    image = bytes_of("made")[8]
    expected = outcomes(POLICIES[policy], image)
    count = 20_000
    one = to_unit(torch.from_numpy(image).permute(2, 0, 1))[None].expand(count, -1, -1, -1)
    found, _ = AutoAugment(policy)(one, torch.zeros(count, 2), rng_for(0))
    seen = Counter(picture.tobytes() for picture in (found * 255).round().byte().permute(0, 2, 3, 1).numpy())
    assert sum(expected.values()) == pytest.approx(1)
    assert set(seen) <= {picture for picture, share in expected.items() if share > 0}
    for picture, share in expected.items():
        mean = count * share
        assert abs(seen[picture] - mean) < 5 * (mean * (1 - share)) ** 0.5 + 1


def test_randaugment_makes_what_pillow_makes():
    image = bytes_of("made")[9]
    amounts = [(name, amount_of(name, 14 / 3, image.shape[1])) for name in RANDOM_OPERATIONS]
    signed = [(name, sign * amount) for name, amount in amounts for sign in ((1, -1) if name in TWO_WAYS else (1,))]
    expected = {
        PILLOW[second](PILLOW[first](Image.fromarray(image), one), two).tobytes()
        for first, one in signed
        for second, two in signed
    }
    images = to_unit(torch.from_numpy(image).permute(2, 0, 1))[None].expand(4000, -1, -1, -1)
    found, _ = RandAugment(2, 14)(images, torch.zeros(4000, 2), rng_for(0))
    seen = {row.tobytes() for row in (found * 255).round().byte().permute(0, 2, 3, 1).numpy()}
    assert seen <= expected and len(seen) > 0.9 * len(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoAugment("imagenet"), "known: cifar10, svhn"),
        (lambda: RandAugment(0), "at least 1 operation"),
        (lambda: RandAugment(2, 31), "0 to 30"),
        (lambda: AutoAugment()(torch.rand(2, 4, 8, 8), torch.rand(2, 2), rng_for(0)), "1 or 3 channels"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
