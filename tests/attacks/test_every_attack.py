"""The contract of attacks, on a classifier whose distance to the boundary is known."""

import dataclasses

import pytest
import torch

from conftest import Halfspace
from robustgen.attacks import APGD, ATTACKS, PGD, MultiTargeted, Restarts, Square, evaluation_attack
from robustgen.attacks.apgd import checkpoints
from robustgen.objectives import dlr, kl_divergence, margin, targeted_margin
from robustgen.randomness import rng_for
from robustgen.testing import ATTACK_CHECKS, finds_what_exists_and_nothing_else
from robustgen.threat import ThreatModel


@pytest.fixture(params=ATTACKS)
def attack(request):
    found = ATTACKS[request.param]
    return dataclasses.replace(found, queries=1000) if isinstance(found, Square) else found


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("check", ATTACK_CHECKS)
def test_contract(attack, check, norm):
    # Random search in l2 and l1 is tested below: its windows, at least 3 wide, cover these 2x2 images whole.
    if isinstance(attack, Square) and norm != "linf" and check == "finds_what_exists_and_nothing_else":
        finds_what_exists_and_nothing_else(attack, norm, reach=0)
    else:
        ATTACK_CHECKS[check](attack, norm)


@pytest.mark.parametrize(("norm", "reach"), [("linf", 0.95), ("l2", 0.4), ("l1", 0.4)])
def test_square_search_gets_most_of_the_way(norm, reach):
    """Without gradients, on images large enough for its windows; half the images are within the radius."""
    model = Halfspace(3 * 8 * 8)
    images = 0.5 + 0.1 * torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    labels = model(images).argmax(1)
    needed = model.distance_to_boundary(images, labels, norm)
    threat = ThreatModel(norm, float(needed.median()))
    found = Square(2000).search(model, images, labels, threat, rng_for(0))
    fooled = model(found.points).argmax(1) != labels
    assert threat.contains(found.points, images).all()
    assert fooled[needed < reach * threat.eps].all() and not fooled[needed > 1.001 * threat.eps].any()
    assert torch.equal(found.step >= 0, fooled) and fooled.sum() > 8


def test_a_model_that_cuts_its_gradient_is_named(attack):
    if isinstance(attack, Square):
        pytest.skip("needs no gradient")

    class Cut(Halfspace):
        def forward(self, images):
            return super().forward(images).detach()

    images = torch.rand(4, 3, 2, 2)
    with pytest.raises(ValueError, match="has no gradient"):
        attack(Cut(), images, Cut()(images).argmax(1), ThreatModel("linf", 0.1), rng_for(0))


