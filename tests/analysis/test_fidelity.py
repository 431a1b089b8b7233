"""Distances between sets of images: closed forms, torchmetrics on the same features, networks by published names."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import nn

from conftest import real_data
from robustgen.analysis.features import (
    Features,
    classifier_features,
    features_at_hand,
    inception_features,
    vgg_features,
)
from robustgen.analysis.fidelity import (
    GaussianFit,
    InceptionScore,
    Moments,
    frechet_at_infinity,
    frechet_distance,
    gaussian_of,
    kernel_distance,
    kernel_distances,
)
from robustgen.analysis.quality import measure
from robustgen.images import DatasetInfo, ImageSet
from robustgen.models import build_model
from robustgen.models.inception import Inception, load_inception, resize_like_tensorflow1
from robustgen.models.vgg import Lpips, Vgg, load_lpips, load_vgg
from robustgen.randomness import rng_for
from robustgen.records.quality import SELF, TEST, TRAIN, Estimate, Quality, QualityAbout, compare_qualities, entropy
from robustgen.storage import feature_weights as weights
from robustgen.storage.feature_weights import PUBLISHED, find_weights, has_weights
from robustgen.storage.weights import assign_weights, load_weights, read_weights


def rows(count: int, width: int, *place: object) -> torch.Tensor:
    return rng_for(0, *place).normal((count, width))


def gaussian(mean, covariance) -> GaussianFit:
    return GaussianFit(torch.tensor(mean).double(), torch.tensor(covariance).double(), 100)


# Frechet distance


def test_a_set_is_no_distance_from_itself_even_when_rank_deficient():
    for count, width in ((500, 20), (30, 64)):
        found = gaussian_of(10 * rows(count, width, "self"))
        assert frechet_distance(found, found) < 1e-3


def test_is_symmetric():
    first, second = gaussian_of(rows(80, 30, 1)), gaussian_of(1 + 2 * rows(20, 30, 2))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-7)


def test_of_equal_covariances_is_the_squared_gap_of_the_means():
    values = rows(200, 8, "gap")
    shifted = values + torch.arange(8.0)
    assert frechet_distance(gaussian_of(values), gaussian_of(shifted)) == pytest.approx(140, rel=1e-6)


def test_of_diagonal_covariances_is_that_of_each_axis():
    first = gaussian([1.0, 2.0, 0.0], np.diag([4.0, 9.0, 0.0]))
    second = gaussian([0.0, 2.0, 3.0], np.diag([1.0, 16.0, 25.0]))
    assert frechet_distance(first, second) == pytest.approx((1 + 9) + (2 - 1) ** 2 + (3 - 4) ** 2 + 25)


def test_does_not_care_for_a_rotation():
    turn = torch.linalg.qr(rows(6, 6, "turn").double())[0]
    first, second = rows(50, 6, "a").double(), 2 * rows(60, 6, "b").double() + 1
    assert frechet_distance(gaussian_of(first @ turn), gaussian_of(second @ turn)) == pytest.approx(
        frechet_distance(gaussian_of(first), gaussian_of(second)), rel=1e-9
    )


def test_moments_are_those_of_all_rows_however_they_come():
    values = 1000 + rows(103, 5, "moments")  # a mean far from 0, where sums of squares cancel
    moments = Moments()
    for part in values.split(7):
        moments.add(part)
    moments.add(values[:0])
    found = moments.gaussian()
    np.testing.assert_allclose(found.mean, values.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(values.double().numpy().T), rtol=1e-9)
    assert found.count == 103
    with pytest.raises(ValueError, match="at least two"):
        gaussian_of(values[:1])


def test_the_bias_in_the_number_of_images_is_taken_off_at_infinity():
    """Both sides are one law, so the distance is 0; with 2,000 images it is not, and falls as 1/n."""
    width = 16
    real = gaussian(np.zeros(width), np.eye(width))
    at_all, at_infinity = [], []
    for draw in range(8):
        values = rows(2000, width, "infinity", draw)
        at_all.append(frechet_distance(gaussian_of(values), real))
        at_infinity.append(frechet_at_infinity(values, real))
    assert np.mean(at_all) > 0.02
    assert abs(np.mean(at_infinity)) < 0.2 * np.mean(at_all)
    assert math.isnan(frechet_at_infinity(values[:19], real))


# Kernel distance


def test_kernel_distance_is_zero_in_the_mean_and_not_for_other_laws():
    same = torch.tensor([kernel_distance(rows(60, 4, "x", i), rows(50, 4, "y", i)) for i in range(200)])
    assert abs(same.mean()) < 3 * same.std() / 200**0.5 and same.min() < 0
    assert kernel_distance(1 + rows(60, 4, "x"), rows(50, 4, "y")) > same.max()


def test_kernel_distance_of_points_worked_out_by_hand():
    """One feature, k = (xy + 1)^3: within 0 and 1: 1; within 1 and 2: 27; across: 1, 1, 8, 27 in the mean 37 / 4."""
    found = kernel_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]]))
    assert found == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_subsets_are_of_their_place_and_cover_small_sets_whole():
    first, second = rows(300, 6, "k"), rows(200, 6, "l")
    found = kernel_distances(first, second, rng_for(3), subsets=5, size=100)
    assert torch.equal(found, kernel_distances(first, second, rng_for(3), subsets=5, size=100))
    assert found.std() > 0 and not torch.equal(found, kernel_distances(first, second, rng_for(4), subsets=5, size=100))
    whole = kernel_distances(first[:200], second, rng_for(3), subsets=2)
    np.testing.assert_allclose(whole, kernel_distance(first[:200], second), rtol=1e-9)


# Inception Score


def score_of(logits: torch.Tensor, splits: int = 1) -> torch.Tensor:
    score = InceptionScore(splits)
    for i, part in enumerate(logits.split(16)):
        score.add(part, (torch.arange(len(part)) + 16 * i) % splits)
    return score.scores()


def test_inception_score_of_sure_and_balanced_answers_is_the_number_of_classes():
    logits = 200 * torch.nn.functional.one_hot(torch.arange(70) % 7, 7).float()
    assert score_of(logits).item() == pytest.approx(7, rel=1e-9)


def test_inception_score_of_answers_all_alike_is_one():
    assert score_of(torch.zeros(50, 9)).item() == pytest.approx(1, rel=1e-12)
    sure = torch.tensor([100.0, 0, 0]).expand(50, 3)
    np.testing.assert_allclose(score_of(sure, splits=5), 1, rtol=1e-9)


def test_splits_without_images_have_no_score():
    assert len(score_of(torch.zeros(3, 4), splits=10)) == 3


# torchmetrics, with the same features


class Given(nn.Module):
    """Images as their own features, for torchmetrics."""

    num_features = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).float()


@pytest.fixture
def two_sets():
    return (
        (rows(150, 12, "one").mul(40) + 120).clamp(0, 255).byte(),
        (rows(130, 12, "two").mul(60) + 100).clamp(0, 255).byte(),
    )


@pytest.mark.filterwarnings("ignore:Metric", "ignore:std")
def test_agrees_with_torchmetrics(two_sets):
    fid, kid, inception = (pytest.importorskip(f"torchmetrics.image.{name}") for name in ("fid", "kid", "inception"))
    mine, theirs = (values.view(-1, 3, 2, 2) for values in two_sets)
    oracle = fid.FrechetInceptionDistance(feature=Given(), normalize=False)
    oracle.update(theirs, real=True)
    oracle.update(mine, real=False)
    first, second = (values.float() for values in two_sets)
    assert frechet_distance(gaussian_of(first), gaussian_of(second)) == pytest.approx(float(oracle.compute()), rel=1e-4)

    oracle = kid.KernelInceptionDistance(feature=Given(), subsets=2, subset_size=130, normalize=False)
    oracle.update(theirs, real=True)
    oracle.update(mine[:130], real=False)
    found = kernel_distances(first[:130], second, rng_for(0), subsets=2)
    assert float(found.mean()) == pytest.approx(float(oracle.compute()[0]), rel=1e-3)

    oracle = inception.InceptionScore(feature=Given(), splits=1, normalize=False)
    oracle.update(mine)
    assert score_of(first).item() == pytest.approx(float(oracle.compute()[0]), rel=1e-4)


# Published networks


def test_the_resize_is_tensorflow_ones():
    image = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    found = resize_like_tensorflow1(image, 4)[0, 0]
    # Output i looks at i / 2: no half-pixel shift, and the last pixel is repeated beyond the border.
    across = torch.tensor([0.0, 2, 4, 4])
    torch.testing.assert_close(found, across + torch.tensor([0.0, 4, 8, 8])[:, None])
    assert torch.equal(resize_like_tensorflow1(image, 2), image)
    shrunk = resize_like_tensorflow1(torch.arange(9.0).view(1, 1, 1, 9).expand(1, 1, 9, 9), 3)
    assert shrunk[0, 0, 0].tolist() == [0, 3, 6]  # without antialias: pixels between are not looked at
    line = resize_like_tensorflow1(torch.arange(32.0).view(1, 1, 1, 32).expand(1, 1, 32, 32), 299)[0, 0, 0]
    np.testing.assert_allclose(line, np.minimum(np.arange(299) * 32 / 299, 31), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def random_inception():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Inception().eval()


def test_inception_has_the_published_names_and_sizes(random_inception):
    state = random_inception.state_dict()
    # 23,834,568 of Inception-v3 with 1,000 classes and no second head, and 8 more classes of 2,048 weights and a bias.
    assert sum(parameter.numel() for parameter in random_inception.parameters()) == 23_834_568 + 8 * 2049
    convolutions = [name for name in state if name.endswith(".conv.weight")]
    assert len(convolutions) == 94 and len(state) == 94 * 6 + 2
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6c.branch7x7_2.conv.weight": (160, 160, 1, 7),
        "Mixed_6e.branch7x7dbl_4.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.bn.weight": (192,),
        "fc.weight": (1008, 2048),
    }.items():
        assert state[name].shape == shape, name


def test_inception_loads_what_it_saved_strictly(random_inception, tmp_path):
    path = tmp_path / "inception.pth"
    counters = {name for name in random_inception.state_dict() if name.endswith("num_batches_tracked")}
    torch.save({n: v for n, v in random_inception.state_dict().items() if n not in counters}, path)
    state = torch.get_rng_state()
    found = load_inception(path)
    assert torch.equal(torch.get_rng_state(), state) and not found.training
    assert torch.equal(found.fc.weight, random_inception.fc.weight)
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, path)
    with pytest.raises(ValueError, match="missing: Conv2d_1a_3x3"):
        load_inception(path)


@torch.no_grad()
def test_inception_sees_what_the_published_graph_sees(random_inception):
    """Sizes at each stage, the scale of the input, pooling that leaves out its padding, logits without bias."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
        for name, module in random_inception.named_children()
    ]
    first = random_inception.Conv2d_1a_3x3.register_forward_pre_hook(lambda m, x: seen.update(input=x[0]))
    images = torch.cat([torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)])
    out = random_inception(images)
    for hook in (*hooks, first):
        hook.remove()
    assert out.shape == (2, 3056)
    assert seen["input"].shape == (2, 3, 299, 299)
    assert seen["input"][0].unique().tolist() == [-1] and seen["input"][1].unique().tolist() == [127 / 128]
    sizes = {"Conv2d_2b_3x3": (64, 147), "Conv2d_4a_3x3": (192, 71), "Mixed_5b": (256, 35), "Mixed_5d": (288, 35)}
    sizes |= {"Mixed_6a": (768, 17), "Mixed_6e": (768, 17), "Mixed_7a": (1280, 8), "Mixed_7c": (2048, 8)}
    assert {name: (seen[name].shape[1], seen[name].shape[2]) for name in sizes} == sizes
    torch.testing.assert_close(out[:, :2048], seen["Mixed_7c"].mean((2, 3)))
    torch.testing.assert_close(out[:, 2048:], out[:, :2048] @ random_inception.fc.weight.T)
    ones = torch.ones(1, 192, 35, 35)
    pooled = torch.nn.functional.relu(random_inception.Mixed_5b.branch_pool(ones))
    torch.testing.assert_close(random_inception.Mixed_5b(ones)[:, -32:], pooled)  # averages of ones are one to the rim
    corner = torch.zeros(1, 1280, 8, 8)
    corner[..., 0, 0] = 9.0
    average = torch.zeros(1, 1280, 8, 8)
    average[..., :2, :2] = torch.tensor([[9 / 4, 9 / 6], [9 / 6, 1.0]])
    seventh = random_inception.Mixed_7b
    torch.testing.assert_close(seventh(corner)[:, -192:], seventh.branch_pool(average), rtol=1e-4, atol=1e-5)
    corner, highest = torch.zeros(1, 2048, 8, 8), torch.zeros(1, 2048, 8, 8)
    corner[..., 0, 0], highest[..., :2, :2] = 9.0, 9.0
    last = random_inception.Mixed_7c
    torch.testing.assert_close(last(corner)[:, -192:], last.branch_pool(highest), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def random_vgg():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Vgg().eval()


@torch.no_grad()
def test_vgg_gives_the_papers_number_of_activations(random_vgg):
    images = torch.rand(2, 3, 32, 32)
    shapes = [tuple(x.shape[1:]) for x in random_vgg.activations(images)]
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    assert random_vgg(images).shape == (2, 124_928)
    # LPIPS's constants are for [-1, 1]: -0.030 and 0.458 in red.
    torch.testing.assert_close(random_vgg.normalize(images)[:, 0], (2 * images[:, 0] - 1 + 0.030) / 0.458)
    with pytest.raises(ValueError, match="16x16"):
        random_vgg(torch.rand(1, 3, 8, 8))


def test_vgg_has_the_published_names(random_vgg, tmp_path):
    state = random_vgg.state_dict()
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert set(state) == {f"features.{i}.{kind}" for i in places for kind in ("weight", "bias")}
    assert sum(value.numel() for value in state.values()) == 14_714_688
    path = tmp_path / "vgg.pth"
    torch.save({**state, "classifier.0.weight": torch.zeros(4, 3), "classifier.0.bias": torch.zeros(4)}, path)
    assert torch.equal(load_vgg(path).features[28].weight, state["features.28.weight"])
    torch.save({name: value for name, value in state.items() if name != "features.5.bias"}, path)
    with pytest.raises(ValueError, match=r"missing: features\.5\.bias"):
        load_vgg(path)


@torch.no_grad()
def test_lpips_is_a_weighted_distance_of_directions(random_vgg, tmp_path):
    heads = real_data("weights") / "lpips_v0.1_vgg.pth"
    path = tmp_path / "vgg.pth"
    torch.save(random_vgg.state_dict(), path)
    lpips = load_lpips(path, heads)
    images, others = torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32)
    found = lpips(images, others)
    assert found.shape == (3,) and (found > 0).all() and not lpips(images, images).any()
    torch.testing.assert_close(found, lpips(others, images))
    expected = torch.zeros(3)
    stored = read_weights(heads)
    for i, (a, b) in enumerate(zip(random_vgg.activations(images), random_vgg.activations(others), strict=True)):
        a, b = nn.functional.normalize(a, dim=1), nn.functional.normalize(b, dim=1)
        expected += nn.functional.conv2d((a - b) ** 2, stored[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert all((value >= 0).all() for value in stored.values())  # as LPIPS trains them: a distance
    with pytest.raises(ValueError, match="does not fit"):
        assign_weights(Lpips(random_vgg).heads, {**stored, "lin5": torch.zeros(1)}, heads)


# Weight files


def test_a_missing_file_is_named_with_where_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTGEN_WEIGHTS", str(tmp_path))
    for name, published in PUBLISHED.items():
        with pytest.raises(ValueError, match="ROBUSTGEN_WEIGHTS") as error:
            find_weights(name)
        assert (
            published.name in str(error.value)
            and published.url in str(error.value)
            and str(tmp_path) in str(error.value)
        )
        assert "\n" not in str(error.value) and not has_weights(name)
    with pytest.raises(ValueError, match="pt_inception-2015-12-05-6726825d"):
        inception_features()
    monkeypatch.delenv("ROBUSTGEN_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.weights_folder() == tmp_path / ".cache" / "robustgen"


def test_another_file_under_a_published_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTGEN_WEIGHTS", str(tmp_path))
    path = tmp_path / PUBLISHED["vgg16"].name
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"SHA-256 begins with [0-9a-f]{8}, expected 397923af") as error:
        vgg_features((3, 32, 32))
    assert "\n" not in str(error.value)
    file = weights.WeightsFile(path.name, "https://", hashlib.sha256(b"something else").hexdigest()[:8], "a test")
    monkeypatch.setitem(PUBLISHED, "vgg16", file)
    assert find_weights("vgg16") == path


def test_published_names_carry_the_digest_they_are_checked_by():
    for name in ("inception-2015", "vgg16"):
        assert PUBLISHED[name].sha256 in PUBLISHED[name].name and PUBLISHED[name].url.endswith(PUBLISHED[name].name)
    heads = real_data("weights") / PUBLISHED["lpips-vgg"].name
    assert hashlib.sha256(heads.read_bytes()).hexdigest() == PUBLISHED["lpips-vgg"].sha256


# Features


@pytest.fixture
def classifier(tiny_info):
    model = build_model("wrn-10-1", tiny_info, rng_for(0))
    model.logits.weight.data.copy_(rows(3, 64, "head"))
    return model


@pytest.mark.parametrize("name", ["wrn-10-1", "preact-resnet-18"])
def test_classifier_features_are_what_the_last_layer_is_given(name):
    info = DatasetInfo("x", ("a", "b", "c", "d"), (3, 16, 16), (0.5,) * 3, (0.2,) * 3)
    model = build_model(name, info, rng_for(0))
    model.logits.weight.data.copy_(rows(4, model.logits.in_features, "head"))
    model.train()
    features = classifier_features(model)
    images = torch.rand(5, 3, 16, 16)
    found, logits = features(images)
    assert model.training and found.shape == (5, model.logits.in_features) and features.classes == 4
    torch.testing.assert_close(logits, model.eval()(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.logits(found), logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(features(images[:2])[0], found[:2])  # a row does not depend on its batch


def test_networks_without_such_a_layer_are_refused():
    with pytest.raises(ValueError, match="expected a classifier with a linear layer, got Conv2d"):
        classifier_features(nn.Conv2d(3, 3, 1))
    early = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.Flatten())
    with pytest.raises(ValueError, match="does not compute its logits"):
        classifier_features(early)(torch.rand(2, 3, 2, 2))
    broken = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    broken[1].bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        classifier_features(broken)(torch.rand(2, 3, 2, 2))


def test_fid_is_the_name_of_inceptions_alone(classifier, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTGEN_WEIGHTS", str(tmp_path))
    own = classifier_features(classifier)
    assert own.prefix == "classifier-"
    assert Features("inception-2015", classifier, "", 64).prefix == ""
    for shape in ((1, 8, 8), (3, 32, 32)):
        assert [features.name for features in features_at_hand(classifier, shape)] == ["classifier"] * 2


# Everything together


class Stored:
    """As a proxy set is read."""

    def __init__(self, images: np.ndarray):
        self.stored = images

    def __len__(self) -> int:
        return len(self.stored)

    def images(self, index: np.ndarray) -> np.ndarray:
        return self.stored[index]


@pytest.fixture
def three_sets(tiny_info):
    def some(count: int, *place: object) -> ImageSet:
        noise = rng_for(0, *place).integers(60, (count, 8, 8, 1)).numpy()
        labels = np.arange(count) % 3
        for i, label in enumerate(labels):
            noise[i, 2 + 2 * label : 4 + 2 * label] += 150
        return ImageSet(noise.astype(np.uint8), labels, tiny_info)

    return some(90, "train"), some(36, "test"), some(60, "generated")


def same(first: Quality, second: Quality) -> bool:
    rows = all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True)
        for name, value in vars(first).items()
        if isinstance(value, np.ndarray)
    )
    return rows and (first.about, first.estimates, first.of_test) == (second.about, second.estimates, second.of_test)


def test_does_not_depend_on_the_batch_size_or_on_how_images_are_kept(three_sets, classifier, tmp_path):
    train, test, generated = three_sets
    features = classifier_features(classifier)
    told = []
    first = measure(
        Stored(generated.images), train, test, features, labels=generated.labels, batch_size=7,
        progress=lambda done, total, unit: told.append((done, total, unit)),
    )  # fmt: skip
    assert told[-1] == (186, 186, "images")
    second = measure(generated, train, test, features, labels=generated.labels, batch_size=512)
    assert same(first, second)
    first.save(tmp_path / "quality.npz")
    assert same(Quality.load(tmp_path / "quality.npz"), first)
    first.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "quality.npz").read_bytes()


def test_counts_what_was_asked_and_what_is_seen(three_sets, classifier):
    train, test, generated = three_sets
    features = classifier_features(classifier)
    index = np.arange(10, 40)
    found = measure(generated, train, test, features, labels=generated.labels, index=index)
    seen = features(torch.from_numpy(generated.images).permute(0, 3, 1, 2) / 255)[1].argmax(1).numpy()[index]
    assert found.agreement.count == (seen == generated.labels[index]).sum() and found.agreement.total == 30
    assert found.seen.tolist() == np.bincount(seen, minlength=3).tolist()
    assert found.class_counts.tolist() == [[10, 30]] * 3
    assert found.about.generated == found.estimates["classifier-fid"].generated == 30
    assert set(found.sample) == set(index) and len(found.sample) == 30 and found.rounds == 1
    unasked = measure(generated, train, test, features, index=index)
    assert not unasked.asked and math.isnan(unasked.agreement.value)
    assert unasked.seen.tolist() == found.seen.tolist()


def test_measures_are_those_of_the_formulas(three_sets, classifier):
    train, test, generated = three_sets
    features = classifier_features(classifier)

    def rows_of(images: ImageSet) -> torch.Tensor:
        return features(torch.from_numpy(images.images).permute(0, 3, 1, 2) / 255)[0]

    found = measure(generated, train, test, features, labels=generated.labels)
    expected = frechet_distance(gaussian_of(rows_of(generated)), gaussian_of(rows_of(train)))
    assert found.estimates["classifier-fid"].value == pytest.approx(expected, rel=1e-6)
    expected = frechet_distance(gaussian_of(rows_of(test)), gaussian_of(rows_of(train)))
    assert found.of_test["classifier-fid"].value == pytest.approx(expected, rel=1e-6)
    one = frechet_distance(gaussian_of(rows_of(generated)[1::3]), gaussian_of(rows_of(train)[1::3]))
    assert found.class_fid[1] == pytest.approx(one, rel=1e-6)
    assert set(found.estimates) == {f"classifier-{name}" for name in ("fid", "fid at infinity", "kid", "is")}
    assert found.estimates["classifier-kid"].spread > 0


def test_a_copied_training_set_is_found_out(three_sets, classifier):
    train, test, _ = three_sets
    found = measure(train, train, test, classifier_features(classifier))
    assert found.estimates["classifier-fid"].value < 1e-3
    assert found.memorized.value == 1 and found.authentic.count == 0
    assert found.copies.tolist() == [90, 0]
    assert found.train_distance.max() < 1e-12 and (found.train_index == found.sample).all()
    assert found.precision.value == found.recall.value == 1


def test_the_same_image_again_and_again_is_near_itself(three_sets, classifier):
    train, test, generated = three_sets
    flat = np.full_like(generated.images, 255)
    found = measure(flat, train, test, classifier_features(classifier))
    assert found.share_nearest(SELF).value == 1 and found.neighbor_entropy == 0
    assert found.balance == 0 and found.recall.value == 0


def test_few_real_images_are_drawn_again_for_more_generated_ones(three_sets, classifier):
    train, test, generated = three_sets
    pixels = Features("pixels", nn.Flatten(), "", 64)
    features = classifier_features(classifier)
    few = test.take(np.arange(20))
    for looked in (features, pixels):
        found = measure(generated, train, few, features, neighbor_features=looked)
        assert found.rounds == 3 and len(set(found.sample)) == len(found.source) == 60
        assert found.spread(TRAIN) is not None and found.index[found.source == TEST].max() < 20
        mine = found.source == SELF
        rounds = {int(position): at // 20 for at, position in enumerate(found.sample)}
        assert all(rounds[int(i)] == at // 20 for at, i in zip(np.flatnonzero(mine), found.index[mine], strict=True))
        assert not (found.index[mine] == found.sample[mine]).any()
    assert measure(generated, train, few, features, judged=30).rounds == 1
    tiny = train.take(np.arange(30))
    assert measure(generated, tiny, few, features).inside.shape == (60,)


def test_other_features_for_neighbours_and_another_labeller(three_sets, classifier, tiny_info):
    train, test, generated = three_sets
    pixels = Features("pixels", nn.Flatten(), "", 64)
    features = classifier_features(classifier)
    found = measure(generated, train, test, features, neighbor_features=pixels, batch_size=5)
    assert found.about.neighbors.startswith("pixels") and found.about.features.startswith("classifier")
    assert same(found, measure(generated, train, test, features, neighbor_features=pixels, batch_size=64))
    flat = train.images.reshape(90, -1) / 255
    mine = generated.images.reshape(60, -1) / 255
    distances = np.linalg.norm(mine[:, None] - flat[None], axis=2)[found.sample]
    assert found.train_distance == pytest.approx(distances.min(1), rel=1e-5)  # 64 pixels: PCA leaves nothing out
    assert (found.train_index == distances.argmin(1)).all()
    seen = measure(generated, train, test, pixels, labeler=features, labels=generated.labels)
    assert seen.about.features.startswith("pixels") and seen.agreement.total == 60
    assert set(seen.estimates) == {"pixels-fid", "pixels-fid at infinity", "pixels-kid"}


def test_what_does_not_belong_together_is_refused(three_sets, classifier, tiny_info):
    train, test, generated = three_sets
    features = classifier_features(classifier)
    with pytest.raises(ValueError, match=r"uint8 of shape \(8, 8, 1\)"):
        measure(np.zeros((5, 9, 9, 1), np.uint8), train, test, features)
    with pytest.raises(ValueError, match="positions"):
        measure(generated, train, test, features, index=np.array([60]))
    with pytest.raises(ValueError, match="one label for each"):
        measure(generated, train, test, features, labels=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="at least two images of each"):
        measure(generated, train, test, features, index=np.array([0]))
    other = DatasetInfo("other", ("a", "b"), (1, 8, 8), (0.3,), (0.4,))
    with pytest.raises(ValueError, match="different data sets"):
        measure(generated, train, ImageSet(test.images[:2], np.array([0, 1]), other), features)
    many = Features("classifier", nn.Sequential(nn.Flatten(), nn.Linear(64, 128)), "", 64, 64)
    with pytest.raises(ValueError, match="expected a labeler of"):
        measure(generated, train, test, features, labeler=many)


# The record


def test_tables_say_of_how_many_images_each_number_is(three_sets, classifier, tmp_path):
    train, test, generated = three_sets
    found = measure(generated, train, test, classifier_features(classifier), labels=generated.labels)
    rows = {row[0]: row for row in found.table().rows}
    assert rows["classifier-fid"][2:4] == ("60", "90") and rows["nearest neighbor is train"][2:4] == ("36", "36")
    assert rows["memorized"][3] == "90" and "+-" in rows["classifier-kid"][1]
    table = compare_qualities({"one": found, "two": found})
    assert [row[:2] for row in table.rows] == [("one", "60"), ("two", "60")]
    with pytest.raises(ValueError, match="at least one quality record"):
        compare_qualities({})
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match="damaged"):
        Quality.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", quality=np.array("{}"))
    with pytest.raises(ValueError, match="expected a quality record in"):
        Quality.load(tmp_path / "other.npz")


def test_entropies_of_the_papers_table_come_out_of_its_shares():
    """arXiv:2103.01946, Table 5: train, test and self in per cent, and the entropy in nats."""
    for shares, printed in {
        (30.12, 29.20, 40.68): 1.09,
        (95.93, 0.32, 3.75): 0.18,
        (84.04, 4.45, 11.51): 0.53,
        (0.73, 0.72, 98.55): 0.09,
        (6.71, 5.76, 87.53): 0.46,
        (11.53, 10.51, 77.96): 0.68,
        (21.79, 20.16, 58.05): 0.97,
    }.items():
        assert round(entropy(shares), 2) == pytest.approx(printed, abs=0.0101), shares
    assert entropy([1, 1, 1]) == pytest.approx(math.log(3)) and math.isnan(entropy([0, 0]))


def test_shares_count_rows():
    about = QualityAbout("x", ("a",), 4, 4, 4, "f", "f", 0)
    empty = np.empty(0)
    found = Quality(
        about, {"fid": Estimate(1.0, 4, 4)}, {}, empty, empty, np.zeros((0, 0)), False, rounds=2,
        sample=np.arange(4), source=np.array([0, 0, 1, 2]), index=np.zeros(4), distance=np.ones(4),
        train_index=np.zeros(4), train_distance=np.array([1.0, 2, 3, 4]), train_spacing=np.array([2.0, 2, 2, 2]),
        test_distance=np.array([2.0, 3, 9]), inside=np.array([True, False, True, True]), density=np.zeros(4),
        recalled=np.array([True]), covered=np.array([False]), copies=np.zeros(2),
    )  # fmt: skip
    assert found.share_nearest(TRAIN).value == 0.5 and found.spread(TRAIN) == 0.5  # all, then none
    assert found.memorized.count == 2  # nearer than the median, 3
    assert found.authentic.count == 2  # farther than 2
    assert found.precision.value == 0.75 and found.recall.value == 1 and found.coverage.value == 0
    assert math.isnan(found.balance) and math.isnan(found.agreement.value)


def test_weights_that_are_no_weights_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "x.pth")
    with pytest.raises(ValueError, match="expected tensors by name"):
        load_weights(nn.Linear(1, 1), tmp_path / "x.pth")
