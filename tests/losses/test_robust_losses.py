"""Losses of robust training and what goes around them, on cases solved on paper."""

import math
from dataclasses import replace

import pytest
import torch
from test_every_loss import THREAT, test_contract  # noqa: F401 - the contract, for what is put around losses too
from torch import nn
from torch.nn.functional import cross_entropy

from robustgen.attacks import PGD
from robustgen.config.loading import override
from robustgen.contracts import Batch
from robustgen.losses import (
    AWP,
    GKL,
    HAT,
    LOSSES,
    MART,
    NFGSM,
    SCORE,
    TRADES,
    Adversarial,
    Plain,
    Stability,
    WeakToStrong,
    gkl_loss,
    hat_loss,
    loss_at,
    mart_loss,
    score_loss,
    trades_loss,
)
from robustgen.losses.building import build_loss
from robustgen.losses.gkl import pair_distance
from robustgen.losses.score import squared_error
from robustgen.modes import frozen_bn_stats
from robustgen.objectives import kl_divergence
from robustgen.pipeline.graph import stages
from robustgen.randomness import rng_for
from robustgen.recipes import RECIPES
from robustgen.storage.run_folder import RunDir
from robustgen.testing import small_batch, small_network
from robustgen.threat import ThreatModel
from robustgen.training.classifier import train_classifier
from robustgen.training.mixing import Mixture

AROUND = {
    "awp": AWP(),
    "awp of plain": AWP(Plain()),
    "awp of noise": AWP(Stability()),
    "weak": WeakToStrong().at(0.3),
    "weak awp": WeakToStrong(AWP(), first_eps=0.2).at(0.5),
    "fast": Adversarial(NFGSM()),
    "fast trades": TRADES(attack=NFGSM(objective=kl_divergence)),
    "mixed trades": TRADES(aim="targets"),
}


@pytest.fixture(params=AROUND)
def loss(request):
    return AROUND[request.param]


class Linear(nn.Module):
    """Two classes: logits (w . x + b, 0)."""

    def __init__(self, pixels=16, bias=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, pixels, generator=torch.Generator().manual_seed(3)))
        self.bias = bias

    def forward(self, images):
        value = images.flatten(1) @ self.weight.T + self.bias
        return torch.cat([value, torch.zeros_like(value)], 1)


def two_classes(count=6, label=0, spread=0.1):
    generator = torch.Generator().manual_seed(5)
    images = 0.5 + spread * (torch.rand(count, 1, 4, 4, generator=generator) - 0.5)
    targets = torch.eye(2)[torch.full((count,), label)]
    return Batch(images, targets, torch.zeros(count, dtype=torch.bool))


class Listening:
    """An attack that writes down what it is given, and moves all pixels by eps."""

    def __init__(self):
        self.targets, self.calls, self.eps = None, 0, None

    def __call__(self, model, images, targets, threat, rng):
        self.targets, self.eps, self.calls = targets, threat.eps, self.calls + 1
        return images + threat.eps


def test_mart_loss_by_hand():
    """Attacked 1 : 3 against the true class, clean even; and a right one with .5, .3, .2."""
    clean, attacked = torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]).log()
    divergence = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    value = mart_loss(clean, attacked, torch.tensor([[1.0, 0.0]]), beta=6.0)
    assert value.item() == pytest.approx(2 * math.log(4) + 6 * divergence * 0.5, rel=1e-5)
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    value = mart_loss(logits, logits, torch.tensor([[1.0, 0.0, 0.0]]), beta=6.0)
    assert value.item() == pytest.approx(-math.log(0.5) - math.log(0.7), rel=1e-5)


def test_mart_loss_of_mixed_labels_is_the_mixture_of_its_labels():
    torch.manual_seed(0)
    clean, attacked = torch.randn(1, 4), torch.randn(1, 4)
    share = torch.tensor([0.1, 0.2, 0.3, 0.4])
    beta = 5.0
    each = torch.stack([mart_loss(clean, attacked, torch.eye(4)[k : k + 1], beta=beta) for k in range(4)])
    torch.testing.assert_close(mart_loss(clean, attacked, share[None], beta=beta), (share * each).sum())


def test_mart_stays_finite_where_predictions_saturate():
    clean = torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, 0.0]], requires_grad=True)
    attacked = torch.tensor([[-1e4, 1e4, 0.0], [1e4, 0.0, -1e4]], requires_grad=True)
    value = mart_loss(clean, attacked, torch.tensor([[1.0, 0.0, 0.0]] * 2), beta=6.0)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(clean.grad).all() and torch.isfinite(attacked.grad).all()


