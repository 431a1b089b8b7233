import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from robustgen.config.loading import override
from robustgen.evaluation.certification import Smoothed, _votes_needed, certify, lower_bound, predict
from robustgen.evaluation.denoising import Denoised
from robustgen.generators import Diffusion, UNet
from robustgen.images import DatasetInfo
from robustgen.losses.building import build_loss
from robustgen.models import build_model
from robustgen.randomness import rng_for
from robustgen.recipes import RECIPES
from robustgen.records.certificates import ABSTAINED, Certificates
from robustgen.report.certificates import certificates_table, certified_figure, certified_gains, radius_gain
from robustgen.report.page import write_report
from robustgen.report.tables import read_results
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir

PHI = NormalDist()


class TwoSides(nn.Module):
    """Linear, two classes: under noise P(class 1) = Phi(margin / (sigma |w|)), so the true radius is |margin| / |w|."""

    def __init__(self, pixels=12):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1.5, pixels))
        self.calls = []

    def distance(self, images):
        return (((images - 0.5).flatten(1) @ self.weight) / self.weight.norm()).detach()

    def forward(self, images):
        self.calls.append(len(images))
        margin = (images - 0.5).flatten(1) @ self.weight
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


class Dice(nn.Module):
    """Answers class 1 with probability about `share`, whatever the image: by the noise in its first pixel."""

    def __init__(self, share, sigma, nan=False):
        super().__init__()
        self.level, self.nan = sigma * PHI.inv_cdf(share), nan

    def forward(self, images):
        lucky = images[:, 0, 0, 0] - 0.5 < self.level
        other = torch.nan if self.nan else 0.0
        return torch.stack([torch.where(lucky, 0.0, other), torch.where(lucky, 1.0, -1.0)], dim=1)


def grey(count, shape=(3, 2, 2)):
    """`count` images whose first pixel is 0.5 and which differ elsewhere."""
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    images[:, 0, 0, 0] = 0.5
    return images


def network(seed=0):
    info = DatasetInfo("x", ("a", "b", "c", "d"), (1, 8, 8), (0.5,), (0.3,))
    model = build_model("wrn-10-1", info, rng_for(seed))
    nn.init.normal_(model.logits.weight, std=1.0, generator=torch.Generator().manual_seed(seed))
    model.train()
    model(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(7)))
    return model.eval()


def some_images(count, shape=(1, 8, 8), seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


ROWS = ("predicted", "votes", "spent", "lower", "radius")


def rows(found):
    """Everything that must not depend on batches or order, by image."""
    order = np.argsort(found.ids)
    return [getattr(found, name)[order] for name in ROWS]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(rows(one), rows(other), strict=True))


def test_certified_radii_lie_below_the_true_ones_and_near_them():
    model, images, sigma, alpha = TwoSides(), some_images(150, (3, 2, 2)), 0.3, 0.01
    distance = model.distance(images).numpy()
    found = certify(model, images, torch.from_numpy((distance > 0).astype(np.int64)), sigma, samples=2000, alpha=alpha)
    assert found.finished and (found.predicted != ABSTAINED).mean() > 0.8
    true = np.abs(distance)
    too_far = (found.radius > true) | ((found.predicted != ABSTAINED) & (found.predicted != found.labels))
    assert too_far.sum() <= 6  # expected 1.5, and more than 6 has probability 0.001
    # Where the distance is within the reach of so many samples the bound is near: 2.3 standard errors, and luck.
    share = np.array([PHI.cdf(d / sigma) for d in true])
    near = np.array([sigma * PHI.inv_cdf(max(0.5, p - 6 * math.sqrt(p * (1 - p) / 2000))) for p in share])
    reachable = (true < 2 * sigma) & (near > 0)
    assert reachable.sum() > 50 and (found.radius >= near)[reachable].all()


def test_more_samples_reach_further_up_to_alpha_to_the_one_over_n():
    model = TwoSides()
    image = torch.where(model.weight > 0, 1.0, 0.0).view(1, 3, 2, 2)  # so deep inside that noise does nothing
    for samples in (100, 1000):
        found = certify(model, image, torch.tensor([1]), 0.1, samples=samples)
        assert found.radius[0] == pytest.approx(0.1 * PHI.inv_cdf(0.001 ** (1 / samples)), rel=1e-9)
        assert found.votes[0] == samples and found.spent[0] == samples + 100


