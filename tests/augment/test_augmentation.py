"""Augmentations that are told or bounded, so that they do not leak: cases that are known on paper."""

import math

import numpy as np
import pytest
import torch

from robustgen.config.generators import EDMConfig
from robustgen.generators import augmentation, build_generator
from robustgen.generators.augmentation import Adaptation, augmented, varied
from robustgen.generators.warping import SYM6, _LookUp, rotation, scaling, shift, warped
from robustgen.randomness import rng_for


def images(count=6, channels=3, size=32, seed=0):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def blobs(size=32, x=3.0, y=-4.0, width=3.0):
    """A smooth bump at (x, y) from the centre: (1, 1, size, size)."""
    place = torch.arange(size) - (size - 1) / 2
    return torch.exp(-((place - x) ** 2 + (place[:, None] - y) ** 2) / (2 * width**2))[None, None]


def numbers(*values):
    return torch.tensor(values)


def test_the_filter_is_the_symlet_with_six_vanishing_moments():
    taps = np.array(SYM6)
    assert taps.sum() == pytest.approx(math.sqrt(2), abs=1e-11)
    for shifted in range(6):
        product = taps[2 * shifted :] @ taps[: len(taps) - 2 * shifted]
        assert product == pytest.approx(float(shifted == 0), abs=1e-11)
    places = np.arange(12.0) - 5
    for power in range(6):
        assert ((-1) ** np.arange(12) * places**power) @ taps == pytest.approx(0, abs=1e-6 * 6**power)


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 8)])
def test_whole_shifts_are_exact_and_mirror_what_enters(channels, size):
    x = images(2, channels, size)
    still = torch.eye(3).expand(2, 3, 3)
    torch.testing.assert_close(warped(x, still), x, atol=1e-4, rtol=0)
    moved = warped(x, shift(numbers(-2.0, 0.0), numbers(0.0, 3.0)))  # to the right by 2; up by 3
    torch.testing.assert_close(moved[0, :, :, 2:], x[0, :, :, :-2], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[0, :, :, :2], x[0, :, :, [2, 1]], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[1, :, :-3], x[1, :, 3:], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[1, :, -3:], x[1, :, [-2, -3, -4]], atol=1e-4, rtol=0)


def test_smooth_images_move_as_on_paper():
    cos, sin = math.cos(0.5), math.sin(0.5)
    for inverse, end in (
        (rotation(numbers(-math.pi / 2)), blobs(x=4.0, y=3.0)),  # the x axis onto the y axis, which points down
        (rotation(numbers(-0.5)), blobs(x=3 * cos + 4 * sin, y=3 * sin - 4 * cos)),
        (shift(numbers(-0.3), numbers(0.7)), blobs(x=3.3, y=-4.7)),
        (scaling(numbers(1 / 1.2), numbers(1 / 1.2)), blobs(x=3.6, y=-4.8, width=3.6)),
    ):
        inner = (warped(blobs(), inverse) - end)[:, :, 6:-6, 6:-6]  # mirror images enter at the corners
        assert inner.abs().max() < 0.02, inverse


def test_an_image_is_moved_alone():
    x = images(4, 1, 8)
    inverse = rotation(numbers(0.1, 2.0, -1.0, 0.0)) @ shift(
        *torch.tensor([[3.0, 0.0, 9.0, 1.0], [0.0, 1.0, -9.0, 0.0]])
    )
    whole = warped(x, inverse)
    for row in range(4):
        torch.testing.assert_close(warped(x[row : row + 1], inverse[row : row + 1]), whole[row : row + 1])


def test_looking_up_has_first_and_second_derivatives():
    x = images(2, 2, 5).double().requires_grad_()
    grid = torch.rand(2, 4, 3, 2, dtype=torch.double, generator=torch.Generator().manual_seed(1)) * 2.4 - 1.2
    assert torch.autograd.gradcheck(lambda x: _LookUp.apply(x, grid), (x,))
    assert torch.autograd.gradgradcheck(lambda x: _LookUp.apply(x, grid) ** 3, (x,))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 16, 24)])
def test_with_nothing_drawn_images_are_only_mirrored_and_labels_say_so(shape):
    x = torch.rand(40, *shape) * 2 - 1
    made, told = augmented(x, 0.0, rng_for(0))
    assert made.shape == x.shape and told.shape == (40, 9)
    mirrored = told[:, 0] == 1
    assert 8 <= mirrored.sum() <= 32 and (told[:, 1:] == 0).all()
    expected = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)


def test_labels_are_drawn_as_often_as_asked():
    _, told = augmented(torch.zeros(4000, 1, 2, 2), 0.12, rng_for(0))
    shares = (told != 0).float().mean(0)
    expected = [0.5, 0.06, 0.12, 0.12, 0.12, 0.12, 0.06, 0.12, 0.12]
    torch.testing.assert_close(shares, torch.tensor(expected), atol=0.025, rtol=0)
    assert ((told[:, 3] + 1) ** 2 + told[:, 4] ** 2).sub(1).abs().max() < 1e-5  # a cosine and a sine
    assert told[:, 7][told[:, 7] != 0].std() == pytest.approx(1, abs=0.1)


