import pytest
import torch
from torch import nn

from robustgen.attacks import PGD
from robustgen.contracts import Batch
from robustgen.losses import LOSSES, MACER, TRADES, Consistency, GaussianNoise, SmoothAdv, Stability, trades_loss
from robustgen.losses.certified import macer_loss, soft_vote
from robustgen.losses.smoothing import consistency_loss
from robustgen.objectives import kl_divergence
from robustgen.randomness import rng_for
from robustgen.testing import LOSS_CHECKS, small_batch, small_network
from robustgen.threat import ThreatModel

THREAT = ThreatModel("linf", 0.1)


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]()


@pytest.mark.parametrize("check", LOSS_CHECKS)
def test_contract(loss, check):
    LOSS_CHECKS[check](loss)


def test_trades_updates_statistics_from_the_passes_it_names():
    batch, attack = small_batch(), PGD(3, objective=kl_divergence)
    official, ports, clean = small_network(), small_network(), small_network()
    TRADES(6.0, attack)(official, batch, THREAT, rng_for(0))
    TRADES(6.0, attack, statistics="both")(ports, batch, THREAT, rng_for(0))
    clean(batch.images)
    assert ports[1].num_batches_tracked == 2
    assert not torch.equal(official[1].running_mean, clean[1].running_mean)
    assert not torch.equal(official[1].running_mean, ports[1].running_mean)


def test_trades_at_zero_radius_is_cross_entropy():
    """Without an adversary clean and attacked logits are equal, and the divergence is 0."""
    model, batch = small_network(), small_batch()
    value = TRADES(6.0)(model, batch, ThreatModel("linf", 0.0), rng_for(0))
    expected = nn.functional.cross_entropy(small_network()(batch.images), batch.targets)
    torch.testing.assert_close(value, expected)


def test_trades_loss_by_hand():
    clean, adversarial = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0986122886681098, 0.0]])  # 3 : 1
    divergence = 0.5 * torch.tensor(0.5 / 0.75).log() + 0.5 * torch.tensor(0.5 / 0.25).log()
    value = trades_loss(clean, adversarial, torch.tensor([0]), beta=6.0)
    torch.testing.assert_close(value, torch.tensor(2.0).log() + 6 * divergence)


def test_trades_loss_passes_gradients_through_both_sets_of_logits():
    clean = torch.randn(4, 3, requires_grad=True)
    adversarial = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0])
    with_both = torch.autograd.grad(trades_loss(clean, adversarial, labels, beta=6.0), [clean, adversarial])
    assert all(gradient.abs().sum() > 0 for gradient in with_both)
    alone = torch.autograd.grad(nn.functional.cross_entropy(clean, labels), clean)[0]
    assert not torch.allclose(with_both[0], alone)


def test_nonsense_is_refused():
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="the same shape"):
        trades_loss(logits, logits[:1], torch.zeros(2, dtype=torch.int64), beta=6.0)
    with pytest.raises(ValueError, match="at least 0"):
        trades_loss(logits, logits, torch.zeros(2, dtype=torch.int64), beta=-1.0)
    with pytest.raises(ValueError, match="known: adversarial, both"):
        TRADES(statistics="none")


def test_losses_under_noise_are_cross_entropy_without_it():
    """With next to no noise all copies agree, and only the cross-entropy of the clean images is left."""
    batch = small_batch()
    clean = nn.functional.cross_entropy(small_network()(batch.images), batch.targets)
    for loss in (GaussianNoise(1e-6, 3), Stability(1e-6), Consistency(1e-6, 2, entropy=0.0), SmoothAdv(1e-6, eps=0.0)):
        torch.testing.assert_close(loss(small_network(), batch, THREAT, rng_for(0)), clean, rtol=1e-4, atol=1e-4)
    soft = MACER(1e-6, 2, weight=0.0)(small_network(), batch, THREAT, rng_for(0))
    torch.testing.assert_close(soft, clean, rtol=1e-4, atol=1e-4)


def test_noise_has_the_asked_deviation_and_is_not_clipped():
    seen = []

    class Listening(nn.Module):
        def forward(self, images):
            seen.append(images)
            return images.flatten(1)[:, :3]

    batch = Batch(torch.ones(500, 1, 8, 8), small_batch(500).targets, torch.zeros(500, dtype=torch.bool))
    for loss in (GaussianNoise(0.3, 2), Stability(0.3), Consistency(0.3), MACER(0.3, 4)):
        seen.clear()
        loss(Listening(), batch, THREAT, rng_for(0))
        noise = seen[-1] - 1
        assert abs(noise.std().item() - 0.3) < 0.005 and abs(noise.mean().item()) < 0.005 and noise.max() > 0.5
        assert len(torch.unique(noise.flatten(1), dim=0)) == len(noise)


