"""Attacks that search in bfloat16: float32 decides, and nothing depends on the order or the batch."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustgen.attacks import APGD, Square, Swift
from robustgen.attacks.common import AttackResult
from robustgen.evaluation import precision as module
from robustgen.evaluation.cascade import evaluate
from robustgen.evaluation.precision import in_bfloat16
from robustgen.evaluation.suites import SUITES, find_suite
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.objectives import margin
from robustgen.randomness import rng_for
from robustgen.records.verdicts import Verdicts
from robustgen.threat import ThreatModel

EPS = ThreatModel("linf", 0.02)


@pytest.fixture(scope="module")
def network():
    info = DatasetInfo("x", ("a", "b", "c", "d"), (1, 8, 8), (0.5,), (0.3,))
    model = build_model("wrn-10-1", info, rng_for(0))
    nn.init.normal_(model.logits.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    model.train()
    model(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(7)))
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def labels(network, images):
    return network(images).argmax(1)


class Shifted(nn.Module):
    """A model whose logits of class 0 are raised: what rounding does, only much more of it."""

    def __init__(self, model, by):
        super().__init__()
        self.model, self.by = model, by

    def forward(self, images):
        logits = self.model(images)
        return torch.cat([logits[:, :1] + self.by, logits[:, 1:]], dim=1)


def columns(verdicts):
    order = np.argsort(verdicts.ids)
    names = ("fell_to", "fell_in_run", "fell_at_step", "faced", "distance", "margin", "band")
    return [getattr(verdicts, name)[order] for name in names]


def equal(one, other):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(columns(one), columns(other), strict=True))


def test_the_middle_is_cast_once_and_the_ends_are_not(network, images):
    low = in_bfloat16(network, images[:16])
    kinds = {name: parameter.dtype for name, parameter in low.named_parameters()}
    assert {kinds["init_conv.weight"], kinds["logits.weight"]} == {torch.float32}
    others = {kind for name, kind in kinds.items() if not name.startswith(("init_conv", "logits"))}
    assert others == {torch.bfloat16}
    exact, got = network(images), low(images)
    assert got.dtype == torch.float32 and 0 < (got - exact).abs().max() < 0.02 * exact.abs().max()
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(low(points).sum(), points)
    assert gradient.dtype == torch.float32 and gradient.abs().sum() > 0


class WithControlFlow(nn.Module):
    """Cannot be traced; returns its only layer's result, whose images are rounded when all of it is cast."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, images):
        flat = images.flatten(1)
        return self.layer(flat if float(flat.detach().sum()) > 0 else -flat)


class Stubborn(nn.Module):
    """Fails with weights in bfloat16."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 4))

    def forward(self, images):
        return images.flatten(1).float() @ self.weight


class Doubled(torch.autograd.Function):
    """Twice its input; the gradient exists in float32 only."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        if gradient.dtype != torch.float32:
            raise RuntimeError("not implemented for 'BFloat16'")
        return 2 * gradient


