"""Nearest neighbors, principal components, precision and recall, on points whose neighbors are known."""

import numpy as np
import pytest
import torch

from robustgen.analysis import neighbors
from robustgen.analysis.neighbors import (
    drawn_balanced,
    fit_projection,
    inclusion,
    nearest,
    reach,
    squared_distances,
    surroundings,
)
from robustgen.randomness import rng_for


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def cloud(count: int, width: int, *place: object) -> torch.Tensor:
    return rng_for(1, *place).normal((count, width))


def test_finds_the_nearest_of_hand_made_points():
    index, distance = nearest(points(0.0, 4.9, 10.0), points(1.0, 4.0, 7.0))
    assert index.tolist() == [0, 1, 2] and distance.tolist() == pytest.approx([1, 0.9, 3])
    index, distance = nearest(points(0.0, 1.0, 5.0), points(0.0, 1.0, 5.0), within=True)
    assert index.tolist() == [1, 0, 1] and distance.tolist() == [1, 1, 4]


def test_is_exact_beyond_a_chunk(monkeypatch):
    queries, others = cloud(70, 9, "q"), cloud(90, 9, "p")
    full = torch.cdist(queries.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist")
    for chunk in (1, 16, 33, 256):
        monkeypatch.setattr(neighbors, "_CHUNK", chunk)
        index, distance = nearest(queries, others)
        assert torch.equal(index, full.argmin(1))
        torch.testing.assert_close(distance, full.amin(1))
        own = torch.cdist(others.double(), others.double()).fill_diagonal_(torch.inf)
        assert torch.equal(nearest(others, others, within=True)[0], own.argmin(1))
        squares = torch.cat([part for _, part in squared_distances(queries, others)])
        torch.testing.assert_close(squares, full.square())


def test_near_copies_far_from_the_origin_keep_their_distance():
    far = 1e4 + cloud(50, 100, "far")
    _, distance = nearest(far + 1e-2, far)
    assert distance == pytest.approx(torch.full((50,), 0.1), rel=0.1)


def test_reach_is_the_distance_of_a_rank():
    found = reach(points(0.0, 1.0, 3.0, 7.0), (1, 2, 9))
    assert found.sqrt().tolist() == pytest.approx(np.array([[1, 3, 7], [1, 2, 6], [2, 3, 4], [4, 6, 7]]))


def test_nobody_has_neighbors_alone():
    with pytest.raises(ValueError, match="at least 2 images for nearest neighbors, got 1"):
        nearest(points(1.0), points(1.0), within=True)
    with pytest.raises(ValueError, match="at least 2 images for nearest neighbors, got 1"):
        reach(points(1.0), (1,))


def test_precision_and_recall_of_points_on_a_line():
    """First neighbors: real reaches are 1, 1, 2 around 0, 1, 3; generated ones 2 and 2 around 4 and 6."""
    found = inclusion(points(4.0, 6.0), points(0.0, 1.0, 3.0), near=1, wide=1)
    assert found.inside.tolist() == [True, False] and found.density.tolist() == [1, 0]
    assert found.recalled.tolist() == [False, False, True] and found.covered.tolist() == [False, False, True]


def test_inclusion_is_its_definition_whatever_the_chunks(monkeypatch):
    generated, real = 1.2 * cloud(70, 3, "g"), cloud(80, 3, "r")
    across = torch.cdist(generated.double(), real.double())
    mine, theirs = (torch.cdist(x.double(), x.double()).sort(1).values for x in (generated, real))  # column 0: itself
    for chunk in (16, 128):
        monkeypatch.setattr(neighbors, "_CHUNK", chunk)
        found = inclusion(generated, real)
        assert torch.equal(found.inside, (across <= theirs[:, 3]).any(1))
        assert torch.equal(found.density, (across <= theirs[:, 5]).sum(1, dtype=torch.int32))
        assert torch.equal(found.recalled, (across <= mine[:, 3, None]).any(0))
        assert torch.equal(found.covered, (across <= theirs[:, 5]).any(0))


def test_equal_laws_are_precise_and_recalled_and_others_are_not():
    real, same, apart = cloud(300, 4, "r"), cloud(300, 4, "s"), 9 + cloud(300, 4, "t")
    found = inclusion(same, real)
    assert found.inside.float().mean() > 0.7 and found.recalled.float().mean() > 0.7
    assert found.density.float().mean() / 5 == pytest.approx(1, abs=0.15) and found.covered.float().mean() > 0.9
    narrow = inclusion(0.1 * same, real)
    assert narrow.inside.all() and narrow.recalled.float().mean() < 0.2  # precise, without variety
    none = inclusion(apart, real)
    assert not (none.inside.any() or none.recalled.any() or none.density.any() or none.covered.any())


def test_surroundings_of_hand_made_points():
    train, test, samples = points(0.0, 10.0, 20.0, 20.5), points(5.0, 1.0, 11.0), points(0.4, 10.6)
    at = torch.tensor
    found = surroundings(samples, train, test, at([7, 9]), at([0, 1]), at([1, 2]))
    assert found.source.tolist() == [0, 1] and found.index.tolist() == [0, 2]
    assert found.distance.tolist() == pytest.approx([0.4, 0.4])
    assert found.train_index.tolist() == [0, 1] and found.train_distance.tolist() == pytest.approx([0.4, 0.6])
    assert found.train_spacing.tolist() == [10, 10] and found.test_distance.tolist() == [1, 1]
    huddled = surroundings(points(50.0, 50.1), train, test, at([7, 9]), at([2, 0]), at([0, 1]))
    assert huddled.source.tolist() == [2, 2] and huddled.index.tolist() == [9, 7]
    assert huddled.train_index.tolist() == [3, 3] and huddled.train_spacing.tolist() == pytest.approx([0.5, 0.5])
    twins = surroundings(points(10.0, 1.0), train, points(10.0, 1.0), at([0, 1]), at([3, 1]), at([0, 1]))
    assert twins.source.tolist() == [0, 1] and twins.index.tolist() == [1, 1]  # training images first among equals


def test_shares_of_one_law_are_a_third_each():
    width, count = 3, 1500
    samples, train, test = (cloud(count, width, name) for name in ("samples", "train", "test"))
    found = surroundings(samples, train, test, *[torch.arange(count)] * 3)
    shares = np.bincount(found.source, minlength=3) / count
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)
    assert (found.train_distance < found.test_distance.median()).float().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("count", "width", "exact"), [(200, 30, 64), (30, 200, 64), (90, 120, 16)])