def test_stability_sees_noise_in_its_running_statistics():
    batch, noisy, clean = small_batch(), small_network(), small_network()
    Stability(0.25)(noisy, batch, THREAT, rng_for(0))
    clean(batch.images + 0.25 * rng_for(0).normal(batch.images.shape))
    assert torch.equal(noisy[1].running_mean, clean[1].running_mean)


def test_consistency_loss_by_hand():
    """Two copies that say 3 : 1 and 1 : 3; their mean is even."""
    logits = torch.tensor([[[3.0, 1.0]], [[1.0, 3.0]]]).log()
    error = -0.5 * (torch.tensor(0.75).log() + torch.tensor(0.25).log())
    surprise = 0.5 * torch.tensor(0.5 / 0.75).log() + 0.5 * torch.tensor(0.5 / 0.25).log()
    value = consistency_loss(logits, torch.tensor([[1.0, 0.0]]), weight=10.0, entropy=0.5)
    torch.testing.assert_close(value, error + 10 * surprise + 0.5 * torch.tensor(2.0).log())


def test_macer_loss_by_hand():
    """One image right with p = 0.9 against 0.1, one wrong, one so sure that its radius is beyond the goal."""
    sure = torch.tensor([[9.0, 1.0], [1.0, 9.0], [1e6, 1.0]]).log()
    logits = torch.stack([sure, sure]).requires_grad_()
    targets = torch.tensor([[1.0, 0.0]] * 3)
    value = macer_loss(logits, targets, sigma=0.5, weight=12.0, gamma=8.0, temperature=1.0)
    quantile = torch.special.ndtri(torch.tensor(0.9))
    error = -(torch.tensor([0.9, 0.1, 1.0]).log().sum())
    torch.testing.assert_close(value, (error + 12 * 0.25 * (8 - 2 * quantile)) / 3, rtol=1e-4, atol=1e-5)
    value.backward()
    assert torch.isfinite(logits.grad).all()
    saturated = torch.full((2, 1, 2), 0.0)
    saturated[..., 0] = 1e4  # p is exactly 1: an infinite radius, left out without a trace in the gradient
    saturated.requires_grad_()
    macer_loss(saturated, targets[:1], sigma=0.5, weight=12.0, gamma=8.0, temperature=16.0).backward()
    assert torch.isfinite(saturated.grad).all()


def test_smoothadv_attacks_the_soft_vote_within_its_l2_ball():
    """Against a linear classifier steepest ascent goes straight along the difference of the weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    images, targets = torch.full((5, 1, 8, 8), 0.5), torch.tensor([[1.0, 0.0]] * 5)
    noises = 0.1 * rng_for(0).normal((15, 1, 8, 8))
    loss = SmoothAdv(0.1, draws=3, eps=0.4, steps=4)
    points = loss.attacked(model, images, targets, noises)
    away = model[1].weight[1] - model[1].weight[0]
    moved = (points - images).flatten(1)
    torch.testing.assert_close(moved, (0.4 * away / away.norm()).expand(5, -1).detach(), rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())
    before, after = (soft_vote(model(x.repeat(3, 1, 1, 1) + noises).view(3, 5, 2))[:, 0] for x in (images, points))
    assert (after < before).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: GaussianNoise(0.0), "sigma must be above 0"),
        (lambda: Stability(beta=-1.0), "beta must be at least 0"),
        (lambda: Consistency(draws=0), "draws must be at least 1"),
        (lambda: SmoothAdv(steps=0), "steps must be at least 1"),
        (lambda: MACER(weight=-1.0), "weight must be at least 0"),
    ],
)
def test_nonsense_under_noise_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize(("mode", "updates"), [("as-is", 1), ("eval", 1), ("updating", 1 + 3)])
def test_the_attack_runs_batch_norms_as_it_says(mode, updates):
    """By the batch, by the running statistics, or by the batch with those following each of the 3 steps."""
    seen = []
    model = small_network()
    model[1].register_forward_hook(lambda module, *_: seen.append((module.training, module.track_running_stats)))
    TRADES(6.0, PGD(3, mode=mode))(model, small_batch(), THREAT, rng_for(0))
    assert model[1].num_batches_tracked == updates
    assert seen[1:4] == 3 * [{"as-is": (True, False), "eval": (False, False), "updating": (True, True)}[mode]]
    assert seen[4] == (True, True) and model.training and model[1].track_running_stats