def test_the_bound_is_clopper_and_pearsons():
    assert lower_bound(100_000, 100_000, 0.001) == pytest.approx(0.999931, abs=5e-7)
    assert PHI.inv_cdf(lower_bound(100_000, 100_000, 0.001)) == pytest.approx(3.81, abs=0.005)
    assert lower_bound(0, 50, 0.001) == 0
    for votes, samples, alpha in ((30, 50, 0.001), (7, 9, 0.05), (990, 1000, 0.01)):
        two_sided = binomtest(votes, samples).proportion_ci(1 - 2 * alpha, method="exact").low
        assert lower_bound(votes, samples, alpha) == pytest.approx(two_sided, rel=1e-9)


@pytest.mark.parametrize(("samples", "alpha"), [(10, 0.001), (100, 0.05), (10_000, 0.001)])
def test_votes_needed_are_where_the_bound_crosses_one_half(samples, alpha):
    needed = _votes_needed(samples, alpha)
    assert lower_bound(needed, samples, alpha) >= 0.5 > lower_bound(needed - 1, samples, alpha)


def test_certificates_are_wrong_no_more_often_than_alpha():
    """A classifier whose P(class 1) is known: the bound exceeds it in at most a share alpha of the images."""
    share, sigma, alpha = 0.8, 0.2, 0.05
    found = certify(Dice(share, sigma), grey(400), torch.ones(400, dtype=torch.int64), sigma, samples=200, alpha=alpha)
    wrong = int((found.lower > share).sum())
    assert wrong <= 35  # expected at most 20; more than 35 has probability 0.0006
    assert found.lower.mean() > 0.7


def test_undecided_images_abstain():
    found = certify(Dice(0.5, 0.2), grey(5), torch.ones(5, dtype=torch.int64), 0.2, samples=2000)
    assert (found.predicted == ABSTAINED).all() and (found.radius == 0).all() and found.abstained.value == 1
    assert found.average_radius == 0 and found.accuracy().count == 0
    assert (predict(Dice(0.5, 0.2), grey(5), 0.2) == ABSTAINED).all()


def test_nan_logits_are_nobodys_votes():
    """With probability 0.3 the logits are NaN: the sure answer of the other copies is not what is certified."""
    labels = torch.ones(20, dtype=torch.int64)
    broken = certify(Dice(0.7, 0.2, nan=True), grey(20), labels, 0.2, samples=1000)
    whole = certify(Dice(0.7, 0.2), grey(20), labels, 0.2, samples=1000)
    assert same(broken, whole) and (whole.predicted == 1).all()
    never = certify(Dice(1e-9, 0.2, nan=True), grey(3), labels[:3], 0.2, samples=1000)
    assert (never.predicted == ABSTAINED).all() and (never.votes == 0).all() and (never.spent == 100).all()
    assert (predict(Dice(1e-9, 0.2, nan=True), grey(3), 0.2) == ABSTAINED).all()


def test_giving_up_early_changes_no_answer(monkeypatch):
    model, images = network(), some_images(24)
    labels = torch.zeros(24, dtype=torch.int64)
    early = certify(model, images, labels, 1.0, samples=400)
    monkeypatch.setattr("robustgen.evaluation.certification._votes_needed", lambda samples, alpha: 0)
    whole = certify(model, images, labels, 1.0, samples=400)
    gave_up = early.spent < 500
    assert 0 < gave_up.sum() < 24 and (whole.spent == 500).all()
    assert (early.predicted == whole.predicted).all() and (early.radius == whole.radius).all()
    assert (early.lower <= whole.lower).all() and (whole.lower[gave_up] < 0.5).all()


def test_giving_up_early_is_as_soon_as_nothing_can_be_certified():
    found = certify(Dice(0.3, 0.2), grey(3), torch.ones(3, dtype=torch.int64), 0.2, selection=1, samples=1000)
    against = found.spent - 1 - found.votes
    gave_up = found.predicted == ABSTAINED
    assert gave_up.any() and (against[gave_up] == 1000 - _votes_needed(1000, 0.001) + 1).all()


