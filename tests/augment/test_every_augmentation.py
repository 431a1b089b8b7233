import numpy as np
import pytest
import torch
from scipy.stats import beta

from robustgen.augment import (
    AUGMENTATIONS,
    KINDS,
    RICAP,
    AutoAugment,
    Chain,
    CropFlip,
    CutMix,
    Cutout,
    MixUp,
    RandAugment,
    build_augmentation,
    mixes_labels,
    with_repeats,
)
from robustgen.augment.mixup import partners, shuffled, symmetric_beta
from robustgen.randomness import rng_for
from robustgen.testing import AUGMENTATION_CHECKS

MEMBERS = [name for name, augment in AUGMENTATIONS.items() if augment is not None]


@pytest.fixture(params=MEMBERS)
def augment(request):
    return AUGMENTATIONS[request.param]


@pytest.mark.parametrize("check", AUGMENTATION_CHECKS)
def test_contract(augment, check):
    AUGMENTATION_CHECKS[check](augment)


def images_and_targets(count=40):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 12, 12, generator=generator), torch.rand(count, 5, generator=generator).softmax(1)


def test_crop_flip_shows_each_window_of_the_padded_image_equally_often():
    image = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    windows = {}
    for y in range(3):
        for x in range(3):
            window = padded[0, 0, y : y + 3, x : x + 3]
            windows[tuple(window.flatten().tolist())] = 0
            windows[tuple(window.flip(1).flatten().tolist())] = 0
    found, _ = CropFlip(1, 0.5)(image.expand(18_000, -1, -1, -1), torch.zeros(18_000, 2), rng_for(0))
    for row in found.flatten(1).tolist():
        windows[tuple(row)] += 1
    assert len(windows) == 18
    assert all(abs(count - 1000) < 5 * 1000**0.5 for count in windows.values())


def numbered(count=16, side=32):
    """Images of one value each, and targets that name them."""
    values = (torch.arange(count) + 1.0) / (count + 1)
    return values.view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous(), torch.eye(count)


def test_cutout_blackens_a_square_around_a_uniform_pixel():
    images = torch.ones(3000, 1, 9, 12)
    found, _ = Cutout(4)(images, torch.zeros(3000, 2), rng_for(0))
    black = found[:, 0] == 0
    tall, wide = black.any(2).sum(1), black.any(1).sum(1)
    assert torch.equal(black.sum((1, 2)), tall * wide)  # one rectangle
    assert tall.max() == wide.max() == 4 and tall.min() == wide.min() == 2  # clipped where it hangs over
    # Pixel x is covered by windows around x - 1, x, x + 1, x + 2: 4 of 12 inside, 3 and 2 of 12 at the ends.
    expected = torch.tensor([3.0, *[4.0] * 9, 3.0, 2.0]) / 12
    torch.testing.assert_close(black.any(1).float().mean(0), expected, rtol=0, atol=0.04)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("window", [None, 12])
def test_cutmix_pastes_what_it_says_in_the_labels(each, window):
    images, targets = numbered()
    sizes = set()
    for step in range(20):
        found, mixed = CutMix(window, each)(images, targets, rng_for(0, step))
        for image, own, target in zip(found, images, mixed, strict=True):
            pasted = image[0] != own[0]
            rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
            assert pasted.sum() == rows * columns  # one rectangle, of one partner
            partner = (image[0][pasted][0] * 17 - 1).round().long() if pasted.any() else 0
            share = torch.zeros(16)
            share[(own[0, 0, 0] * 17 - 1).round().long()] += 1 - pasted.float().mean()
            share[partner] += pasted.float().mean()
            torch.testing.assert_close(target, share)
            sizes.add((int(rows), int(columns)))
        shapes = {tuple(changed.nonzero().flatten().tolist()) for changed in (found != images)[:, 0]}
        assert (len(shapes - {()}) > 1) == each  # one window for the batch, or one for each image
    assert len(sizes) > 5 and max(max(size) for size in sizes) == (12 if window else 30)


def test_cutmix_windows_are_the_official_ones():
    """cut = floor(32 sqrt(1 - lambda)), from centre - cut // 2 up to centre + cut // 2, clipped: cut 21 covers 20."""
    cutmix = CutMix()
    kept = torch.tensor([1 - (21 / 32 + 1e-4) ** 2, 0.0, 1 - 2**-24])
    covered = cutmix._along(kept, torch.tensor([0.5, 0.5, 0.99]), 32)
    assert covered[0].nonzero().flatten().tolist() == list(range(6, 26))
    assert covered[1].all() and not covered[2].any()
    assert cutmix._along(kept[:1], torch.tensor([0.99]), 32)[0].nonzero().flatten().tolist() == list(range(21, 32))


