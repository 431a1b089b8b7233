"""Which ascents swift makes, on a classifier of one pixel whose objectives are solved on paper."""

import torch

from robustgen.attacks import Swift
from robustgen.randomness import rng_for
from robustgen.threat import ThreatModel


class OnePixel(torch.nn.Module):
    """With u = pixel - 1/2: logits 1, `second` + u, -u, -1 - 3u.

    The targeted DLR objectives of classes 1, 2 and 3 are (second + u - 1), -(1 + u) and -(2 + 3u), each over 1.5 + 2u:
    the first two rise with u, the third falls.
    """

    def __init__(self, second: float):
        super().__init__()
        self.second = second
        self.gradients = self.forwards = 0

    def forward(self, images):
        if torch.is_grad_enabled() and images.requires_grad:
            self.gradients += len(images)
        else:
            self.forwards += len(images)
        u = images.flatten(1) - 0.5
        return torch.cat([torch.ones_like(u), self.second + u, -u, -1 - 3 * u], dim=1)


def attacked(second: float):
    model = OnePixel(second)
    image, label = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    return model, Swift().search(model, image, label, ThreatModel("linf", 0.1))


FIRST = 21 + 3 * 9
"""An ascent of n steps makes n + 1 gradients: 20 steps on DLR, then 8 to each of three classes."""


def test_only_classes_that_came_near_are_tried_again():
    """DLR is (0.9 - 1) / (1 + 0.1) = -0.09 at u = 0.1, where the ascents to classes 1 and 2 end, within every limit,
    and (0.7 - 1) / (1 - 0.1) = -0.33 at u = -0.1, where that to class 3 ends, within none; Square asks for -0.05."""
    model, found = attacked(0.8)
    assert found.step.item() == -1 and model.gradients == FIRST + 2 * (21 + 61 + 81)
    assert model.forwards < 20
    torch.testing.assert_close(found.points.flatten(), torch.tensor([0.6]))
    torch.testing.assert_close(found.margin, torch.tensor([-0.1]))


def test_an_image_far_from_every_class_is_attacked_in_the_first_round_only():
    model, found = attacked(0.4)  # (0.5 - 1) / 1.1 = -0.45
    assert found.step.item() == -1 and model.gradients == FIRST and model.forwards < 20


def test_square_attacks_what_came_nearest():
    model, found = attacked(0.87)  # (0.97 - 1) / 1.1 = -0.03
    assert found.step.item() == -1 and model.forwards > 100


def test_a_broken_image_is_attacked_no_more():
    model, found = attacked(0.95)
    assert 0 <= found.step.item() <= 20 and model.gradients <= 21
    assert model(found.points).argmax() == 1


def test_the_first_class_that_breaks_an_image_gives_its_result_in_any_batch():
    """From several classes at once the first by rank is kept, alone, and beside images of which more ascents remain."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 24), torch.nn.Tanh(), torch.nn.Linear(24, 8))
    images = torch.rand(24, 1, 4, 4)
    labels = model(images).argmax(1)
    rng = rng_for(0, "swift").each(torch.arange(24))
    swift, threat = Swift(first=1), ThreatModel("linf", 0.1)
    whole = swift.search(model, images, labels, threat, rng)
    assert (whole.step < 0).any() and (whole.step > 9).any(), "some stand, some fall to an ascent after others"
    one = Swift(first=1, targets=1).search(model, images, labels, threat, rng)
    fell = one.step >= 0
    assert fell.any() and torch.equal(one.step[fell], whole.step[fell]), "classes after the first change nothing then"
    for rows in ([3], list(range(7)), list(range(23, -1, -1))):
        index = torch.tensor(rows)
        part = swift.search(model, images[index], labels[index], threat, rng.rows(index))
        assert torch.equal(part.step, whole.step[index]) and torch.allclose(part.points, whole.points[index], atol=1e-6)