def test_neither_batch_size_nor_order_changes_a_certificate():
    model, images = network(), some_images(12)
    labels = model(images).argmax(1)
    whole = certify(model, images, labels, 0.6, selection=30, samples=170, batch_size=512)
    assert 2 < (whole.predicted == ABSTAINED).sum() < 10
    for size in (17, 64, 100):
        assert same(whole, certify(model, images, labels, 0.6, selection=30, samples=170, batch_size=size)), size
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert same(whole, certify(model, images[order], labels[order], 0.6, selection=30, samples=170, batch_size=50))
    assert same(whole, certify(model, images.clone(), labels, 0.6, selection=30, samples=170)) and not same(
        whole, certify(model, images, labels, 0.6, selection=30, samples=170, seed=1)
    )
    answers = predict(model, images, 0.3, samples=60)
    assert np.array_equal(answers[order], predict(model, images[order], 0.3, samples=60, batch_size=7))


def test_selection_and_estimation_do_not_share_noise(monkeypatch):
    """Every copy that goes through the model has noise of its own, of the asked deviation, added and not clipped."""
    seen = []

    class Listening(TwoSides):
        def forward(self, images):
            seen.append(images.clone())
            return super().forward(images)

    image = torch.ones(1, 3, 2, 2)
    certify(Listening(), image, torch.tensor([1]), 0.25, selection=64, samples=4096, batch_size=256)
    copies = torch.cat(seen[1:])
    noise = (copies - image).flatten(1)
    assert len(noise) == 4160 and len(torch.unique(noise, dim=0)) == 4160
    assert noise.std().item() == pytest.approx(0.25, rel=0.02) and abs(noise.mean().item()) < 0.005
    assert copies.max() > 1.2


@pytest.mark.parametrize("stop", [1, 5, 9, 14])
def test_broken_off_and_taken_up_equals_unbroken(tmp_path, monkeypatch, stop):
    model, images = network(), some_images(6)
    labels = model(images).argmax(1)

    def run(name, progress=lambda *told: None):
        return certify(model, images, labels, 0.3, samples=200, batch_size=100, path=tmp_path / name, progress=progress)

    run("whole.npz")
    monkeypatch.setattr("robustgen.storage.files.SaveInterval.due", lambda self: True)
    calls = {"left": stop}

    def interrupt(done, total, unit, note=""):
        assert 0 <= done <= total
        calls["left"] -= 1
        if calls["left"] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("broken.npz", interrupt)
    if stop > 3:
        assert 0 < Certificates.load(tmp_path / "broken.npz").done.sum() < 6
    run("broken.npz")
    assert (tmp_path / "broken.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_finished_file_is_taken_as_it_is_and_another_is_refused(tmp_path):
    model, images = TwoSides(), some_images(4, (3, 2, 2))
    labels = torch.tensor([0, 1, 0, 1])
    path = tmp_path / "c.npz"
    first = certify(model, images, labels, 0.25, samples=100, path=path)
    model.calls.clear()
    assert same(certify(model, images, labels, 0.25, samples=100, path=path), first) and not model.calls
    for changed, message in (
        ({"sigma": 0.5}, r"sigma: stored 0\.25, requested 0\.5"),
        ({"samples": 200}, "samples: stored 100, requested 200"),
        ({"selection": 10}, "selection: stored 100, requested 10"),
        ({"alpha": 0.01}, r"alpha: stored 0\.001, requested 0\.01"),
        ({"seed": 1}, "seed: stored 0, requested 1"),
        ({"images": images.flip(0)}, "its images differ"),
        ({"labels": 1 - labels}, "its images differ"),
        ({"model": TwoSides(12).double().float()}, None),
        ({"model": nn.Sequential(TwoSides())}, "model: stored"),
    ):
        asked = {"model": model, "images": images, "labels": labels, "sigma": 0.25, "samples": 100, "path": path}
        if message is None:
            certify(**asked | changed)
            continue
        with pytest.raises(ValueError, match=message) as caught:
            certify(**asked | changed)
        assert "\n" not in str(caught.value) and "holds other certificates" in str(caught.value)
    path.write_bytes(b"no npz")
    with pytest.raises(ValueError, match="damaged"):
        certify(model, images, labels, 0.25, samples=100, path=path)


def test_the_model_is_left_as_found():
    model = network().train()
    model.batchnorm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    certify(model, some_images(2), torch.tensor([0, 1]), 0.25, samples=50)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training and not model.batchnorm.training and model.layer.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma must be a finite number above 0, got 0"),
        ({"sigma": math.nan}, "sigma must be"),
        ({"alpha": 0.0}, "alpha must lie between 0 and 0.5"),
        ({"samples": 9}, "9 samples cannot certify any image at alpha 0.001; use at least 10"),
        ({"selection": 0}, "selection must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"images": some_images(2, (3, 2, 2)) * 255}, "pixels must lie in"),
        ({"labels": torch.tensor([0, 2])}, r"labels must lie in 0\.\.1"),
        ({"labels": torch.tensor([0])}, "one integer label"),
        ({"model": nn.Identity()}, r"must return logits \(N, K\)"),
        ({"model": nn.Flatten(0)}, r"must return logits \(N, K\)"),
    ],
)
def test_what_cannot_be_certified_is_one_clear_line(change, message):
    asked = {"model": TwoSides(), "images": some_images(2, (3, 2, 2)), "labels": torch.tensor([0, 1]), "sigma": 0.25}
    with pytest.raises(ValueError, match=message) as caught:
        certify(**asked | change)
    assert "\n" not in str(caught.value)