@pytest.mark.parametrize("each", [False, True])
def test_mixup_blends_images_as_it_blends_labels(each):
    images, targets = numbered()
    found, mixed = MixUp(1.0, each)(images, targets, rng_for(0))
    values = images[:, 0, 0, 0]
    torch.testing.assert_close(found[:, 0, 5, 7], mixed @ values)
    shares = {round(float(row.max()), 4) for row in mixed if row.max() < 1}
    assert (len(shares) > 1) == each


@pytest.mark.parametrize("each", [False, True])
def test_ricap_patches_four_crops_with_labels_by_area(each):
    count, side = 12, 16
    place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    images = torch.cat(
        [torch.arange(count).view(-1, 1, 1, 1).expand(-1, 1, side, side), place.expand(count, -1, -1, -1)], 1
    )
    found, mixed = RICAP(1.0, each)(images / 255, torch.eye(count), rng_for(1))
    pixels = (found * 255).round().long()
    corners = set()
    for image, target in zip(pixels, mixed, strict=True):
        shares = torch.bincount(image[0].flatten(), minlength=count) / side**2
        torch.testing.assert_close(target, shares)
        rows = (image[1].diff(dim=0) != 1) | (image[0].diff(dim=0) != 0)  # a crop's rows and columns follow each other
        columns = (image[2].diff(dim=1) != 1) | (image[0].diff(dim=1) != 0)
        assert rows.any(1).sum() <= 1 and columns.any(0).sum() <= 1
        corners.add((tuple(rows.any(1).tolist()), tuple(columns.any(0).tolist())))
    assert (len(corners) > 1) == each


def test_ricap_crops_at_every_place_equally_often():
    place = torch.arange(5)
    for beyond, length in ((False, 3), (True, 2)):
        taken, long = RICAP._crop(place, torch.full((6000, 1), 3), 5, beyond, rng_for(0))
        first = taken[:, 3 if beyond else 0]
        counts = torch.bincount(first, minlength=5)
        assert (long == length).all() and not counts[6 - length :].any()
        assert all(abs(count - 6000 / (6 - length)) < 200 for count in counts[: 6 - length])


@pytest.mark.parametrize("concentration", [0.2, 0.3, 1.0, 1.4])
def test_shares_are_beta_distributed(concentration):
    """Kolmogorov and Smirnov at one in a thousand; up to 1/2, because near 1 float32 has too few numbers."""
    drawn = symmetric_beta(concentration, 20_000, rng_for(0)).double().sort().values
    expected = torch.from_numpy(beta.cdf(drawn.numpy(), concentration, concentration))
    assert (expected - torch.arange(20_000) / 20_000)[drawn < 0.5].abs().max() < 0.0136
    assert drawn[0] >= 0 and drawn[-1] <= 1 and abs(drawn.mean() - 0.5) < 0.01


def test_every_partner_is_used_once():
    order = shuffled(1000, rng_for(0))
    assert torch.equal(order.sort().values, torch.arange(1000)) and not torch.equal(order, torch.arange(1000))