def test_labels_tell_where_a_bump_went():
    """The map that the labels describe, done on paper, takes the bump where the images show it."""
    made, told = augmented(blobs(x=3.0, y=-4.0).repeat(60, 1, 1, 1), 0.5, rng_for(3))
    checked = 0
    for image, (across, down, scale, cos, sin, level, upright, x, y) in zip(made, told, strict=True):
        if upright:  # stretched along a slanted axis; the others along a level one
            continue
        point = torch.tensor([3 * (1 - 2 * across), -4 * (1 - 2 * down)]) * 2 ** (0.2 * scale)
        point = torch.stack([(cos + 1) * point[0] - sin * point[1], sin * point[0] + (cos + 1) * point[1]])
        point = point * 2 ** (0.2 * torch.stack([level, -level])) + 4 * torch.stack([x, y])
        if point.abs().max() < 9:
            row, column = divmod(int(image[0, 4:-4, 4:-4].argmax()), 24)  # its mirror images are outside
            found = torch.tensor([column - 11.5, row - 11.5])
            torch.testing.assert_close(found, point, atol=0.7, rtol=0)
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8)])
def test_without_strength_nothing_is_varied(shape):
    x = torch.rand(20, *shape) * 2 - 1
    torch.testing.assert_close(varied(x, torch.zeros(()), rng_for(0)), x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_each_change_is_made_as_often_as_asked(strength):
    """Colour alone: geometry leaves images of one colour as they are."""
    drawn = torch.tensor([0.5, -0.1, 0.2]).view(1, 3, 1, 1)
    made = varied(drawn.expand(3000, 3, 8, 8), strength, rng_for(0))[:, :, 3:5, 3:5]
    unchanged = ((made - drawn).abs() < 1e-4).all((1, 2, 3)).float().mean()
    # brightness, contrast, hue, saturation; and half of the negatives
    assert unchanged == pytest.approx((1 - strength) ** 4 * (1 - strength / 2), abs=0.02)


def test_colours_change_as_matrices_on_paper():
    """Rows drawn at full strength against products of 3x3 matrices with an offset."""
    x = torch.tensor([0.5, -0.1, 0.2]).view(1, 3, 1, 1).expand(50, 3, 8, 8)
    made = varied(x, 1.0, rng_for(0))[:, :, 4, 4]
    rng = rng_for(0)
    _, negative = rng.at("coins").integers(2, (2, 50))
    _, _, brightness, contrast, saturation = rng.at("normal").normal((5, 50))
    hue = (rng.at("angles").uniform((3, 50))[2] * 2 - 1) * math.pi
    axis = torch.ones(3) / math.sqrt(3)
    along = torch.outer(axis, axis)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    for i in range(50):
        colour = x[i, :, 0, 0] + 0.2 * brightness[i]
        colour = colour * 2 ** (0.5 * contrast[i])
        colour = (torch.eye(3) - 2 * negative[i] * along) @ colour
        colour = torch.linalg.matrix_exp(hue[i] * cross) @ colour
        colour = (along + (torch.eye(3) - along) * 2 ** saturation[i]) @ colour
        torch.testing.assert_close(made[i], colour, atol=2e-4, rtol=1e-4)


def test_mirrors_and_quarter_turns_are_exact():
    x = images(4, 1, 8)
    quarters = augmentation._quarter_turned(x, torch.tensor([0, 1, 2, 3]))
    for row in range(4):
        assert torch.equal(quarters[row], x[row].rot90(row, (1, 2)))
    assert torch.equal(augmentation._mirrored(x, torch.tensor([1, 1, 1, 1]), 3), x.flip(3))


def test_gradients_pass_through_what_varies_images():
    x = images(4, 3, 8).requires_grad_()
    weight = torch.rand(x.shape)
    (first,) = torch.autograd.grad((varied(x, 0.5, rng_for(1)) * weight).sum(), x)
    step = images(4, 3, 8, seed=1) * 0.1
    change = (varied(x + step, 0.5, rng_for(1)) - varied(x, 0.5, rng_for(1))) * weight
    torch.testing.assert_close((first * step).sum(), change.sum(), atol=1e-3, rtol=1e-3)  # it is linear, but an offset
    factor = torch.ones(()).requires_grad_()
    seen = (varied(x, 0.5, rng_for(1)) * weight * factor).sum()
    (gradient,) = torch.autograd.grad(seen, x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), factor)
    torch.testing.assert_close(second, 2 * first.square().sum())


def test_strength_follows_how_sure_the_discriminator_is():
    adaptation = Adaptation(0.6, 500_000, torch.device("cpu"))
    before = 0.0
    for _ in range(40):  # always sure
        adaptation.see(torch.ones(64))
        adaptation.after_step(64)
        assert adaptation.strength - before <= 64 * 4 / 500_000 * (1 + 1e-5)
        before = float(adaptation.strength)
    assert before == pytest.approx(10 * 64 * 4 / 500_000)
    for step in range(200):  # no surer than chance: it falls, and stays at 0
        adaptation.see(torch.tensor([1.0, -1.0]).repeat(32) * (1 + step))
        adaptation.after_step(64)
    assert adaptation.strength == 0


def test_strength_of_growth_goes_on_from_a_saved_state():
    def steps(adaptation, numbers):
        for number in numbers:
            adaptation.see(torch.ones(8) if number % 7 else -torch.ones(8))
            adaptation.after_step(8)

    whole, half, rest = (Adaptation(0.6, 1000, torch.device("cpu")) for _ in range(3))
    steps(whole, range(30))
    steps(half, range(13))
    rest.load_state_dict(half.state_dict())
    steps(rest, range(13, 30))
    assert whole.strength > 0 and torch.equal(rest.strength, whole.strength)


def test_edm_is_told_what_was_done_to_its_images(tiny_info):
    settings = EDMConfig(channels=8, multipliers=(1, 2), blocks=1, attention=(), augment=0.5)
    model = build_generator(settings, tiny_info, rng_for(0))
    with torch.no_grad():
        model.network.out.weight.normal_(generator=torch.Generator().manual_seed(0))  # it starts at nearly 0
    model.loss(torch.rand(16, 1, 8, 8), torch.arange(16) % 3, rng_for(1)).backward()
    gradient = model.network.augmentation_in.weight.grad
    assert (gradient.abs().amax(0) > 0).all()  # each of the nine numbers matters
