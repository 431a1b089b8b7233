import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustgen.randomness import rng_for
from robustgen.threat import NORMS, ThreatModel
from robustgen.units import parse_number, show_number


@pytest.fixture(params=NORMS)
def threat(request):
    return ThreatModel(request.param, {"linf": 0.1, "l2": 0.5, "l1": 2.0}[request.param])


@pytest.fixture
def images():
    return torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_projection_lands_inside_and_leaves_the_inside_alone(threat, images):
    far = images + 3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    near = threat.project(far, images)
    assert threat.contains(near, images).all()
    torch.testing.assert_close(threat.project(near, images), near, rtol=0, atol=1e-7)
    assert not threat.contains(far, images).any()


def test_projection_is_the_nearest_point_where_that_is_known():
    """linf: clipping. l2, away from the box: the point on the segment at distance eps."""
    images = torch.full((1, 1, 2, 2), 0.5)
    points = torch.tensor([[[[0.9, 0.52], [0.5, 0.1]]]])
    expected = torch.tensor([[[[0.6, 0.52], [0.5, 0.4]]]])
    torch.testing.assert_close(ThreatModel("linf", 0.1).project(points, images), expected)
    delta = points - images
    torch.testing.assert_close(ThreatModel("l2", 0.1).project(points, images), images + 0.1 * delta / delta.norm())


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_projection_is_exact_on_ball_and_box(norm, images):
    """z is the projection of p on a convex set exactly when (p - z).(q - z) <= 0 for every q of the set."""
    threat = ThreatModel(norm, {"linf": 0.1, "l1": 2.0}[norm])
    generator = torch.Generator().manual_seed(1)
    points = images + 0.5 * torch.randn(images.shape, generator=generator)
    nearest = threat.project(points, images)
    for place in range(50):
        other = threat.random_start(images, rng_for(place))
        assert ((points - nearest) * (other - nearest)).flatten(1).sum(1).max() < 1e-4
    corner = threat.project(images + 10 * threat.ascend(points), images)  # extreme points of the ball
    assert ((points - nearest) * (corner - nearest)).flatten(1).sum(1).max() < 1e-4
    if norm == "l1":  # whoever was outside ends on the boundary
        outside = threat.distance(points.clamp(0, 1), images) > threat.eps
        torch.testing.assert_close(
            threat.distance(nearest, images)[outside], torch.full((int(outside.sum()),), 2.0), rtol=1e-5, atol=0
        )


def test_ascent_is_the_steepest_unit_step(threat):
    """Of all steps of norm 1 none gains more on a linear function than `ascend`: its gain is the dual norm."""
    gradient = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    step = threat.ascend(gradient)
    zeros = torch.zeros_like(step)
    torch.testing.assert_close(threat.distance(step, zeros), torch.ones(40))
    dual = gradient.flatten(1).norm(p={"linf": 1, "l2": 2, "l1": torch.inf}[threat.norm], dim=1)
    torch.testing.assert_close((step * gradient).flatten(1).sum(1), dual)
    assert torch.equal(threat.ascend(zeros), zeros)


def test_random_starts_fill_the_ball_uniformly():
    """Away from the box: linf coordinates are uniform, l2 and l1 radii have P(r <= t eps) = t^d."""
    middle = torch.full((20_000, 1, 1, 3), 0.5)
    linf = ThreatModel("linf", 0.2)
    moved = (linf.random_start(middle, rng_for(0)) - middle) / 0.2
    assert moved.abs().max() <= 1 + 1e-6
    assert abs(moved.mean()) < 0.01 and abs(moved.square().mean() - 1 / 3) < 0.01
    for norm in ("l2", "l1"):
        ball = ThreatModel(norm, 0.2)
        start = ball.random_start(middle, rng_for(0))
        radius = ball.distance(start, middle) / 0.2
        for t in (0.3, 0.5, 0.8):
            assert abs((radius <= t).double().mean() - t**3) < 0.015
        assert abs((start - middle).mean()) < 0.002


def test_boundary_starts_touch_the_boundary(threat):
    middle = torch.full((50, 3, 4, 4), 0.5)
    start = threat.boundary_start(middle, rng_for(0))
    torch.testing.assert_close(threat.distance(start, middle), torch.full((50,), threat.eps))


def test_starts_of_one_image_do_not_depend_on_the_others(threat, images):
    streams = rng_for(0, "start").each(range(40))
    for start in (threat.random_start, threat.boundary_start):
        whole = start(images, streams.at("a"))
        part = start(images[7:9], streams.at("a").rows(torch.tensor([7, 8])))
        assert torch.equal(part, whole[7:9])


def test_contains_refuses_the_box_the_ball_and_nan(threat, images):
    assert threat.contains(images, images).all()
    assert not threat.contains(images + 2 * threat.eps, images).any()
    assert not ThreatModel(threat.norm, 0.9).contains(torch.full_like(images, -1e-3), images.clamp(0, 0.1)).any()
    assert not threat.contains(torch.full_like(images, torch.nan), images).any()


def test_parse_and_show_are_inverse():
    for text in ("linf:8/255", "l2:128/255", "l2:0.5", "linf:0.15", "l2:1"):
        assert str(ThreatModel.parse(text)) == text
    assert ThreatModel.parse("linf:8/255").eps == 8 / 255


@given(st.integers(1, 254))
def test_grey_levels_are_shown_as_fractions_or_exactly(levels):
    assert parse_number(show_number(levels / 255)) == pytest.approx(levels / 255, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linf:8", "did you mean 8/255"),
        ("l7:0.1", "known: linf, l2, l1"),
        ("linf", "NORM:EPS"),
        ("linf:x", "a number or a fraction"),
        ("linf:1/0", "a number or a fraction"),
        ("l2:-1", "at least 0"),
        ("l2:nan", "finite"),
    ],
)
def test_nonsense_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        ThreatModel.parse(text)


def test_a_quarter_step_is_two_grey_levels():
    assert math.isclose(0.25 * ThreatModel.parse("linf:8/255").eps, 2 / 255)