def test_score_loss_by_hand():
    """Clean even: squared error 1/2. Attacked 1 : 3: 2 / 16 from the clean prediction."""
    clean, attacked = torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]).log()
    value = score_loss(clean, attacked, torch.tensor([[1.0, 0.0]]), beta=4.0)
    assert value.item() == pytest.approx(0.5 + 4 / 8, rel=1e-5)


def test_the_attack_of_score_goes_to_a_corner_of_the_ball():
    """Of two classes the squared distance is 2 (p' - p)^2: largest at one of the two ends along the weights."""
    model, batch = Linear(), two_classes()
    attack = PGD(20, 0.5, objective=squared_error)
    predictions = model(batch.images).detach().softmax(1)
    found = attack(model, batch.images, predictions, ThreatModel("linf", 0.05), rng_for(0))
    moved = (found - batch.images).flatten(1) / 0.05 * model.weight.sign()
    torch.testing.assert_close(moved.abs(), torch.ones_like(moved), rtol=1e-4, atol=1e-4)
    assert (moved[:, :1] * moved > 0).all()


def test_hat_adds_images_twice_as_far_with_the_standard_networks_labels():
    """Linear logits, an attack that adds eps to each of 16 pixels: the helper's logit is that of 2 eps."""
    model, batch, attack = Linear(), two_classes(), Listening()
    standard = Linear(bias=-1e3)  # says class 1, whatever it sees
    loss = HAT(beta=0.0, weight=0.5, standard=standard, attack=attack)
    value = loss(model, batch, ThreatModel("linf", 0.1), rng_for(0))
    clean = cross_entropy(model(batch.images), batch.targets)
    helper = model(batch.images)[:, 0] + 0.2 * model.weight.sum()
    torch.testing.assert_close(value, clean + 0.5 * nn.functional.softplus(helper).mean())
    torch.testing.assert_close(attack.targets, model(batch.images).softmax(1))
    logits = torch.randn(3, 2)
    both = hat_loss(logits, logits, logits, torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 1]), beta=6.0, weight=2.0)
    torch.testing.assert_close(both, 3 * cross_entropy(logits, torch.tensor([0, 1, 1])))


def test_hat_leaves_the_standard_network_as_it_was():
    standard, model = small_network().train(), small_network().train()
    before = [value.clone() for value in standard.state_dict().values()]
    HAT(standard=standard)(model, small_batch(), THREAT, rng_for(0)).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, standard.state_dict().values(), strict=True))
    assert standard.training and all(parameter.grad is None for parameter in standard.parameters())


def test_half_the_decoupled_divergence_has_the_divergences_gradient():
    """In the clean logits, weights held at the clean predictions; the cross-entropy has it in the attacked ones."""
    torch.manual_seed(0)
    clean, attacked = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    divergence = kl_divergence(attacked, clean.softmax(1)).sum()
    expected = torch.autograd.grad(divergence, [clean, attacked])
    apart = pair_distance(clean, attacked, clean.detach().softmax(1)).sum()
    torch.testing.assert_close(torch.autograd.grad(apart, clean)[0], expected[0])
    alike = -(clean.detach().softmax(1) * attacked.log_softmax(1)).sum()
    torch.testing.assert_close(torch.autograd.grad(alike, attacked)[0], expected[1])


def test_pair_distance_is_a_sum_over_pairs():
    torch.manual_seed(0)
    clean, attacked, weights = torch.randn(3, 4), torch.randn(3, 4), torch.rand(3, 4)
    pairs = (clean[:, :, None] - clean[:, None]) - (attacked[:, :, None] - attacked[:, None])
    by_hand = 0.25 * (weights[:, :, None] * weights[:, None] * pairs.square()).sum((1, 2))
    torch.testing.assert_close(pair_distance(clean, attacked, weights), by_hand)


