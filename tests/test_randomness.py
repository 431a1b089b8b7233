import numpy as np
import pytest
import torch

from robustgen.randomness import Rng, content_ids, rng_for


def splitmix64(state: int) -> int:
    """The published output function, in Python's integers."""
    mask = (1 << 64) - 1
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_is_splitmix64():
    rng = Rng(torch.tensor(1234567, dtype=torch.int64))
    expected = [splitmix64((1234567 + i * 0x9E3779B97F4A7C15) & ((1 << 64) - 1)) for i in (1, 2, 3)]
    got = [value & ((1 << 64) - 1) for value in rng._bits(None, 3).tolist()]
    # Vigna's splitmix64.c, seeded with 1234567, begins so.
    assert expected[:2] == [6457827717110365317, 3203168211198807973]
    assert got == expected


def test_same_place_same_numbers_other_place_other_numbers():
    first, again = rng_for(3, "train", 7), rng_for(3, "train", 7)
    assert torch.equal(first.normal((50,)), again.normal((50,)))
    assert not torch.equal(first.normal((50,)), rng_for(3, "train", 7).normal((50,)))  # successive draws differ
    draws = [rng_for(*place).uniform((4,)) for place in [(3, "a"), (3, "b"), (4, "a"), (3, "a", 0), (3, ("a", 0))]]
    assert len({tuple(draw.tolist()) for draw in draws}) == 5


def test_a_row_does_not_depend_on_its_batch():
    rng = rng_for(0, "x")
    whole = rng.each(range(100)).normal((100, 3, 5))
    for size in (1, 7, 33):
        parts = [rng.each(range(i, min(100, i + size))).normal((min(size, 100 - i), 3, 5)) for i in range(0, 100, size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(100)
    assert torch.equal(rng.each(order).normal((100, 3, 5)), whole[order])
    streams = rng.each(range(100))
    streams.uniform((100, 2))
    survivors = streams.rows(order[:10])
    assert torch.equal(survivors.uniform((10, 4)), streams.uniform((100, 4))[order[:10]])


def test_draws_are_distributed_as_said():
    rng = rng_for(1, "moments").each(range(2000))
    uniform, normal = rng.uniform((2000, 500)).double(), rng.normal((2000, 500)).double()
    n = uniform.numel()
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5 / (12 * n) ** 0.5
    counts = torch.histc(uniform, 100, 0, 1)
    assert ((counts - n / 100) ** 2 / (n / 100)).sum() < 99 + 6 * (2 * 99) ** 0.5
    assert abs(normal.mean()) < 5 / n**0.5
    assert abs(normal.square().mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs(normal.pow(4).mean() - 3) < 5 * (96 / n) ** 0.5
    for lag in (1, 2, 499):  # neither along a stream nor across streams
        assert abs((normal[:, lag:] * normal[:, :-lag]).mean()) < 5 / n**0.5 * (500 / (500 - lag)) ** 0.5
    assert abs((normal[1:] * normal[:-1]).mean()) < 5 / n**0.5
    dice = rng.integers(6, (2000, 3))
    assert set(dice.unique().tolist()) == set(range(6))
    assert (torch.bincount(dice.flatten()) - 1000).abs().max() < 5 * (1000 * 5 / 6) ** 0.5


def test_permutations_are_permutations_of_their_place():
    order = rng_for(0, "order", 1).permutation(1000)
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert np.array_equal(order, rng_for(0, "order", 1).permutation(1000))
    assert not np.array_equal(order, rng_for(0, "order", 2).permutation(1000))


def test_steering_torch_leaves_its_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with rng_for(0, "dropout").seeding_torch():
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with rng_for(0, "dropout").seeding_torch():
        assert torch.equal(torch.rand(3), inside)


def test_content_ids_follow_the_content():
    images = np.random.default_rng(0).random((6, 3, 4, 4), dtype=np.float32)
    ids = content_ids(images)
    assert len(set(ids)) == 6
    assert np.array_equal(content_ids(images[::-1]), ids[::-1])
    assert np.array_equal(content_ids(np.asfortranarray(images)), ids)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="first axis must be 5"):
        rng_for(0).each(range(5)).uniform((4, 2))
    with pytest.raises(ValueError, match="single stream"):
        rng_for(0).each(range(5)).each(range(5))
    with pytest.raises(ValueError, match="int64"):
        Rng(torch.zeros(3))
    with pytest.raises(ValueError, match="below"):
        rng_for(0).integers(0, (2,))