def test_ten_samples_suffice_when_all_agree():
    found = certify(TwoSides(), torch.ones(1, 3, 2, 2), torch.tensor([1]), 0.01, samples=10)
    assert found.predicted[0] == 1 and 0 < found.radius[0] < 0.0001


def test_predictions_are_the_smoothed_classifiers():
    model, images = TwoSides(), some_images(60, (3, 2, 2))
    answers = predict(model, images, 0.2, samples=500)
    sure = model.distance(images).abs() > 0.06
    assert (answers[sure] == (model.distance(images)[sure] > 0).long().numpy()).all() and sure.sum() > 30
    wrong = answers != (model.distance(images) > 0).numpy()
    assert (answers[wrong] == ABSTAINED).all()
    smoothed = Smoothed(model, 0.2)
    assert np.array_equal(smoothed.predict(images, samples=500), answers)
    labels = (model.distance(images) > 0).long()
    assert np.array_equal(
        smoothed.certify(images, labels, samples=200).radius, certify(model, images, labels, 0.2, samples=200).radius
    )


@pytest.fixture
def five():
    """Five images: right far, right near, wrong far, abstained, right at the edge of nothing."""
    found = Certificates.blank(
        np.arange(5), np.array([0, 1, 1, 0, 2]), 16,
        sigma=0.5, selection=100, samples=1000, alpha=0.001, seed=0, model="m",
    )  # fmt: skip
    found.predicted[:] = [0, 1, 0, ABSTAINED, 2]
    found.radius[:] = [1.2, 0.5, 1.0, 0.0, 0.0]
    found.spent[:] = 1100
    return found


def test_summaries_by_hand(five, tmp_path):
    assert five.average_radius == pytest.approx((1.2 + 0.5) / 5)
    assert [five.accuracy(r).count for r in (0, 0.25, 0.5, 0.50001, 1.2, 1.3)] == [3, 2, 2, 1, 1, 0]
    assert five.abstained.count == 1 and five.finished
    assert five.linf_radius[0] == pytest.approx(0.3) and five.linf_accuracy(0.125).count == 2
    assert five.radii == (0, 0.25, 0.5, 0.75, 1.0) and "ACR 0.340" in five.summary
    five.save(tmp_path / "c.npz")
    again = Certificates.load(tmp_path / "c.npz")
    assert again.about() == five.about() and same(again, five)
    with pytest.raises(ValueError, match="expected certificates in"):
        np.savez(tmp_path / "d.npz", x=1)
        Certificates.load(tmp_path / "d.npz")
    five.spent[1:] = 0
    assert not five.finished and five.abstained.count == 0


def test_tables_and_comparisons(five):
    better = Certificates(**{**vars(five), "radius": five.radius + 0.25})
    named = {"real only": five, "real + edm": better}
    table = certificates_table(named)
    assert table.columns[:4] == ("training images", "r 0", "r 0.25", "r 0.5") and table.columns[-2] == "ACR"
    assert table.rows[0][1:4] == ("60.0", "40.0", "40.0") and table.rows[0][-2:] == ("0.340", "20.0")
    gain, low, high = radius_gain(better, five)
    assert gain == pytest.approx(0.25 * 3 / 5) and low < gain < high
    (sentence,) = certified_gains(named, "real only")
    assert sentence.startswith("real + edm, smoothed: average certified radius 0.490, +0.150 (")
    assert "certified accuracy at l2 radius 0.5: 40.0 %, +0.0 points" in sentence
    assert certified_figure(named).startswith("<svg")
    with pytest.raises(ValueError, match="different images"):
        radius_gain(Certificates(**{**vars(five), "ids": five.ids + 1}), five)