def test_components_are_the_directions_of_most_variance(count, width, exact):
    """By the covariance, by the products of rows, and by subspace iteration: all are the singular vectors."""
    scale = 0.7 ** torch.arange(width).double()
    rows = (5 + cloud(count, width, "pca") * scale).float()
    projection = fit_projection(rows, 6, rng_for(0), exact_up_to=exact)
    assert projection.axes.shape == (width, 6)
    torch.testing.assert_close(projection.axes.T @ projection.axes, torch.eye(6).double(), rtol=0, atol=1e-8)
    centred = rows.double() - rows.double().mean(0)
    _, values, right = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(projection(rows).norm(dim=0), values[:6], rtol=1e-6, atol=1e-8)
    alike = (projection.axes.T @ right[:6].T).abs()
    torch.testing.assert_close(alike, torch.eye(6).double(), rtol=0, atol=1e-4)


def test_components_are_no_more_than_there_are():
    assert fit_projection(cloud(5, 9, "few"), 100, rng_for(0)).axes.shape == (9, 4)
    assert fit_projection(cloud(9, 3, "thin"), 100, rng_for(0)).axes.shape == (3, 3)
    with pytest.raises(ValueError, match="two images"):
        fit_projection(cloud(1, 3, "one"), 100, rng_for(0))


def test_a_balanced_choice_has_as_many_of_each_class_as_there_are():
    labels = np.repeat([0, 1, 2], [50, 50, 4])
    chosen = drawn_balanced(labels, 30, rng_for(0))
    assert np.bincount(labels[chosen]).tolist() == [13, 13, 4]
    assert len(set(chosen)) == 30 and (np.diff(chosen) > 0).all()
    assert not np.array_equal(chosen, drawn_balanced(labels, 30, rng_for(1)))
    assert np.array_equal(drawn_balanced(labels, 104, rng_for(0)), np.arange(104))