def test_pgd_climbs_away_from_probabilities():
    """As an inner attack its targets are the clean predictions, and every step of ascent counts."""
    model = Halfspace()
    images = 0.5 + 0.05 * torch.randn(30, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    clean = model(images).detach().softmax(1)
    threat = ThreatModel("linf", 0.1)
    gains = []
    for steps in (1, 3, 10):
        attack = PGD(steps, objective=kl_divergence)
        found = attack(model, images, clean, threat, rng_for(0))
        gains.append(kl_divergence(model(found), clean).mean().item())
    assert 0 < gains[0] < gains[1] < gains[2]


def test_step_schedules_are_the_papers_and_the_codes():
    paper, code = evaluation_attack(40, margin), evaluation_attack(40, margin, "code")
    scale = 8 / 255
    assert [round(paper.step_at(k) * scale, 6) for k in (0, 19, 20, 29, 30, 39)] == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert [round(code.step_at(k) * scale, 6) for k in (0, 20, 30)] == [0.1, 0.01, 0.0001]


def test_adams_first_step_is_the_sign_of_the_gradient():
    """Bias-corrected m / sqrt(v) of one gradient is its sign, so one step of eps reaches the corner of the ball."""
    model = Halfspace()
    images = torch.full((8, 3, 2, 2), 0.5)
    labels = torch.arange(8) % 4
    threat = ThreatModel("linf", 0.05)
    found = PGD(1, 2.0, "adam", objective=margin)(model, images, labels, threat, rng_for(0))
    torch.testing.assert_close((found - images).abs(), torch.full_like(images, 0.05))


def test_apgds_checkpoints_are_the_published_ones():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(10) == (2, 3, 4, 5, 6, 7, 8, 9, 10)


def test_apgd_returns_the_best_point_of_images_that_stand(halfspace_setting):
    """On a linear classifier the best margin within the ball is known; APGD must end on it."""
    model, images, labels, norm = halfspace_setting
    eps = 0.5 * float(model.distance_to_boundary(images, labels, norm).min())
    found = APGD(100, dlr)(model, images, labels, ThreatModel(norm, eps), rng_for(0))
    start = margin(model(images), labels)
    needed = model.distance_to_boundary(images, labels, norm)
    # The margin of the nearest class falls linearly and reaches 0 at the distance.
    reached = margin(model(found), labels)
    nearest_best = start * (1 - eps / needed)
    slack = {"linf": 0.02, "l2": 0.02, "l1": 0.1}[norm]  # in l1 the last phase is 40 steps of at least eps / 10
    assert (reached >= nearest_best - slack * start.abs()).all()
    assert (reached < 0).all()


def test_multitargeted_aims_at_the_likeliest_classes_first():
    logits = torch.tensor([[9.0, 1.0, 3.0, 2.0]])
    labels = torch.tensor([0])
    attack = MultiTargeted(evaluation_attack(5, targeted_margin), restarts=4)
    assert [attack.targets_for(run, logits, labels).tolist() for run in range(4)] == [
        [[0, 2]],
        [[0, 3]],
        [[0, 1]],
        [[0, 2]],
    ]
    assert attack.runs(4) == 4
    assert dataclasses.replace(attack, each=True).runs(4) == 12
    assert dataclasses.replace(attack, each=True).runs(100) == 36
    assert Restarts(attack.attack, 5).runs(10) == 5


def test_restarts_only_add_successes(halfspace_setting):
    model, images, labels, norm = halfspace_setting
    threat = ThreatModel(norm, float(model.distance_to_boundary(images, labels, norm).median()))
    weak = PGD(1, 0.5, until_fooled=True)
    once = model(Restarts(weak, 1)(model, images, labels, threat, rng_for(0))).argmax(1) != labels
    often = model(Restarts(weak, 8)(model, images, labels, threat, rng_for(0))).argmax(1) != labels
    assert (often | ~once).all() and often.sum() > once.sum()


def test_the_start_is_uniform_in_the_ball_or_normal_about_the_image():
    """A flat objective leaves the start where it is."""
    images, threat = torch.full((200, 1, 8, 8), 0.5), ThreatModel("linf", 0.1)

    def started(attack):
        flat = dataclasses.replace(attack, objective=lambda logits, targets: 0 * logits.sum(1))
        return flat(torch.nn.Flatten(), images, torch.zeros(200).long(), threat, rng_for(0)) - images

    uniform, normal = started(PGD(1)), started(PGD(1, deviation=0.001))
    assert uniform.std() == pytest.approx(0.1 / 3**0.5, rel=0.02) and uniform.abs().max() <= 0.1 + 1e-6
    assert normal.std() == pytest.approx(0.001, rel=0.03) and normal.abs().max() > 0.003
    assert started(PGD(1, deviation=0.5)).abs().max() <= 0.1 + 1e-6  # brought into the ball


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="known: as-is, eval, updating"):
        PGD(1, mode="train")
    with pytest.raises(ValueError, match="at least 0"):
        PGD(1, deviation=-1.0)
    with pytest.raises(ValueError, match="at least 1 step"):
        PGD(0)
    with pytest.raises(ValueError, match="known: steepest, adam"):
        PGD(1, optimizer="sgd")
    with pytest.raises(ValueError, match="at least 1 step"):
        APGD(0)
