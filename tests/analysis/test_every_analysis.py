"""What every analysis promises, for each named in ANALYSES; and what each finds on classifiers solved on paper."""

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Halfspace
from robustgen.analysis import ANALYSES, Landscapes, RadiusSweep, StepSweep, find_analysis
from robustgen.analysis.contracts import Subject
from robustgen.analysis.sweeps import gray_radius
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.randomness import rng_for
from robustgen.records.loading import OF_CLASSIFIERS, load_record
from robustgen.records.record import PENDING, ROBUST
from robustgen.threat import ThreatModel

FEW = {
    "radius-sweep": ["steps=5", "radii=0,0.01,0.02,0.04"],
    "step-sweep": ["steps=2,4,8"],
    "landscapes": ["images=5", "points=9", "steps=5"],
}
"""Settings with which each takes a moment."""


def halfspace_images(count=60):
    return 0.5 + 0.1 * torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)


def network():
    """A small convolutional network that does something."""
    model = build_model("wrn-10-1", DatasetInfo("x", ("a", "b", "c", "d"), (1, 8, 8), (0.5,), (0.3,)), rng_for(0))
    nn.init.normal_(model.logits.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    model.train()
    model(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(7)))
    return model.eval()


@pytest.fixture(scope="module")
def subject():
    model = network()
    images = torch.rand(21, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    labels[::7] = (labels[::7] + 1) % 4
    return Subject(model, images, labels, ThreatModel("linf", 0.02))


@pytest.fixture(params=ANALYSES)
def analysis(request):
    return find_analysis(request.param, FEW[request.param])


def columns(findings):
    """Its arrays, one row an image, in the order of the images' identities."""
    order = np.argsort(findings.ids)
    return {
        name: column[order]
        for name, column in vars(findings).items()
        if isinstance(column, np.ndarray) and column.ndim and len(column) == len(findings)
    }


def alike(first, second):
    ours, theirs = columns(first), columns(second)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[k], theirs[k], equal_nan=True) for k in ours)


def test_names_are_the_kinds_that_reports_read():
    assert list(ANALYSES) == list(OF_CLASSIFIERS)


def test_findings_have_a_row_an_image_a_table_and_flags(analysis, subject):
    findings = analysis(subject)
    assert findings.finished and ANALYSES[findings.kind]
    assert np.array_equal(findings.labels, subject.labels[: len(findings)].numpy())
    assert len(columns(findings)) >= 4 and findings.table().rows and isinstance(findings.flags, tuple)
    assert findings.about.analysis == repr(analysis) and findings.about.threat == "linf:0.02"


