import pytest
import torch

from robustgen.augment import AUGMENTATIONS, CropFlip
from robustgen.randomness import rng_for

MEMBERS = [name for name, augment in AUGMENTATIONS.items() if augment is not None]


@pytest.fixture(params=MEMBERS)
def augment(request):
    return AUGMENTATIONS[request.param]


def images_and_targets(count=40):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 12, 12, generator=generator), torch.rand(count, 5, generator=generator).softmax(1)


def test_keeps_shapes_ranges_and_probabilities(augment):
    images, targets = images_and_targets()
    kept = images.clone(), targets.clone()
    found, mixed = augment(images, targets, rng_for(0))
    assert found.shape == images.shape and mixed.shape == targets.shape
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(mixed.sum(1), torch.ones(40))
    assert torch.equal(images, kept[0]) and torch.equal(targets, kept[1])


def test_same_place_same_result_and_images_differ(augment):
    images, targets = images_and_targets()
    one = images[:1].expand(40, -1, -1, -1)
    first, _ = augment(one, targets, rng_for(0))
    assert torch.equal(first, augment(one, targets, rng_for(0))[0])
    assert not torch.equal(first, augment(one, targets, rng_for(1))[0])
    assert len({image.numpy().tobytes() for image in first}) > 3  # drawn for each image, not for the batch


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
