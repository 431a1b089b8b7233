import pytest
import torch
from torch import nn

from robustgen.attacks import PGD
from robustgen.contracts import Batch
from robustgen.losses import LOSSES, TRADES, trades_loss
from robustgen.objectives import kl_divergence
from robustgen.randomness import rng_for
from robustgen.threat import ThreatModel

THREAT = ThreatModel("linf", 0.1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def a_batch(count=12):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    targets = torch.rand(count, 3, generator=generator).softmax(1)
    return Batch(images, targets, torch.zeros(count, dtype=torch.bool))


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]()


def test_gives_a_finite_scalar_whose_gradient_reaches_every_parameter(loss):
    model = network().train()
    value = loss(model, a_batch(), THREAT, rng_for(0))
    assert value.shape == () and torch.isfinite(value)
    value.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_same_place_same_value(loss):
    values = [loss(network().train(), a_batch(), THREAT, rng_for(0)).item() for _ in range(2)]
    assert values[0] == values[1]


def test_training_on_it_lowers_it(loss):
    model = network().train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    values = []
    for step in range(15):
        value = loss(model, a_batch(), THREAT, rng_for(0, step))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert min(values[-3:]) < values[0]


def test_statistics_are_updated_once_a_step(loss):
    model = network().train()
    loss(model, a_batch(), THREAT, rng_for(0))
    assert model[1].num_batches_tracked == 1


def test_trades_updates_statistics_from_the_passes_it_names():
    batch, attack = a_batch(), PGD(3, objective=kl_divergence)
    official, ports, clean = network().train(), network().train(), network().train()
    TRADES(6.0, attack)(official, batch, THREAT, rng_for(0))
    TRADES(6.0, attack, statistics="both")(ports, batch, THREAT, rng_for(0))
    clean(batch.images)
    assert ports[1].num_batches_tracked == 2
    assert not torch.equal(official[1].running_mean, clean[1].running_mean)
    assert not torch.equal(official[1].running_mean, ports[1].running_mean)


def test_trades_at_zero_radius_is_cross_entropy():
    """Without an adversary clean and attacked logits are equal, and the divergence is 0."""
    model, batch = network().train(), a_batch()
    value = TRADES(6.0)(model, batch, ThreatModel("linf", 0.0), rng_for(0))
    expected = nn.functional.cross_entropy(network().train()(batch.images), batch.targets)
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
    with pytest.raises(ValueError, match="one shape"):
        trades_loss(logits, logits[:1], torch.zeros(2, dtype=torch.int64), beta=6.0)
    with pytest.raises(ValueError, match="at least 0"):
        trades_loss(logits, logits, torch.zeros(2, dtype=torch.int64), beta=-1.0)
    with pytest.raises(ValueError, match="known: adversarial, both"):
        TRADES(statistics="none")
