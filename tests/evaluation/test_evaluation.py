import numpy as np
import pytest
import torch
from torch import nn

from conftest import Halfspace
from robustgen.evaluation.cascade import evaluate
from robustgen.evaluation.suites import SUITES, find_suite
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.objectives import margin, targeted_margin
from robustgen.randomness import rng_for
from robustgen.records.verdicts import UNBROKEN, Verdicts
from robustgen.threat import NORMS, ThreatModel


@pytest.fixture
def halfspace():
    """(model, 60 images, labels of which every tenth is wrong, distances)"""
    model = Halfspace()
    images = 0.5 + 0.1 * torch.randn(60, 3, 2, 2, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    labels = model(images).argmax(1)
    labels[::10] = 1 - labels[::10]
    return model, images, labels


def small_network(seed=0, channels=1):
    """A convolutional network with something to attack."""
    info = DatasetInfo("x", ("a", "b", "c", "d"), (channels, 8, 8), (0.5,) * channels, (0.3,) * channels)
    model = build_model("wrn-10-1", info, rng_for(seed))
    nn.init.normal_(model.logits.weight, std=0.3, generator=torch.Generator().manual_seed(seed))
    model.train()
    model(torch.rand(64, channels, 8, 8, generator=torch.Generator().manual_seed(7)))
    return model.eval()


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("norm", NORMS)
def test_robust_images_are_those_out_of_reach(halfspace, suite, norm):
    model, images, labels = halfspace
    right = model(images).argmax(1) == labels
    needed = model.distance_to_boundary(images, model(images).argmax(1), norm)
    eps = float(needed.median())
    verdicts = evaluate(model, images, labels, ThreatModel(norm, eps), suite)
    assert np.array_equal(verdicts.right, right.numpy())
    assert not verdicts.robust[(right & (needed < 0.95 * eps)).numpy()].any()
    assert verdicts.robust[(right & (needed > 1.001 * eps)).numpy()].all()
    assert verdicts.finished
    fell = (verdicts.fell_to > 0) & right.numpy()
    assert (verdicts.distance[fell] <= eps * (1 + 1e-5)).all() and (verdicts.margin[fell] >= 0).all()
    assert np.isnan(verdicts.distance[verdicts.robust]).all()
    assert (verdicts.fell_to[~right.numpy()] == 0).all()


def rows(verdicts):
    """Everything that must not depend on batches or order, by image."""
    order = np.argsort(verdicts.ids)
    return [
        getattr(verdicts, name)[order]
        for name in ("fell_to", "fell_in_run", "faced", "distance", "margin", "clean_logits")
    ]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_neither_batch_size_nor_order_changes_a_verdict(norm):
    model = small_network()
    images = torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    threat = ThreatModel(norm, {"linf": 0.02, "l2": 0.1}[norm])
    whole = evaluate(model, images, labels, threat, "quick")
    assert 10 < whole.robust.sum() < 60
    for size in (1, 7, 64):
        other = evaluate(model, images, labels, threat, "quick", batch_size=size)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(rows(whole), rows(other), strict=True)), size
        assert np.array_equal(whole.passes, other.passes)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(3))
    other = evaluate(model, images[order], labels[order], threat, "quick", batch_size=16)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(rows(whole), rows(other), strict=True))
    seeded = evaluate(model, images, labels, threat, "quick", seed=1)
    assert not np.array_equal(rows(whole)[4], rows(seeded)[4], equal_nan=True)


def test_the_memory_format_of_images_changes_nothing():
    """Images of files are channels-last; kernels depend on it, and padding would make them contiguous."""
    model = small_network(channels=3)
    images = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, threat = model(images).argmax(1), ThreatModel("linf", 0.02)
    whole = evaluate(model, images, labels, threat, "quick")
    images = images.contiguous(memory_format=torch.channels_last)
    for size in (32, 7):
        other = evaluate(model, images, labels, threat, "quick", batch_size=size)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(rows(whole), rows(other), strict=True)), size
    images = images[:1].clone(memory_format=torch.channels_last)
    one = evaluate(nn.Sequential(Viewed(), model), images, labels[:1], threat, "quick")
    assert one.margin[0] == whole.margin[0] or np.isnan(whole.margin[0])


class Viewed(nn.Module):
    """What a view requires of its input: contiguous images."""

    def forward(self, images):
        return images.view(len(images), -1).view(images.shape)