def diffusion(classes=3, **options):
    with rng_for(0).seeding_torch():
        unet = UNet((1, 8, 8), classes, channels=8, multipliers=(1, 1), blocks=1, attention=(), dropout=0.0)
    return Diffusion(unet, (1, 8, 8), classes, **options).eval()


def test_denoised_smoothing_calls_the_denoiser_once_at_twice_the_noise():
    generator, asked = diffusion(label_dropout=0.1), []
    inner = generator.denoise
    generator.denoise = lambda x, sigma, labels, *more: (
        asked.append((x, sigma, labels)) or inner(x, sigma, labels, *more)
    )
    classifier = network()
    images = some_images(5) + 0.25 * rng_for(0).normal((5, 1, 8, 8))
    logits = Denoised(classifier, generator, 0.25)(images)
    ((x, sigma, labels),) = asked
    assert torch.equal(x, images * 2 - 1) and (sigma == 0.5).all() and (labels == -1).all()
    torch.testing.assert_close(logits, classifier((inner(x, sigma, labels) + 1).div(2).clamp(0, 1)))
    found = certify(Denoised(classifier, generator, 0.25), some_images(2), torch.tensor([0, 1]), 0.25, samples=20)
    assert found.finished


def test_what_cannot_denoise_unlabelled_images_is_refused():
    with pytest.raises(ValueError, match=r"is only conditional on its 3 labels.*label_dropout"):
        Denoised(network(), diffusion(), 0.25)
    assert Denoised(network(), diffusion(1), 0.25)(some_images(2)).shape == (2, 4)


def test_label_dropout_hides_that_share_of_the_labels_and_nothing_else_changes():
    generator, told = diffusion(label_dropout=0.3), []
    inner = generator.denoise
    generator.denoise = lambda x, sigma, labels, *more: told.append(labels) or inner(x, sigma, labels, *more)
    labels = torch.arange(2000) % 3
    generator.loss(some_images(2000), labels, rng_for(0))
    hidden = told[0] == -1
    assert 0.25 < hidden.float().mean() < 0.35 and torch.equal(told[0][~hidden], labels[~hidden])
    plain = diffusion()
    with torch.no_grad():
        plain.network.class_in.weight.normal_(generator=torch.Generator().manual_seed(0))
    x, sigma = some_images(3), torch.full((3,), 0.5)
    without = plain.denoise(x, sigma, torch.tensor([-1, -1, 2]))
    assert torch.equal(without[2], plain.denoise(x, sigma, torch.tensor([0, 1, 2]))[2])


SMALL = (
    "--set", "data.test=20", "--set", "data.validation=30", "--set", "train.schedule.total_images=512",
    "--set", "train.validations=1", "--set", "labeller.schedule.total_images=256",
    "--set", "generators.edm.total_images=256", "--set", "generators.edm.warmup_images=64",
    "--set", "generators.edm.channels=8", "--set", "sampling.count=60", "--set", "sampling.evaluations=3",
    "--set", "keep.rule=all", "--set", "evaluation.suite=quick", "--set", "certification.samples=60",
)  # fmt: skip