def test_saved_and_loaded_are_the_same_and_equal_input_gives_equal_bytes(analysis, subject, tmp_path):
    findings = analysis(subject, path=tmp_path / "a.npz")
    analysis(subject, path=tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = load_record(tmp_path / "a.npz")
    assert type(loaded) is type(findings) and loaded.about == findings.about and alike(loaded, findings)


def test_neither_batch_size_nor_order_changes_a_row(analysis, subject):
    count = getattr(analysis, "images", len(subject.images))
    some = Subject(subject.model, subject.images[:count], subject.labels[:count], subject.threat)
    whole = analysis(some)
    for size in (1, 4, 16):
        assert alike(whole, analysis(some, batch_size=size)), size
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    turned = Subject(some.model, some.images[order], some.labels[order], some.threat)
    assert alike(whole, analysis(turned, batch_size=5))
    assert not alike(whole, analysis(some, seed=1))


def test_finished_findings_are_taken_as_they_are(analysis, subject, tmp_path):
    analysis(subject, path=tmp_path / "a.npz")
    before = (tmp_path / "a.npz").stat().st_mtime_ns

    class Untouched(nn.Module):
        def forward(self, images):
            raise AssertionError("the model was asked again")

    again = analysis(
        Subject(Untouched(), subject.images, subject.labels, subject.threat), path=tmp_path / "a.npz", batch_size=3
    )
    assert again.finished and (tmp_path / "a.npz").stat().st_mtime_ns == before


def test_findings_of_something_else_are_refused(analysis, subject, tmp_path):
    path = tmp_path / "a.npz"
    analysis(subject, path=path)
    model, images, labels = subject.model, subject.images, subject.labels
    for other, message in (
        (Subject(model, images, labels, ThreatModel("linf", 0.03)), "threat: stored .*0.02.*, requested .*0.03"),
        (Subject(model, images, labels, subject.threat, "other weights"), "made_for: stored"),
        (Subject(model, images[:4], labels[:4], subject.threat), r"images: stored \d+, requested 4[;)]"),
        (Subject(model, images.flip(0), labels.flip(0), subject.threat), r"images: stored \d+, requested \d+ others"),
    ):
        with pytest.raises(ValueError, match=f"a record of another analysis .*{message}.*remove it"):
            analysis(other, path=path)
    with pytest.raises(ValueError, match="seed: stored 0, requested 1"):
        analysis(subject, path=path, seed=1)


def test_the_model_is_left_as_found(analysis, subject):
    model = network().train()
    model.batchnorm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    analysis(Subject(model, subject.images, subject.labels, subject.threat))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training and not model.batchnorm.training


def test_what_cannot_be_evaluated_is_one_clear_line(analysis, subject):
    model, images, labels, threat = subject.model, subject.images, subject.labels, subject.threat
    for change, message in (
        (Subject(model, images * 2, labels, threat), r"pixels must lie in \[0, 1\]"),
        (Subject(model, images, labels.float(), threat), "integer label"),
        (Subject(model, images, labels + 9, threat), r"labels must lie in 0\.\.3"),
        (Subject(nn.Identity(), images, labels, threat), r"must return logits \(N, K\)"),
    ):
        with pytest.raises(ValueError, match=message):
            analysis(change)


@pytest.mark.parametrize("name", ["radius-sweep", "step-sweep"])
def test_broken_off_and_taken_up_equals_unbroken(name, subject, tmp_path, monkeypatch):
    analysis = find_analysis(name, FEW[name])
    analysis(subject, path=tmp_path / "whole.npz", batch_size=4)
    monkeypatch.setattr("robustgen.storage.files.SaveInterval.due", lambda self: True)
    stopped = 0
    for stop in (1, 2, 5, 7, 100):
        calls = {"left": stop}

        def progress(done, total, unit, note="", calls=calls):
            assert 0 <= done <= total
            calls["left"] -= 1
            if calls["left"] < 0:
                raise KeyboardInterrupt

        try:
            analysis(subject, path=tmp_path / "broken.npz", batch_size=4, progress=progress)
        except KeyboardInterrupt:
            stopped += 1
            assert not load_record(tmp_path / "broken.npz").finished
    assert stopped >= 3
    assert (tmp_path / "broken.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_radius_sweep_of_a_halfspace_is_the_distribution_of_distances(norm):
    model, images = Halfspace(), halfspace_images()
    labels = model(images).argmax(1)
    needed = model.distance_to_boundary(images, labels, norm).numpy()
    labels[::10] = 1 - labels[::10]
    right = (model(images).argmax(1) == labels).numpy()
    sweep = RadiusSweep()(Subject(model, images, labels, ThreatModel(norm, float(np.median(needed)))))
    assert sweep.values[0] == 0 and sweep.values[-1] == gray_radius(images, norm)
    assert sweep.accuracy(0).count == right.sum() and sweep.accuracy(-1).count == 0
    for at, radius in enumerate(sweep.values):
        stands = sweep.stands[:, at] == ROBUST
        assert stands[right & (needed > 1.001 * radius)].all()
        assert not stands[right & (needed < 0.98 * radius)].any()
        assert not stands[~right].any()
        exact = (right & (needed > radius)).sum()
        assert abs(sweep.accuracy(at).count - exact) <= 1, radius
    assert np.array_equal(sweep.margin[right] > 0, sweep.stands[right] != ROBUST)
    assert np.isnan(sweep.margin[~right]).all()
    assert sweep.flags == ()


def test_radii_follow_the_threat_model_up_to_where_nothing_may_stand(subject):
    model, images, labels = subject.model, subject.images, subject.labels
    for norm, eps, last in (("linf", 8 / 255, 0.5), ("linf", 0.6, 0.6), ("l2", 0.5, 4.0)):
        sweep = RadiusSweep(steps=1)(Subject(model, images, labels, ThreatModel(norm, eps)))
        assert sweep.values[-1] == last and eps in sweep.values and (np.diff(sweep.values) > 0).all()
    assert sweep.table().rows[4][:2] == ("0.5", "1")
    with pytest.raises(ValueError, match="eps above 0"):
        RadiusSweep()(Subject(model, images, labels, ThreatModel("linf", 0)))


def test_the_step_sweep_of_a_halfspace_settles_at_the_share_out_of_reach():
    model, images = Halfspace(), halfspace_images()
    labels = model(images).argmax(1)
    needed = model.distance_to_boundary(images, labels, "linf").numpy()
    eps = float(np.median(needed))
    sweep = StepSweep((5, 10, 50))(Subject(model, images, labels, ThreatModel("linf", eps)))
    assert abs(sweep.accuracy(-1).count - (needed > eps).sum()) <= 1
    assert sweep.flags == () and sweep.rise() is None


def test_both_sweeps_agree_where_they_meet(subject):
    radius = RadiusSweep(steps=6, radii=(0.01, subject.threat.eps))(subject)
    steps = StepSweep((3, 6))(subject)
    assert np.array_equal(radius.margin[:, 1], steps.margin[:, 1], equal_nan=True)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_landscape_of_a_halfspace_is_a_plane_with_known_slopes(norm):
    model, images = Halfspace(), halfspace_images(3)
    labels = model(images).argmax(1)
    threat = ThreatModel(norm, 0.02)
    found = Landscapes(images=3, points=11)(Subject(model, images, labels, threat))
    rival = 1 - labels  # classes 2 and 3 are never near
    weights = (model.linear.weight[labels] - model.linear.weight[rival]).detach().numpy()
    clean = model(images).detach()
    margins = (clean.gather(1, labels[:, None]) - clean.gather(1, rival[:, None])).squeeze(1).numpy()
    middle = 5
    assert np.allclose(found.heights[:, middle, middle], margins, atol=1e-5)
    # Down along the attack: linf reaches the dual norm; Adam in l2 follows the gradient too.
    dual = np.abs(weights).sum(1) if norm == "linf" else np.linalg.norm(weights, axis=1)
    along_u = found.heights[:, middle, -1] - found.heights[:, middle, middle]
    assert np.allclose(along_u, -0.02 * dual, rtol=0.01)
    assert np.allclose(found.length, 0.02, rtol=1e-4)
    # A plane: the mixed difference and the second differences vanish.
    for axis in (1, 2):
        assert np.abs(np.diff(found.heights, n=2, axis=axis)).max() < 1e-5
    assert np.abs(np.diff(np.diff(found.heights, axis=1), axis=2)).max() < 1e-5
    # Sideways: a sum of the weights with some signs, of equal size.
    size = 0.02 if norm == "linf" else 0.02 / 12**0.5
    along_v = found.heights[:, -1, middle] - found.heights[:, middle, middle]
    signs = np.array(np.meshgrid(*[[-1, 1]] * 12)).reshape(12, -1)
    for i in range(3):
        assert np.abs(weights[i] @ signs * size - along_v[i]).min() < 1e-5
    assert found.flags == ()


def test_landscapes_are_not_brought_into_the_box():
    model, images = Halfspace(), torch.zeros(1, 3, 2, 2)
    found = Landscapes(images=1, points=5)(Subject(model, images, model(images).argmax(1), ThreatModel("linf", 0.1)))
    assert np.abs(np.diff(found.heights, n=2, axis=1)).max() < 1e-5
    assert found.allowed[0, 2, 2:].all() and not found.allowed[0, 0].any()


class Masked(nn.Module):
    """A half-space whose logits are rounded: no gradient, though a network to look at."""

    def __init__(self):
        super().__init__()
        self.halfspace = Halfspace()

    def forward(self, images):
        logits = self.halfspace(images)
        return (1e4 * logits).softmax(1) * 10  # saturated: exactly 0 and 10 but next to the boundary


def masked_subject(eps=0.02):
    model, images = Masked(), halfspace_images()
    return Subject(model, images, model(images).argmax(1), ThreatModel("linf", eps))


def test_a_masked_model_stands_where_nothing_may_and_is_flagged():
    sweep = RadiusSweep(steps=20)(masked_subject())
    assert sweep.accuracy(-1).value > 0.05
    assert any("% at radius 0.5, where every image can be turned gray" in flag for flag in sweep.flags)


def test_a_model_that_stands_better_further_out_is_flagged():
    """Gradients that point the right way only near the image: an attack with a larger radius steps over the edge."""

    class Lures(nn.Module):
        def __init__(self):
            super().__init__()
            self.halfspace = Halfspace()
            self.centre = halfspace_images()

        def forward(self, images):
            far = torch.stack([(image - self.centre).abs().flatten(1).amax(1).min() for image in images]) > 0.15
            logits = self.halfspace(images)
            own = self.halfspace(self.centre)[
                torch.stack([(image - self.centre).abs().flatten(1).amax(1).argmin() for image in images])
            ]
            return torch.where(far[:, None], own.argmax(1)[:, None].eq(torch.arange(4)) + 0 * logits, logits)

    model = Lures()
    images = halfspace_images()
    with torch.no_grad():
        labels = model(images).argmax(1)
    sweep = RadiusSweep(steps=5, radii=(0.0, 0.1, 0.3))(Subject(model, images, labels, ThreatModel("linf", 0.1)))
    counts = (sweep.stands == ROBUST).sum(0)
    assert counts[0] > counts[1] < counts[2], counts
    assert any("robust accuracy rises by" in flag and "from radius 0.1 to 0.3" in flag for flag in sweep.flags)


def test_an_attack_that_has_not_converged_is_flagged(subject):
    sweep = StepSweep((1, 2))(masked_subject(0.03))
    sweep.stands[:, 0] = ROBUST
    sweep.stands[:30, 1], sweep.stands[30:, 1] = 0, ROBUST
    assert "not converged: robust accuracy still falls by 50.0 points from 1 to 2 steps" in sweep.flags[0]
    sweep.stands[:, 1] = ROBUST
    sweep.stands[:1, 1] = 0  # one image of sixty is within chance
    assert sweep.flags == ()


def test_plateaus_in_a_landscape_are_flagged():
    found = Landscapes()(masked_subject())
    assert any("exactly flat" in flag for flag in found.flags)


def test_an_image_the_attack_missed_is_flagged(subject):
    found = Landscapes(images=1, points=5, steps=3)(subject)
    found.heights[:] = np.linspace(1, 2, 25).reshape(5, 5)
    assert found.flags == ()
    found.heights[0, 3, 2] = -1
    found.allowed[0, 3, 2] = True
    assert found.flags == (
        "image 0: the plane has an adversarial example within the threat model that the attack missed",
    )


def test_an_attack_that_leaves_the_ball_claims_nothing(subject, monkeypatch):
    class Cheat:
        def __init__(self, steps, objective):
            self.steps = steps

        def __call__(self, model, images, targets, threat, rng):
            return 1 - images

    monkeypatch.setattr("robustgen.analysis.sweeps.APGD", Cheat)
    sweep = StepSweep((1, 2))(subject)
    assert np.array_equal(sweep.stands == ROBUST, np.stack([sweep.right] * 2, axis=1))


def test_nan_logits_never_stand(subject):
    class Broken(nn.Module):
        def forward(self, images):
            logits = subject.model(images)
            return torch.where(images.mean((1, 2, 3))[:, None] > 0.5, torch.nan, logits)

    broken = (subject.images.mean((1, 2, 3)) > 0.5).numpy()
    some = Subject(Broken(), subject.images, subject.labels, subject.threat)
    sweep = RadiusSweep(steps=2, radii=(0.0, 0.01))(some)
    assert broken.any() and not (sweep.stands[broken] == ROBUST).any() and not (sweep.stands == PENDING).any()
    found = Landscapes(images=21, points=5, steps=2)(some)
    assert sum("NaN" in flag for flag in found.flags) >= broken.sum()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fab", [], "unknown analysis 'fab'; known: radius-sweep, step-sweep, landscapes"),
        ("landscapes", ["radii=1"], "unknown setting 'radii' of landscapes; known: images, points"),
        ("landscapes", ["points=10"], "points must be odd and at least 3, got 10"),
        ("landscapes", ["images=0"], "images must be a whole number from 1 up"),
        ("landscapes", ["extent=-1"], "extent must be a finite number above 0"),
        ("step-sweep", ["steps="], "at least one number of steps"),
        ("step-sweep", ["steps=10,5"], "steps must ascend, got 10, 5"),
        ("step-sweep", ["steps=0.5"], "whole numbers from 1 up, got 0.5"),
        ("step-sweep", ["steps=many"], "steps: expected a number"),
        ("radius-sweep", ["steps=0"], "whole numbers from 1 up"),
        ("radius-sweep", ["radii=0.2,0.1"], "radii must ascend"),
    ],
)
def test_mistakes_in_settings_are_one_clear_line(name, changes, message):
    with pytest.raises(ValueError, match=message):
        find_analysis(name, changes)


def test_settings_are_numbers_fractions_and_lists():
    assert find_analysis("radius-sweep", ["radii=0,8/255"]).radii == (0, 8 / 255)
    assert find_analysis("step-sweep", ["steps=3,30"]) == StepSweep((3, 30))


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="expected a record of an analysis in"):
        load_record(tmp_path / "x.npz")