def test_broken_off_and_taken_up_equals_unbroken(tmp_path, monkeypatch):
    model = small_network()
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    threat = ThreatModel("linf", 0.02)
    evaluate(model, images, labels, threat, "quick", path=tmp_path / "whole.npz", batch_size=8)
    monkeypatch.setattr("robustgen.storage.files.SaveInterval.due", lambda self: True)
    for stop in (60, 20, 25, 30, 20, 10_000):
        calls = {"left": stop}

        def progress(done, total, unit, note="", calls=calls):
            calls["left"] -= 1
            if calls["left"] < 0:
                raise KeyboardInterrupt

        try:
            evaluate(
                model, images, labels, threat, "quick", path=tmp_path / "broken.npz", batch_size=8, progress=progress
            )
            assert stop == 10_000
        except KeyboardInterrupt:
            assert stop < 10_000 and not Verdicts.load(tmp_path / "broken.npz").finished
    assert (tmp_path / "broken.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_verdicts_of_something_else_are_refused(halfspace, tmp_path):
    model, images, labels = halfspace
    path = tmp_path / "v.npz"
    evaluate(model, images, labels, ThreatModel("linf", 0.1), "quick", path=path)
    with pytest.raises(ValueError, match=r"holds verdicts of quick at linf:0\.1 on 60 images"):
        evaluate(model, images, labels, ThreatModel("linf", 0.2), "quick", path=path)
    with pytest.raises(ValueError, match="not of this evaluation"):
        evaluate(model, images[:50], labels[:50], ThreatModel("linf", 0.1), "quick", path=path)


def test_the_model_is_left_as_found():
    model = small_network().train()
    model.batchnorm.eval()
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 4
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    evaluate(model, images, labels, ThreatModel("linf", 0.02), "quick")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training and not model.batchnorm.training and model.layer.training


def test_passes_are_counted_exactly():
    """At radius 0 nobody falls: clean once, and each attack's steps and checks for every image."""
    model, count = small_network(), 12
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    verdicts = evaluate(model, images, model(images).argmax(1), ThreatModel("linf", 0.0), "quick")
    # APGD-10 takes a gradient at the start and after each step; PGD-10 one a step; each run is checked once.
    assert verdicts.passes.tolist() == [[count, 0], [count, 11 * count], [count, 11 * count], [3 * count, 30 * count]]


class Flawed(nn.Module):
    """A network with something wrong about it."""

    def __init__(self, flaw):
        super().__init__()
        self.network, self.flaw = small_network(), flaw

    def forward(self, images):
        logits = self.network(images)
        if self.flaw == "nan":
            logits = torch.where(images.mean((1, 2, 3), keepdim=False)[:, None] > 0.5, torch.nan, logits)
        if self.flaw == "random":
            logits = logits + torch.randn_like(logits)
        if self.flaw == "probabilities":
            logits = logits.softmax(1)
        if self.flaw == "saturated":
            logits = (logits * 1e4).softmax(1) * 10
        return logits


@pytest.mark.parametrize(
    ("flaw", "sentence"),
    [
        ("nan", "clean images give NaN or infinite logits; they count as broken, not as robust"),
        ("random", "returns different logits for the same images"),
        ("probabilities", "probabilities, not logits"),
        ("saturated", "without gradient"),
    ],
)
def test_flawed_models_are_flagged(flaw, sentence):
    model = Flawed(flaw)
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = small_network()(images).argmax(1)
    verdicts = evaluate(model, images, labels, ThreatModel("linf", 0.01), "quick")
    assert any(sentence in flag for flag in verdicts.flags), verdicts.flags


def test_nan_logits_are_never_robust():
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = small_network()(images).argmax(1)
    verdicts = evaluate(Flawed("nan"), images, labels, ThreatModel("linf", 0.0), "quick")
    broken = images.mean((1, 2, 3)).numpy() > 0.5
    assert broken.any() and not verdicts.robust[broken].any() and (verdicts.clean_prediction[broken] == -1).all()
    assert verdicts.robust[~broken].all()


class Computing(nn.Module):
    """A network that computes in another data type than that of the images, and returns logits in it."""

    def __init__(self, dtype):
        super().__init__()
        self.model, self.dtype = small_network().to(dtype), dtype

    def forward(self, images):
        return self.model(images.to(self.dtype))


@pytest.mark.parametrize("suite", ["quick", "swift"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_model_computes_in_any_data_type(dtype, suite):
    images = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = small_network()
    labels = model(images).argmax(1)
    expected = evaluate(model, images, labels, ThreatModel("linf", 0.02), suite)
    found = evaluate(Computing(dtype).eval(), images, labels, ThreatModel("linf", 0.02), suite, precision="bfloat16")
    assert 3 < expected.robust.sum() < 21 and (found.robust != expected.robust).sum() <= 1
    assert found.precision == "float32" and found.flags == ()


def test_a_sound_model_has_no_flags_and_a_guessing_one_has():
    model = small_network()
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    assert evaluate(model, images, labels, ThreatModel("linf", 0.01), "quick").flags == ()
    guessing = evaluate(model, images, (labels + 1) % 4, ThreatModel("linf", 0.01), "quick")
    assert any("near chance" in flag for flag in guessing.flags)


def test_an_attack_that_leaves_the_ball_claims_nothing(monkeypatch, halfspace):
    model, images, labels = halfspace

    class Cheat:
        def __call__(self, model, images, targets, threat, rng):
            return 1 - images

    monkeypatch.setitem(SUITES, "cheat", lambda norm, classes: {"cheat": Cheat()})
    verdicts = evaluate(model, images, labels, ThreatModel("linf", 0.01), "cheat")
    assert (verdicts.fell_to[verdicts.right] == UNBROKEN).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[0], y), r"shape \(N, C, H, W\), got torch.float32 of shape \(3, 2, 2\)"),
        (lambda x, y: ((x * 255).byte(), y), "float32 images"),
        (lambda x, y: (x.half(), y), "float32 images of shape .*, got torch.float16"),
        (lambda x, y: (x[:0], y[:0]), "no images"),
        (lambda x, y: (x * 2, y), r"pixels must lie in \[0, 1\]"),
        (lambda x, y: (torch.where(x > 0.6, torch.nan, x), y), "holds NaN"),
        (lambda x, y: (x, y[:5]), "one integer label for each of 60"),
        (lambda x, y: (x, y.float()), "integer label"),
        (lambda x, y: (x, y + 9), r"labels must lie in 0\.\.3"),
    ],
)
def test_what_cannot_be_evaluated_is_one_clear_line(halfspace, change, message):
    model, images, labels = halfspace
    with pytest.raises(ValueError, match=message):
        evaluate(model, *change(images, labels), ThreatModel("linf", 0.1), "quick")