def test_gkl_loss_by_hand():
    """Images 1 and 2 are of class 0 and say 3 : 1 and 1 : 1, so their class says 5 : 3. Image 3 says 1 : 4."""
    clean = torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 4.0]]).log()
    attacked = clean + torch.tensor([[0.0, 2.0], [1.0, 1.0], [3.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # Half the variance of a difference of 2 between classes of 5/8 and 3/8, none, and 3 between 1/5 and 4/5.
    apart = (0.5 * 4 * 15 / 64 + 0 + 0.5 * 9 * 4 / 25) / 3
    predictions = clean.softmax(1)
    alike = -(predictions * attacked.log_softmax(1)).sum(1).mean()
    value = gkl_loss(clean, attacked, targets, alpha=4.0, beta=20.0, temperature=1.0)
    torch.testing.assert_close(value, cross_entropy(clean, targets) + 4 * alike + 20 * apart)
    flat = gkl_loss(clean, attacked, targets, alpha=0.0, beta=1.0, temperature=1.0, power=0.0)
    even = (4 + 0 + 9) / 8 / 3  # weights 1 and 1, which count 2 * 2 in the mean
    torch.testing.assert_close(flat, cross_entropy(clean, targets) + even)


def test_awp_moves_the_weights_straight_against_the_margin():
    """ln(1 + exp(-w . x)) of one image is worst at w - radius |w| x / |x|: margin w . x - radius |w| |x|."""
    model, batch = Linear(), two_classes(1)
    value = AWP(Plain(), radius=0.1)(model, batch, THREAT, rng_for(0))
    x, w = batch.images.flatten(), model.weight.detach().flatten()
    margin = w @ x - 0.1 * w.norm() * x.norm()
    torch.testing.assert_close(value.detach(), nn.functional.softplus(-margin))
    before = model.weight.detach().clone()
    value.backward()
    torch.testing.assert_close(model.weight.grad[0], -torch.sigmoid(-margin) * x)  # the gradient there
    assert torch.equal(model.weight, before)  # and the weights where they were


def test_awp_without_a_radius_is_the_loss_itself():
    for inner in (Plain(), TRADES(), MART(), Stability()):
        value = AWP(inner, radius=0.0)(small_network().train(), small_batch(), THREAT, rng_for(0))
        torch.testing.assert_close(value, inner(small_network().train(), small_batch(), THREAT, rng_for(0)))


def test_awp_attacks_once_and_perturbs_convolutions_and_linear_layers_alone():
    attack, model, batch = Listening(), small_network().train(), small_batch()
    passes = []
    model[0].register_forward_hook(lambda *_: passes.append(1))
    value = AWP(TRADES(6.0, attack), radius=0.5)(model, batch, THREAT, rng_for(0))
    assert attack.calls == 1 and len(passes) == 4  # clean and attacked, at the weights and at the worst nearby
    assert model[1].num_batches_tracked == 1
    moved = small_network().train()
    logits = moved(batch.images), moved(batch.images + 0.1)
    grads = torch.autograd.grad(trades_loss(*logits, batch.targets, beta=6.0), [moved[0].weight, moved[4].weight])
    with torch.no_grad():
        for weight, gradient in zip((moved[0].weight, moved[4].weight), grads, strict=True):
            weight += 0.5 * weight.norm() * gradient / gradient.norm()
    with frozen_bn_stats(moved):
        expected = trades_loss(moved(batch.images), moved(batch.images + 0.1), batch.targets, beta=6.0)
    torch.testing.assert_close(value, expected)


def test_awp_begins_after_its_warm_up():
    awp = AWP(TRADES(), warmup=0.25)
    assert loss_at(awp, 0.25) == TRADES() and loss_at(awp, 0.26) == awp


@pytest.mark.parametrize("name", ["plain", "adversarial", "trades", "mart", "hat", "score", "gkl", "stability"])
def test_originals_and_generated_images_are_weighed_as_asked(name):
    """PORT: gamma times the loss of the originals, the rest that of the generated ones; without batch norms."""
    model, whole = Linear(), two_classes(10)
    batch = replace(whole, targets=torch.eye(2)[[0, 1] * 5], generated=torch.arange(10) >= 4)
    options = {} if name in ("plain", "stability") else {"attack": Listening()}
    options |= {"sigma": 1e-4} if name == "stability" else {}
    halves = [Batch(batch.images[k], batch.targets[k], batch.generated[k]) for k in (slice(0, 4), slice(4, 10))]
    real, generated = (LOSSES[name](**options)(model, half, THREAT, rng_for(0)) for half in halves)
    for weight in (0.0, 0.4, 1.0):
        value = LOSSES[name](**options, real_weight=weight)(model, batch, THREAT, rng_for(0))
        torch.testing.assert_close(value, weight * real + (1 - weight) * generated, rtol=1e-3, atol=1e-5)
    alone = LOSSES[name](**options, real_weight=0.4)(model, halves[0], THREAT, rng_for(0))
    torch.testing.assert_close(alone, real, rtol=1e-3, atol=1e-5)  # nothing to weigh


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nfgsm_takes_one_step_from_noise_of_twice_the_radius(norm):
    """Against a linear classifier the step is eps along the ascent direction, wherever it starts."""
    model, batch, threat = Linear(), two_classes(200), ThreatModel(norm, 0.04)
    found = NFGSM()(model, batch.images, batch.targets, threat, rng_for(0))
    start = ThreatModel(norm, 0.08).random_start(batch.images, rng_for(0))
    step = threat.ascend(-model.weight.detach().view(1, 1, 4, 4).expand(200, -1, -1, -1))
    torch.testing.assert_close(found, start + 0.04 * step, rtol=1e-4, atol=1e-6)
    reach = threat.distance(found, batch.images)
    assert reach.max() <= 0.12 + 1e-6 and (reach > 0.04).any()
    dark = torch.zeros_like(batch.images)
    assert NFGSM()(model, dark, batch.targets, ThreatModel("linf", 0.7), rng_for(0)).aminmax()[0] >= 0


def test_attacks_grow_in_equal_parts_of_a_training():
    attack = PGD(5, objective=kl_divergence)
    loss = WeakToStrong(TRADES(attack=attack), first_steps=2)
    shares = {0.001: 2, 0.25: 2, 0.26: 3, 0.5: 3, 0.51: 4, 0.75: 4, 0.76: 5, 1.0: 5}
    assert {share: loss.at(share).steps_of(5) for share in shares} == shares
    model, batch = small_network().train(), small_batch()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    loss.at(0.3)(model, batch, THREAT, rng_for(0))
    assert len(calls) == 3 + 2
    last = loss(small_network().train(), batch, THREAT, rng_for(0))
    assert torch.equal(last, TRADES(attack=attack)(small_network().train(), batch, THREAT, rng_for(0)))
    constant = replace(loss, first_steps=5)
    assert all(constant.at(share).steps_of(5) == 5 for share in shares)


def test_radii_grow_evenly():
    attack = Listening()
    loss = WeakToStrong(Adversarial(attack), first_steps=None, first_eps=0.2)
    for share, eps in ((0.0, 0.02), (0.5, 0.06), (1.0, 0.1)):
        loss.at(share)(Linear(), two_classes(), ThreatModel("linf", 0.1), rng_for(0))
        assert attack.eps == pytest.approx(eps)
    with pytest.raises(ValueError, match="attack with several steps"):
        WeakToStrong(Adversarial(NFGSM()))(Linear(), two_classes(), THREAT, rng_for(0))


def test_training_tells_a_loss_how_far_it_is(tiny_images, tmp_path):
    shares = []

    class Growing(Plain):
        def at(self, share):
            shares.append(share)
            return Plain()

    settings = override(
        RECIPES["digits"],
        ["train.schedule.total_images=40", "train.schedule.batch_size=10", "train.models=1", "train.real_share=1"],
    ).train
    mixture = Mixture(tiny_images, batch_size=10)
    train_classifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), mixture, Growing(), THREAT, settings, tmp_path, seed=0
    )
    assert shares == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("loss_of", [TRADES, HAT, SCORE, GKL])
def test_attacks_aim_away_from_predictions_or_from_targets(loss_of):
    model, batch, attack = Linear(), two_classes(), Listening()
    loss_of(attack=attack)(model, batch, THREAT, rng_for(0))
    torch.testing.assert_close(attack.targets, model(batch.images).detach().softmax(1))
    loss_of(attack=attack, aim="targets")(model, batch, THREAT, rng_for(0))
    assert attack.targets is batch.targets


def train_with(*assignments):
    return override(RECIPES["digits"], [f"train.{assignment}" for assignment in assignments]).train


def test_recipes_name_the_losses_and_what_goes_around_them(tmp_path):
    assert build_loss(train_with()) == TRADES()
    assert build_loss(train_with("loss=mart", "loss.beta=5")) == MART(5.0)
    assert build_loss(train_with("loss=score", "loss.beta=4")) == SCORE()
    assert build_loss(train_with("loss=gkl")) == GKL()
    assert build_loss(train_with("loss=adversarial", "loss.attack.optimizer=n-fgsm")) == Adversarial(NFGSM())
    near = build_loss(train_with("loss=adversarial", "loss.attack.start=normal", "loss.attack.mode=eval"))
    assert (near.attack.deviation, near.attack.mode, near.attack.optimizer) == (0.001, "eval", "adam")
    assert build_loss(train_with("loss=adversarial", "loss.real_weight=0.4")) == Adversarial(real_weight=0.4)
    assert build_loss(train_with("loss=stability", "loss.real_weight=0.4")) == Stability(real_weight=0.4)
    assert build_loss(train_with("awp=0.005", "awp_warmup=0.1")) == AWP(TRADES(), 0.005, 0.1)
    grown = build_loss(train_with("awp=0.005", "loss.attack.first_steps=2", "loss.attack.first_eps=0"))
    assert grown == WeakToStrong(AWP(TRADES(), 0.005, 0.05), 2, 0.0)
    assert build_loss(train_with("loss.attack.first_eps=0.5")) == WeakToStrong(TRADES(), None, 0.5)
    assert build_loss(train_with("loss=plain", "loss.real_weight=0.5")) == Plain(0.5)


@pytest.mark.parametrize("name", ["trades", "hat", "score", "gkl"])
def test_mixed_labels_are_what_attacks_aim_away_from(name, monkeypatch):
    monkeypatch.setattr("robustgen.losses.building._standard_classifier", lambda folder: None)
    targets_for = {"crop-flip": "predictions", "crop-flip+cutmix": "targets", "crop-flip+cutout-18": "predictions"}
    for augment, aim in targets_for.items():
        assert build_loss(train_with(f"loss={name}", f"augment={augment}")).aim == aim
    assert build_loss(train_with(f"loss={name}", "augment=mixup", "loss.aim=predictions")).aim == "predictions"
    assert build_loss(train_with(f"loss={name}", "loss.aim=targets")).aim == "targets"


def test_hat_needs_a_standard_classifier(tiny_info, tmp_path):
    from robustgen.models import build_model
    from robustgen.models.saved import save_classifier

    with pytest.raises(ValueError, match="robustgen train --plain"):
        build_loss(train_with("loss=hat"))
    save_classifier(tmp_path, build_model("wrn-10-1", tiny_info, rng_for(0)), "wrn-10-1", tiny_info)
    loss = build_loss(train_with("loss=hat", "loss.beta=2.5", f"loss.standard={tmp_path}"))
    assert not loss.standard.training and not any(p.requires_grad for p in loss.standard.parameters())
    assert replace(loss, standard=None) == HAT()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: TRADES(aim="labels"), "known: predictions, targets"),
        (lambda: Adversarial(real_weight=1.5), r"lie in \[0, 1\]"),
        (lambda: MART(beta=-1.0), "beta must be at least 0"),
        (lambda: HAT(factor=1.0), "factor must be above 1"),
        (lambda: GKL(temperature=0.0), "temperature must be above 0"),
        (lambda: AWP(radius=-0.1), "radius must be at least 0"),
        (lambda: NFGSM(step_size=0.0), "step_size above 0"),
        (lambda: WeakToStrong(first_steps=0), "at least 1"),
        (lambda: WeakToStrong(first_eps=2.0), "0 to 1"),
        (lambda: train_with("loss.attack.first_steps=11"), r"first_steps \(11\) must be at most steps \(10\)"),
        (lambda: train_with("loss.attack.optimizer=n-fgsm", "loss.attack.first_steps=2"), "leave out first_steps"),
        (lambda: train_with("loss.attack.optimizer=n-fgsm", "loss.attack.mode=eval"), "leave out start and mode"),
        (
            lambda: train_with("loss=macer", "loss.real_weight=0.4"),
            "unknown setting train.loss.real_weight of the loss macer",
        ),
        (lambda: train_with("loss=mart", "loss.aim=targets"), "unknown setting train.loss.aim of the loss mart"),
        (lambda: train_with("loss=hat", "loss.factor=1"), "greater than 1"),
    ],
)
def test_nonsense_is_one_clear_line(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_in_a_run_hat_asks_the_labeller(tmp_path):
    run = RunDir(tmp_path)
    for loss, asks in (("hat", True), ("trades", False)):
        found = {stage.name: stage for stage in stages(override(RECIPES["digits"], [f"train.loss={loss}"]), run)}
        stage = found["train real-0"]
        assert ("labeller" in stage.needs) == asks
        assert (getattr(stage.stage.config.loss, "standard", None) == str(run.labeller)) == asks
    named = override(RECIPES["digits"], ["train.loss=hat", "train.loss.standard=mine"])
    assert not any("labeller" in stage.needs for stage in stages(named, run) if stage.name.startswith("train real"))


def test_a_trades_step_passes_the_network_as_often_as_it_must():
    """K times for the attack, once for the clean images, once for the attacked ones; AWP twice more."""
    for loss, passes in ((TRADES(), 12), (AWP(), 14), (Adversarial(NFGSM()), 2), (MART(), 12), (SCORE(), 12)):
        model, calls = small_network().train(), []
        model[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        loss(model, small_batch(), THREAT, rng_for(0))
        assert len(calls) == passes