def test_a_run_certifies_what_it_trained(robustgen, tmp_path):
    """The recipe in small: trained under noise, certified, reported; repeated, nothing is done again."""
    line = ("run", "digits-certified", "--into", "r", "--jobs", 1, *SMALL)
    code, out, err = robustgen(*line)
    assert code == 0, err
    assert "certified % within l2 r, smoothed" in out and "real + edm, smoothed:" in out and "ACR" in out
    run = RunDir(tmp_path / "r")
    results = read_results(run)
    assert list(results.certificates) == ["real", "edm"]
    for arm, found in results.certificates.items():
        assert found.finished and len(found) == 20 and (found.sigma, found.samples) == (0.25, 60)
        assert read_json(run.certificates(arm).with_suffix(".done"))["classifier"].startswith(f"{arm}-")
    about = read_json(run.classifier("real", 0) / "model.json")
    assert about["threat"] is None and about["sigma"] == 0.25 and about["validation"]["robust"][1] == 16 * 30
    assert about["validation"]["clean"][1] == 16 * 30
    page = run.report.read_text()
    assert ">Certificates</h2>" in page and page.count("<svg") == 4
    before = run.certificates("real").read_bytes()
    run.certificates("real").unlink()
    run.certificates("real").with_suffix(".done").unlink()
    run.report.unlink()
    code, out, _ = robustgen(*line)
    assert code == 0 and "certify edm: done before" in out and run.certificates("real").read_bytes() == before
    again = run.report.read_text()
    assert ">Certificates</h2>" in again
    write_report(run)

    code, out, _ = robustgen(
        "certify", "r/classifiers/real-0", "--samples", 40, "--every", 5, "--images", 3, "--into", "c.npz",
        "--recipe", "digits-certified",
    )  # fmt: skip
    assert code == 0 and "ACR" in out and "c.npz" in out and "sigma 0.25, 40 samples" in out
    found = Certificates.load(tmp_path / "c.npz")
    assert len(found) == 3 and found.ids.tolist() == results.certificates["real"].ids[[0, 5, 10]].tolist()
    code, _, err = robustgen(
        "certify", "r/classifiers/edm-0", "--samples", 40, "--every", 5, "--images", 3, "--into", "c.npz",
        "--recipe", "digits-certified",
    )  # fmt: skip
    assert code == 2 and "c.npz holds other certificates: model:" in err and err.count("\n") == 1
    code, _, err = robustgen("certify", "r/labeller", "--denoise", "r/generators/edm", "--into", "d.npz")
    assert code == 2 and "is only conditional on its 10 labels" in err and err.count("\n") == 1
    code, out, _ = robustgen("certify", "r/labeller", "--dry-run")
    assert code == 0 and "would certify" in out


def test_a_classifier_without_noise_is_certified_behind_a_denoiser(robustgen, tmp_path):
    (tmp_path / "small.yaml").write_text(
        "base: digits-certified\ndata: {test: 20, validation: 30}\nlabeller: {schedule: {total_images: 256}}\n"
        "generators: {edm: {total_images: 256, warmup_images: 64, channels: 8, label_dropout: 0.2}}\n"
    )
    dropped = ("--recipe", "small.yaml")
    assert robustgen("fit", "edm", "--into", "g", *dropped)[0] == 0
    assert robustgen("train", "--plain", "--into", "m", *dropped)[0] == 0
    code, _, err = robustgen("certify", "m", "--denoise", "g", "--samples", 30, "--images", 4, "--into", "c.npz")
    assert code == 0, err
    assert Certificates.load(tmp_path / "c.npz").finished
    assert robustgen("fit", "gaussian", "--into", "gaussian")[0] == 0
    code, _, err = robustgen("certify", "m", "--denoise", "gaussian", "--samples", 30, "--images", 4)
    assert code == 2 and "gaussian holds a gaussian; a denoiser must be a diffusion model" in err


@pytest.mark.parametrize("loss", ["gaussian-noise", "stability", "consistency", "smoothadv", "macer"])
def test_recipes_name_the_losses_under_noise(loss):
    draws = [] if loss == "stability" else ["train.loss.draws=3"]
    train = override(RECIPES["digits"], [*draws, f"train.loss={loss}", "train.loss.sigma=0.5"]).train
    built = build_loss(train)
    assert built.sigma == 0.5 and getattr(built, "draws", 3) == 3
    default = build_loss(override(RECIPES["digits"], [f"train.loss={loss}"]).train)
    assert default == type(built)()


@pytest.mark.parametrize(
    ("name", "assignment", "message"),
    [
        ("digits", "train.loss.sigma=1", "unknown setting train.loss.sigma of the loss trades"),
        ("digits-certified", "train.loss.sigma=0", "train.loss.sigma: input should be greater than 0, got 0"),
        ("digits-certified", "certification.alpha=0.5", "certification.alpha: input should be less than 0.5"),
        ("digits-certified", "certification.sigma=0.5", r"train.loss.sigma \(0.25\) and certification.sigma \(0.5\)"),
    ],
)
def test_wrong_settings_of_noise_are_one_clear_line(name, assignment, message):
    with pytest.raises(ValueError, match=message) as caught:
        override(RECIPES[name], [assignment])
    assert "\n" not in str(caught.value)