def test_a_model_of_another_shape_is_one_clear_line(halfspace):
    _, images, labels = halfspace
    with pytest.raises(ValueError, match=r"must return logits \(N, K\), got shape \(60, 3, 2, 2\)"):
        evaluate(nn.Identity(), images, labels, ThreatModel("linf", 0.1), "quick")
    with pytest.raises(ValueError, match="unknown suite 'autoattak'; known: autoattack, "):
        find_suite("autoattak")


def test_suites_are_the_published_protocols():
    cascade = find_suite("aa+mt").attacks
    assert list(cascade) == ["apgd-ce", "apgd-dlr", "multitargeted"]
    assert [cascade[name].attack.steps for name in cascade] == [100, 100, 200]
    assert [cascade[name].runs(10) for name in cascade] == [5, 5, 10]
    assert find_suite("aa+mt-each").attacks["multitargeted"].runs(10) == 90
    assert find_suite("pgd-40").attacks["pgd-40"].steps == 40
    standard = find_suite("autoattack").attacks
    assert list(standard) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert standard["apgd-ce"].steps == standard["apgd-t"].attack.steps == standard["fab-t"].attack.steps == 100
    assert standard["apgd-t"].runs(10) == standard["fab-t"].runs(10) == 9 and standard["square"].queries == 5000
    sparse = find_suite("autoattack", "l1").attacks
    assert sparse["apgd-ce"].runs(10) == 5 and sparse["apgd-t"].runs(10) == 5 and sparse["fab-t"].runs(10) == 9
    plus = find_suite("autoattack-plus").attacks
    assert list(plus) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert [plus[name].runs(10) for name in ("apgd-ce", "apgd-dlr", "fab")] == [5, 5, 5]
    assert [attack.eot for attack in find_suite("autoattack-rand").attacks.values()] == [20, 20]


def test_few_classes_get_fewer_targets_and_other_objectives_and_it_is_said():
    assert find_suite("autoattack", "linf", 10).notes == ()
    four = find_suite("autoattack", "linf", 4)
    assert four.attacks["apgd-t"].runs(4) == 3 and four.notes == ()
    three = find_suite("autoattack", "linf", 3)
    assert three.attacks["apgd-t"].attack.objective is targeted_margin
    assert "3 classes" in three.notes[0] and "apgd-t" in three.notes[0]
    two = find_suite("autoattack-plus", "linf", 2)
    assert two.attacks["apgd-dlr"].attack.objective is margin and two.attacks["fab-t"].runs(2) == 1