def official_partners(count, repeats, order):
    """The rule of the official `cutmix(split=repeats)` in NumPy: rows seen as (count / repeats, repeats), each column a
    sub-batch, and one order of the rows for all columns."""
    rows = np.arange(count).reshape(count // repeats, repeats)
    return rows[order].reshape(count)


@pytest.mark.parametrize(("count", "repeats"), [(12, 1), (12, 2), (12, 4), (1024, 4), (12, 12)])
def test_partners_stay_within_their_sub_batch(count, repeats):
    order = shuffled(count // repeats, rng_for(7)).numpy()
    found = partners(count, repeats, rng_for(7))
    assert np.array_equal(found.numpy(), official_partners(count, repeats, order))
    assert torch.equal(found % repeats, torch.arange(count) % repeats)
    assert torch.equal(found.sort().values, torch.arange(count))


def test_copies_of_an_original_get_copies_of_one_partner():
    """Originals a and b four times each, and an order that swaps them: every a gets b's copy of the same number."""
    swaps = next(seed for seed in range(20) if shuffled(2, rng_for(seed)).tolist() == [1, 0])
    assert partners(8, 4, rng_for(swaps)).tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    with pytest.raises(ValueError, match="a batch of 10 images cannot hold each original 4 times; expected a multiple"):
        partners(10, 4, rng_for(0))


@pytest.mark.parametrize("each", [False, True])
def test_cutmix_mixes_sub_batches_as_the_official_code(each):
    """One window and one order for all sub-batches i, i + 4, i + 8 ..., against a loop over them in NumPy."""
    images, targets = images_and_targets()
    for step in range(10):
        found, mixed = with_repeats(CutMix(each=each), 4)(images, targets, rng_for(5, step))
        rng = rng_for(5, step)
        kept, y, x = rng.uniform((3, 40 if each else 1)).numpy()
        order = shuffled(10, rng).numpy()
        half = (12 * np.sqrt(1 - kept.astype(np.float64)) / 2).astype(int)
        for row in range(40):
            sub, place, own = row % 4, row // 4, row if each else 0
            partner = np.arange(sub, 40, 4)[order[place]]
            top, left = int(12 * y[own]), int(12 * x[own])
            rows = slice(max(top - half[own], 0), min(top + half[own], 12))
            columns = slice(max(left - half[own], 0), min(left + half[own], 12))
            expected, area = images[row].numpy().copy(), (rows.stop - rows.start) * (columns.stop - columns.start)
            expected[:, rows, columns] = images[partner].numpy()[:, rows, columns]
            assert np.array_equal(found[row].numpy(), expected)
            target = (1 - area / 144) * targets[row].numpy() + area / 144 * targets[partner].numpy()
            np.testing.assert_allclose(mixed[row].numpy(), target, atol=1e-6)


@pytest.mark.parametrize("name", ["cutmix", "mixup-1.4", "ricap-1.0"])
def test_whatever_mixes_labels_keeps_to_sub_batches(name):
    augment = with_repeats(build_augmentation(f"crop-flip+{name}"), 4)
    images, _ = images_and_targets()
    for step in range(5):
        _, mixed = augment(images, torch.eye(40), rng_for(step))
        within = torch.arange(40)[:, None] % 4 == torch.arange(40) % 4
        assert not mixed[~within].any()
        copies = mixed.view(10, 4, 10, 4).diagonal(dim1=1, dim2=3)  # the same in every sub-batch
        assert torch.equal(copies, copies[..., :1].expand_as(copies))


def test_without_repeats_augmentations_stay_what_they_are():
    for augment in AUGMENTATIONS.values():
        assert with_repeats(augment, 1) == augment
    assert with_repeats(CropFlip(), 4) == CropFlip() and with_repeats(None, 4) is None
    assert with_repeats(Chain((CropFlip(), CutMix(20))), 4) == Chain((CropFlip(), CutMix(20, repeats=4)))


def test_names_are_parts_and_numbers():
    assert build_augmentation("none") is None
    assert build_augmentation("shift-2") == CropFlip(2, 0.0) and build_augmentation("crop-flip-8") == CropFlip(8, 0.5)
    chain = build_augmentation("crop-flip+autoaugment-svhn+cutout-16")
    assert chain == Chain((CropFlip(), AutoAugment("svhn"), Cutout(16)))
    assert build_augmentation("cutmix-each-20") == CutMix(20, each=True)
    assert build_augmentation("mixup-1.4") == MixUp(1.4)
    assert build_augmentation("randaugment-2-14") == RandAugment(2, 14)
    assert all(any(kind in name for name in AUGMENTATIONS) for kind in KINDS if not kind.endswith("-each"))


def test_a_chain_works_in_order_each_part_with_its_own_numbers():
    images, targets = images_and_targets()
    found, mixed = Chain((CropFlip(2), MixUp()))(images, targets, rng_for(3))
    moved, _ = CropFlip(2)(images, targets, rng_for(3).at("part", 0))
    expected = MixUp()(moved, targets, rng_for(3).at("part", 1))
    assert torch.equal(found, expected[0]) and torch.equal(mixed, expected[1])


def test_it_is_known_which_mix_labels():
    images, targets = images_and_targets()
    for augment in AUGMENTATIONS.values():
        mixed = augment is not None and any(
            not torch.equal(augment(images, targets, rng_for(step))[1], targets) for step in range(5)
        )
        assert mixes_labels(augment) == mixed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blur", "unknown augmentation 'blur'; known: none, and shift, crop-flip"),
        ("crop-flip+", "unknown augmentation"),
        ("crop-flip+none", "unknown augmentation"),
        ("shift-1-2-3", "too many or too few numbers; examples: shift-1"),
        ("autoaugment-svhn-3-4", "too many or too few numbers"),
        ("cutout-0", "at least 1, got 0"),
        ("cutout-1.5", "whole number of pixels"),
        ("cutmix-0", "whole number of pixels"),
        ("mixup-0", "above 0"),
        ("ricap-0", "above 0"),
    ],
)
def test_unknown_names_are_one_clear_line(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_augmentation(name)
    assert "\n" not in str(caught.value)