class OneWay(nn.Module):
    """Works with weights in bfloat16, but has no gradient there."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, images):
        return Doubled.apply(self.layer(images.flatten(1)))


def test_models_are_cast_as_far_as_it_goes(images):
    torch.manual_seed(0)
    whole = in_bfloat16(WithControlFlow(), images)
    assert whole is not None and whole(images).dtype == torch.float32
    assert in_bfloat16(Stubborn(), images) is None
    assert in_bfloat16(OneWay(), images) is None
    assert in_bfloat16(WithControlFlow().double(), images.double()) is None
    model = Stubborn()
    labels = model(images).argmax(1)
    verdicts = evaluate(model, images, labels, EPS, "quick", precision="bfloat16")
    assert verdicts.precision == "float32" and not verdicts.precision_note
    assert any("a copy of this model in bfloat16 fails" in note for note in verdicts.notes)
    assert equal(verdicts, evaluate(model, images, labels, EPS, "quick"))


def test_flags_are_those_of_float32(network, images, labels):
    exact = evaluate(network, images, labels, EPS, "quick")
    low = evaluate(network, images, labels, EPS, "quick", precision="bfloat16")
    assert 5 < exact.robust.sum() < 35
    assert (exact.robust != low.robust).sum() <= 1
    assert low.precision == "bfloat16" and low.band.min() > 0 and low.repeated[1:, 1].min() > 0
    again, runs = low.repeated.sum(0)
    assert f"{again:,} of {runs:,} runs" in low.precision_note
    assert not exact.band.any() and not exact.repeated.any() and not exact.precision_note


@pytest.mark.parametrize("by", [-2.0, 2.0])
def test_what_rounding_decided_is_decided_by_float32(network, images, labels, by, monkeypatch):
    """A copy that is wrong by more than any margin: every run is made again, and gives what float32 gives."""
    monkeypatch.setattr(module, "in_bfloat16", lambda model, images: Shifted(model, by).eval())
    largest = margin(network(images), labels).abs().max()
    assert largest < 2 * abs(by)
    exact = evaluate(network, images, labels, EPS, "quick", prepare=False)
    low = evaluate(network, images, labels, EPS, "quick", prepare=False, precision="bfloat16")
    assert low.band.min() == pytest.approx(2 * abs(by), rel=1e-4)
    fell_at_once = (low.repeated[:, 1] - low.repeated[:, 0]).sum()
    assert low.repeated[:, 0].sum() > 0 and fell_at_once <= (low.fell_to > 0).sum()
    assert np.array_equal(exact.robust, low.robust)
    assert not low.rejected.any()  # refused successes were searched again


class Claims:
    """An attack that claims success at points that do not move, with a margin that it reports."""

    steps = 1

    def __init__(self, reached):
        self.reached = reached

    def __call__(self, model, images, targets, threat, rng=None):
        return self.search(model, images, targets, threat, rng).points

    def search(self, model, images, targets, threat, rng=None):
        step = torch.full((len(images),), -1)
        return AttackResult(images, step, None if self.reached is None else torch.full((len(images),), self.reached))


@pytest.mark.parametrize(
    ("reached", "again"), [(-1e9, False), (-1e-9, True), (float("nan"), True), (1.0, True), (None, True)]
)
def test_the_largest_margin_of_a_run_tells_whether_it_is_made_again(
    network, images, labels, reached, again, monkeypatch
):
    monkeypatch.setitem(SUITES, "claims", lambda norm, classes: {"claims": Claims(reached)})
    far = margin(network(images), labels) < -0.2  # the points themselves are far outside the band
    verdicts = evaluate(network, images[far], labels[far], EPS, "claims", precision="bfloat16")
    assert verdicts.band.max() < 0.2
    assert verdicts.repeated[1].tolist() == [int(far.sum()) if again else 0, int(far.sum())]


def test_neither_batch_size_nor_order_changes_a_verdict(network, images, labels):
    whole = evaluate(network, images, labels, EPS, "quick", precision="bfloat16")
    other = evaluate(network, images, labels, EPS, "quick", precision="bfloat16", batch_size=7)
    assert equal(whole, other) and np.array_equal(whole.repeated, other.repeated)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    assert equal(whole, evaluate(network, images[order], labels[order], EPS, "quick", precision="bfloat16"))


class Stopped(Exception):
    pass


def test_resumes_in_the_precision_it_was_begun_in(network, images, labels, tmp_path, monkeypatch):
    monkeypatch.setattr("robustgen.storage.files.SaveInterval.due", lambda self: True)
    path = tmp_path / "v.npz"

    def stop(done, total, unit, note=""):
        if "apgd-dlr" in note:
            raise Stopped

    def judged(**settings):
        return evaluate(network, images, labels, EPS, "quick", path=path, **settings)

    whole = evaluate(network, images, labels, EPS, "quick", precision="bfloat16")
    with pytest.raises(Stopped):
        judged(precision="bfloat16", progress=stop)
    with pytest.raises(ValueError, match="begun with attacks in bfloat16, not in float32; evaluate with precision"):
        judged(precision="float32")
    resumed = judged(precision="auto")
    loaded = Verdicts.load(path)
    assert loaded.precision == "bfloat16" and equal(resumed, whole) and equal(loaded, whole)
    assert np.array_equal(loaded.repeated, whole.repeated) and loaded.precision_note == whole.precision_note
    path.unlink()
    judged()
    with pytest.raises(ValueError, match="begun with attacks in float32, not in bfloat16"):
        judged(precision="bfloat16")
    assert judged(precision="auto").precision == "float32"


def test_auto_takes_the_faster_one_and_says_why(network, images, labels, monkeypatch):
    for chosen, why in (("bfloat16", "3 times as fast"), ("float32", "1.1 times as fast")):
        monkeypatch.setattr(module, "faster", lambda device, passes, work, c=chosen, w=why: (c, w, {}))
        verdicts = evaluate(network, images, labels, EPS, "quick", precision="auto")
        assert verdicts.precision == chosen
        assert (f"attacks ran in float32: {why}" in verdicts.notes) == (chosen == "float32")


def test_auto_times_a_model_without_gradient(network, images, labels, monkeypatch):
    class Cut(nn.Module):
        def forward(self, x):
            return network(x).detach()

    def timed(device, passes, work):
        return "float32", str([work(which) for which in ("float32", "bfloat16")]), {}

    monkeypatch.setattr(module, "faster", timed)
    verdicts = evaluate(Cut(), images, labels, EPS, "quick", precision="auto")
    assert "attacks ran in float32: [None, None]" in verdicts.notes
    assert any(flag.startswith("no-gradient") for flag in verdicts.flags)


def test_parts_of_processes_are_merged(network, images, labels):
    parts = [
        evaluate(network, images[rank::2], labels[rank::2], EPS, "quick", precision="bfloat16") for rank in range(2)
    ]
    whole = Verdicts.merge(parts)
    assert whole.precision == "bfloat16"
    assert np.array_equal(whole.repeated, parts[0].repeated + parts[1].repeated)
    assert np.array_equal(whole.band[1::2], parts[1].band)
    with pytest.raises(ValueError, match=r"in bfloat16, part 1 quick at linf:.* in float32"):
        Verdicts.merge([parts[0], replace(parts[1], precision="float32")])


def shortened(attack):
    if isinstance(attack, Swift):
        return replace(attack, first=5, rounds=((-math.inf, 2),), queries=20)
    return replace(attack, queries=20) if isinstance(attack, Square) else replace(attack, steps=5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("suite", ["autoattack", "aa+mt", "swift"])
def test_attacks_report_the_largest_margin_that_they_saw(network, images, labels, norm, suite):
    """Of all iterates within the threat model: at least that at the result, and positive where a success is claimed."""
    threat = ThreatModel(norm, {"linf": 0.02, "l2": 0.15, "l1": 1.0}[norm])
    for attack in find_suite(suite, norm, 4).attacks.values():
        inner = shortened(getattr(attack, "attack", attack))
        pairs = torch.stack([labels, (labels + 1) % 4], dim=1)
        targets = pairs if "targeted" in repr(getattr(inner, "objective", "")) else labels
        found = inner.search(network, images, targets, threat, rng_for(0).each(range(40)))
        assert found.margin is not None and found.margin.shape == (40,)
        claimed = found.step >= 0
        assert (found.margin[claimed] >= 0).all()
        assert (found.margin[~claimed] < 0).all()
        here = margin(network(found.points), labels)
        if isinstance(inner, APGD):
            assert (found.margin >= here - 1e-5).all()


class Cut(nn.Module):
    """A model whose output has no gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).detach()


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_a_model_without_gradient_is_flagged_in_any_precision(network, images, labels, precision, monkeypatch):
    monkeypatch.setattr("robustgen.runtime.precision.has_bfloat16_units", lambda device: True)
    verdicts = evaluate(Cut(network), images[:8], labels[:8], EPS, "quick", precision=precision)
    assert any(flag.startswith("no-gradient") for flag in verdicts.flags)


class NotFinite(nn.Module):
    """NaN wherever an attack has moved an image."""

    def __init__(self, model, images):
        super().__init__()
        self.model, self.images = model, images

    def forward(self, images):
        far = (images.flatten(1)[:, None] - self.images.flatten(1)).abs().amax(2).amin(1) > 1e-4
        return self.model(images).masked_fill(far[:, None], torch.nan)


def test_logits_that_are_not_finite_break_an_image_in_any_precision(network, images, labels, monkeypatch):
    """What float32 says of a point is final, although the copy in bfloat16 hides it."""
    monkeypatch.setattr(module, "in_bfloat16", lambda model, images: network)
    model = NotFinite(network, images)
    low = evaluate(model, images, labels, EPS, "quick", prepare=False, precision="bfloat16")
    assert (low.fell_to == 1).all() and low.repeated.tolist() == [[0, 0], [0, 40], [0, 0], [0, 0]]
