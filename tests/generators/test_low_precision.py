"""Group norm and dropout of the U-Nets: PyTorch's in float32, passes of their own in bfloat16."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustgen.generators.low_precision import GroupNorm, dropout
from robustgen.generators.unet import resampled
from robustgen.randomness import rng_for


def drawn(place, *shape):
    return rng_for(0, place).normal(shape).contiguous(memory_format=torch.channels_last)


def norms(groups, channels):
    """PyTorch's layer and ours, with the same weights."""
    theirs, ours = nn.GroupNorm(groups, channels, eps=1e-5), GroupNorm(groups, channels, eps=1e-5)
    theirs.weight.data.copy_(rng_for(0, "weight").uniform((channels,)) + 0.5)
    theirs.bias.data.copy_(rng_for(0, "bias").normal((channels,)))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("side", [1, 6, 32])  # below and from `LARGE` positions
@pytest.mark.parametrize(("groups", "channels"), [(1, 8), (4, 16), (8, 8)])
def test_group_norm_in_bfloat16_is_float32s_up_to_rounding(side, groups, channels):
    """Values, and gradients of images, weights and biases; of features whose mean is three deviations."""
    theirs, ours = norms(groups, channels)
    images = (drawn("x", 3, channels, side, side) * 2 + 6).bfloat16()
    gradient = drawn("g", 3, channels, side, side).bfloat16()
    one, two = images.float().requires_grad_(), images.clone().requires_grad_()
    expected, found = theirs(one), ours(two)
    assert found.dtype == torch.bfloat16 and found.is_contiguous(memory_format=torch.channels_last)
    expected.backward(gradient.float())
    found.backward(gradient)
    assert (found - expected).norm() < 4e-3 * expected.norm()
    if side > 1:  # a single position and channel is its own mean: the gradient is 0
        assert (two.grad - one.grad).norm() < 4e-3 * one.grad.norm()
    assert ours.weight.grad.dtype == torch.float32
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=2e-3, atol=2e-2)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, rtol=1e-4, atol=1e-4)


def test_group_norm_in_bfloat16_has_no_second_derivative():
    """An error, where statistics taken for constants would give a wrong one."""
    images = drawn("x", 2, 8, 4, 4).bfloat16().requires_grad_()
    (slope,) = torch.autograd.grad(GroupNorm(2, 8)(images).square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()


def test_group_norm_of_an_image_does_not_depend_on_its_batch():
    _, ours = norms(4, 16)
    images = drawn("x", 48, 16, 8, 8).bfloat16()
    with torch.no_grad():
        whole = ours(images)
        assert torch.equal(ours(images[:16]), whole[:16]) and torch.equal(ours(images[16:]), whole[16:])


@pytest.mark.parametrize("images", [drawn("x", 2, 8, 4, 4), drawn("x", 2, 8, 4, 4).bfloat16().contiguous()])
def test_other_inputs_are_pytorchs(images):
    theirs, ours = norms(2, 8)
    assert torch.equal(theirs(images), ours(images))
    with rng_for(1).seeding_torch():
        expected = F.dropout(images, 0.3, True)
    with rng_for(1).seeding_torch():
        assert torch.equal(dropout(images, 0.3, True), expected)


def test_dropout_in_bfloat16_keeps_its_share_and_the_mean():
    """Of 409,600 elements 0.87 are kept, within four deviations of 0.0005; gradients take the same mask."""
    images = torch.ones(10, 40, 32, 32).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    with rng_for(2).seeding_torch():
        found = dropout(images, 0.13, True)
    found.backward(torch.ones_like(found))
    kept = found != 0
    assert abs(kept.float().mean().item() - 0.87) < 4 * 0.0005
    assert torch.equal(images.grad, found.detach()) and found.detach()[kept].unique().tolist() == [1.1484375]
    by_channel = kept.float().mean((0, 2, 3))
    assert by_channel.min() > 0.84 and by_channel.max() < 0.9  # independent of the place in a number
    with rng_for(2).seeding_torch():
        assert torch.equal(dropout(images, 0.13, True), found)
    assert dropout(images, 0.13, False) is images and not dropout(images, 1.0, True).any()


@pytest.mark.parametrize("resample", ["down", "up"])
def test_filters_of_channels_in_bfloat16_are_float32s_up_to_rounding(resample):
    images = drawn("x", 2, 8, 6, 6).bfloat16()
    one, two = images.float().requires_grad_(), images.clone().requires_grad_()
    expected = resampled(one, resample, smooth=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = resampled(two, resample, smooth=True)
    assert found.dtype == torch.bfloat16 and torch.equal(found, expected.bfloat16())
    expected.sum().backward()
    found.sum().backward()
    assert torch.equal(two.grad, one.grad.bfloat16())
