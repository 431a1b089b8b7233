import time
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from robustgen.config.recipe import KeepConfig
from robustgen.generators import Gaussian
from robustgen.proxy.filtering import RULES, keep
from robustgen.proxy.labeling import pseudo_label
from robustgen.proxy.ranking import top_per_class
from robustgen.proxy.sampling import sample_proxies
from robustgen.proxy.store import ProxySet, shard_name
from robustgen.storage.arrays import write_array
from robustgen.storage.files import read_json, write_json

CLASSES = ("a", "b", "c")


@pytest.fixture
def generator(tiny_images, tiny_info):
    model = Gaussian(tiny_info.shape, 3)
    model.fit(tiny_images)
    return model


@pytest.fixture
def proxies(generator, tmp_path):
    return sample_proxies(generator, 100, tmp_path / "p", classes=CLASSES, shard_images=30)


class Rows(nn.Module):
    """Logits: how bright each third of the rows is."""

    def forward(self, images):
        return torch.stack([images[:, 0, 2 + 2 * k : 4 + 2 * k].mean((1, 2)) for k in range(3)], 1) * 20


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_holds_shards_columns_and_what_made_them(proxies):
    manifest = read_json(proxies.folder / "manifest.json")
    assert len(proxies) == 100 and proxies.shape == (1, 8, 8) and proxies.classes == CLASSES
    assert [shard["count"] for shard in manifest["shards"]] == [30, 30, 30, 10]
    assert proxies.column("condition").tolist() == [i % 3 for i in range(100)]
    assert proxies.images(np.arange(100)).dtype == np.uint8
    proxies.verify()


def test_images_come_from_any_shard_in_any_order(proxies):
    everything = proxies.images(np.arange(100))
    index = np.array([99, 0, 31, 30, 29, 0, 60])
    assert np.array_equal(proxies.images(index), everything[index])
    assert proxies.images(np.array([], dtype=int)).shape == (0, 8, 8, 1)


def test_image_i_is_the_same_whatever_the_batch_and_the_shards(generator, proxies, tmp_path):
    everything = proxies.images(np.arange(100))
    for batch_size, shard_images in ((1, 100), (7, 40), (512, 99)):
        other = sample_proxies(
            generator,
            100,
            tmp_path / f"{batch_size}",
            classes=CLASSES,
            batch_size=batch_size,
            shard_images=shard_images,
        )
        assert np.array_equal(other.images(np.arange(100)), everything)
    more = sample_proxies(generator, 130, tmp_path / "more", classes=CLASSES)
    assert np.array_equal(more.images(np.arange(100)), everything)
    seeded = sample_proxies(generator, 100, tmp_path / "seeded", classes=CLASSES, seed=1)
    assert not np.array_equal(seeded.images(np.arange(100)), everything)


def test_sampling_broken_off_and_taken_up_gives_the_same_bytes(generator, proxies, tmp_path):
    class Broken:
        shape, classes = generator.shape, generator.classes
        left = 4

        def sample(self, labels, rng):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return generator.sample(labels, rng)

    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        sample_proxies(Broken(), 100, again, classes=CLASSES, shard_images=30, batch_size=10)
    assert (again / shard_name(0)).exists() and not (again / "manifest.json").exists()
    with pytest.raises(ValueError, match="no finished proxy set"):
        ProxySet(again)
    sample_proxies(generator, 100, again, classes=CLASSES, shard_images=30)
    assert contents(again) == contents(proxies.folder)


def test_another_plan_in_the_same_folder_is_refused(generator, proxies):
    with pytest.raises(ValueError, match=r"created with different settings: count: stored 100, requested 99"):
        sample_proxies(generator, 99, proxies.folder, classes=CLASSES, shard_images=30)
    with pytest.raises(ValueError, match=r"created with different settings: generator\.kind"):
        sample_proxies(generator, 100, proxies.folder, classes=CLASSES, shard_images=30, made_by={"kind": "other"})


def test_damage_is_found_and_named(proxies):
    shard = proxies.folder / shard_name(2)
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"images-00002\.npy is missing or differs"):
        proxies.verify()
    shard.write_bytes(damaged[:100])
    with pytest.raises(ValueError, match=r"images-00002\.npy"):
        ProxySet(proxies.folder).images(np.array([65]))
    write_array(shard, np.zeros((30, 4, 4, 1), np.uint8))
    with pytest.raises(
        ValueError, match=r"expected uint8 of shape \(30, 8, 8, 1\), got uint8 of shape \(30, 4, 4, 1\)"
    ):
        ProxySet(proxies.folder).images(np.array([65]))
    write_json(proxies.folder / "manifest.json", {"format": 99})
    with pytest.raises(ValueError, match="expected format 1, got 99"):
        ProxySet(proxies.folder)


def test_labels_are_the_classifiers_and_leave_it_as_found(proxies):
    model = Rows().train()
    pseudo_label(proxies, model, made_by={}, batch_size=17)
    images = torch.from_numpy(proxies.images(np.arange(100))).permute(0, 3, 1, 2) / 255
    probabilities = model(images).softmax(1)
    assert np.array_equal(proxies.column("label"), probabilities.argmax(1).numpy())
    np.testing.assert_allclose(proxies.column("confidence"), probabilities.amax(1).numpy(), rtol=1e-5)
    two = probabilities.topk(2)
    assert np.array_equal(proxies.column("second"), two.indices[:, 1].numpy())
    np.testing.assert_allclose(proxies.column("margin"), (two.values[:, 0] - two.values[:, 1]).numpy(), atol=1e-6)
    assert proxies.manifest["counts"]["label"] == np.bincount(proxies.column("label"), minlength=3).tolist()
    assert model.training
    before = contents(proxies.folder)
    pseudo_label(proxies, model, made_by={}, batch_size=64)
    assert contents(proxies.folder) == before


def test_keeping_takes_the_best_of_each_class(proxies):
    pseudo_label(proxies, Rows(), made_by={})
    keep(proxies, KeepConfig(per_class=10))
    labels, scores, kept = (ProxySet(proxies.folder).column(name) for name in ("label", "confidence", "kept"))
    for label in range(3):
        rows = labels == label
        assert (rows & kept).sum() == 10
        assert scores[rows & kept].min() >= scores[rows & ~kept].max()
    assert np.array_equal(proxies.kept(), np.flatnonzero(kept))
    keep(proxies, KeepConfig(rule="all"))
    assert len(proxies.kept()) == 100


def test_equal_scores_go_to_the_earlier_image():
    kept = top_per_class(np.array([0, 0, 0, 1]), np.array([0.5, 0.5, 0.5, 0.1]), 1, 2)
    assert kept.tolist() == [True, False, False, True]


def test_what_cannot_be_kept_is_said(proxies):
    with pytest.raises(ValueError, match=r"no column 'label'; run: robustgen label"):
        keep(proxies, KeepConfig(per_class=10))
    pseudo_label(proxies, Rows(), made_by={})
    with pytest.raises(ValueError, match=r"cannot keep 60 images of each class: class \d has \d+; keep fewer"):
        keep(proxies, KeepConfig(per_class=60))
    with pytest.raises(ValueError, match="has no column 'score'; it has: condition"):
        proxies.column("score")


def test_a_labeller_of_other_classes_is_refused(proxies):
    with pytest.raises(ValueError, match="has 64 classes, the proxy set 3"):
        pseudo_label(proxies, nn.Flatten(), made_by={})


class Dies(Rows):
    """Is killed at its third batch."""

    left = 3

    def forward(self, images):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().forward(images)


def test_labelling_broken_off_goes_on_and_gives_the_same_bytes(proxies, generator, tmp_path, monkeypatch):
    monkeypatch.setattr("robustgen.proxy.partial_rows.SECONDS", 0.0)
    monkeypatch.setattr("robustgen.proxy.labeling.QUEUE", 1)
    again = sample_proxies(generator, 100, tmp_path / "again", classes=CLASSES, shard_images=30)
    pseudo_label(proxies, Rows(), made_by={"weights": "x"})
    with pytest.raises(KeyboardInterrupt):
        pseudo_label(again, Dies(), made_by={"weights": "x"}, batch_size=20)
    assert len(list((again.folder / "labelling").glob("rows-*"))) == 2 and not again.has("label")
    with pytest.raises(ValueError, match=r"was created with different settings: made_by\.weights"):
        pseudo_label(ProxySet(again.folder), Rows(), made_by={"weights": "y"})
    seen = []
    counting = Rows()
    counting.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    pseudo_label(ProxySet(again.folder), counting, made_by={"weights": "x"}, batch_size=16)
    assert sum(seen) < 80, "the rows that were saved are not made again"
    assert contents(again.folder) == contents(proxies.folder)


def test_an_unfit_labeller_does_not_keep_out_the_next(proxies):
    with pytest.raises(ValueError, match="has 64 classes"):
        pseudo_label(proxies, nn.Flatten(), made_by={"weights": "y"})
    with pytest.raises(ValueError, match=r"answer to image 0 of .* is not a number"):
        pseudo_label(proxies, nn.Sequential(Rows(), Broken()), made_by={"weights": "z"})
    pseudo_label(proxies, Rows(), made_by={"weights": "x"})
    assert proxies.has("confidence")


class Broken(nn.Module):
    def forward(self, logits):
        return logits * float("nan")


def test_labels_may_be_the_classes_asked_for(proxies):
    pseudo_label(proxies, Rows(), made_by={}, labels="condition")
    images = torch.from_numpy(proxies.block(0, 100)).permute(0, 3, 1, 2) / 255
    probabilities = Rows()(images).softmax(1).numpy()
    condition = proxies.column("condition")
    assert np.array_equal(proxies.column("label"), condition)
    np.testing.assert_allclose(proxies.column("confidence"), probabilities[np.arange(100), condition], rtol=1e-5)
    with pytest.raises(ValueError, match="unknown labels 'x'; known: predicted, condition"):
        pseudo_label(proxies, Rows(), made_by={}, labels="x")


def test_whoever_finds_the_last_column_finds_all(proxies, monkeypatch):
    """Killed between two files: no column counts that is not whole, and none of an earlier labelling is left."""
    pseudo_label(proxies, Rows(), made_by={"weights": "x"})

    class Killed(Exception):
        pass

    def dies():
        raise Killed

    with pytest.raises(Killed):
        proxies.add_columns({"weights": "y"}, second=np.zeros(100), confidence=dies)
    opened = ProxySet(proxies.folder)
    assert opened.has("second") and not opened.has("confidence")
    with pytest.raises(ValueError, match="no column 'confidence'; run: robustgen label"):
        opened.column("confidence")


def by_hand(labels, scores, per_class):
    order = np.lexsort((np.arange(len(labels)), -scores.astype(np.float64)))
    kept = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        kept[[i for i in order if labels[i] == label][:per_class]] = True
    return kept


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, bool])
def test_the_best_of_each_class_are_those_of_a_full_sort(dtype, monkeypatch):
    monkeypatch.setattr("robustgen.proxy.store.CHUNK", 64)
    rng = np.random.default_rng(0)
    for scale in (1, 3, 6e3):
        labels = rng.integers(0, 4, 500).astype(np.int32)
        scores = (rng.standard_normal(500) * scale).astype(dtype)
        scores[rng.integers(0, 500, 100)] = scores[7]
        scores[::17] = 0
        for per_class in (1, 7, 60):
            assert np.array_equal(top_per_class(labels, scores, per_class, 4), by_hand(labels, scores, per_class))


def test_scores_that_are_no_numbers_come_last():
    scores = np.array([np.nan, -np.inf, 1.0, np.inf, np.nan, -0.0, 0.0], dtype=np.float32)
    labels = np.zeros(7, np.int32)
    for per_class, best in ((1, [3]), (2, [2, 3]), (3, [2, 3, 5]), (4, [2, 3, 5, 6]), (5, [0, 2, 3, 5, 6])):
        assert np.flatnonzero(top_per_class(labels, scores, per_class, 1)).tolist() == best


def test_ranking_leaves_out_what_may_not_be_chosen():
    labels, scores = np.array([0, 0, 0, 1, 1]), np.array([5, 4, 3, 2, 1], np.float32)
    among = np.array([False, True, True, True, False])
    assert top_per_class(labels, scores, 1, 2, among).tolist() == [False, True, False, True, False]
    with pytest.raises(ValueError, match="class 1 has 1"):
        top_per_class(labels, scores, 2, 2, among)


@pytest.fixture
def labelled(proxies):
    """Labels in turn; confidences fall, margins rise with the position."""
    n = np.arange(100)
    proxies.add_columns(
        {}, label=(n % 3).astype(np.int32), margin=(n / 100).astype(np.float32), confidence=(1 - n / 100).astype("f4")
    )
    return proxies


def test_every_rule_is_known_to_recipes():
    assert get_args(KeepConfig.model_fields["rule"].annotation) == tuple(RULES)


def test_above_a_confidence_all_are_kept_and_no_class_may_be_empty(labelled):
    keep(labelled, KeepConfig(rule="above-confidence", confidence=0.5))
    assert labelled.kept().tolist() == list(range(51))
    with pytest.raises(ValueError, match=r"no image of class 1 has a confidence of at least 0\.995"):
        keep(labelled, KeepConfig(rule="above-confidence", confidence=0.995))


def test_balanced_takes_the_first_of_each_class(labelled):
    keep(labelled, KeepConfig(rule="balanced", per_class=5))
    assert labelled.kept().tolist() == list(range(15))
    assert labelled.manifest["counts"]["kept"] == [5, 5, 5] and labelled.counts().tolist() == [5, 5, 5]


def test_the_boundary_rule_takes_the_smallest_margins_and_some_of_the_rest(labelled):
    keep(labelled, KeepConfig(rule="boundary", per_class=10, uniform=0))
    assert labelled.kept().tolist() == list(range(30))
    keep(labelled, KeepConfig(rule="boundary", per_class=10, uniform=0.4))
    rows = labelled.kept()
    assert set(range(18)) <= set(rows) and len(rows) == 30 and rows.max() > 50
    assert np.bincount(rows % 3).tolist() == [10, 10, 10]
    keep(labelled, KeepConfig(rule="boundary", per_class=10, uniform=0.4))
    assert np.array_equal(rows, labelled.kept())
    with pytest.raises(ValueError, match="cannot keep 34 images of each class: class 1 has 33"):
        keep(labelled, KeepConfig(rule="boundary", per_class=34))


def test_the_most_real_of_each_class_are_kept(labelled):
    with pytest.raises(ValueError, match="has no column 'discriminator'; run: robustgen score"):
        keep(labelled, KeepConfig(rule="discriminator", per_class=3))
    labelled.add_columns({"what": "how real"}, discriminator=-np.arange(100).astype(np.float32))
    keep(labelled, KeepConfig(rule="discriminator", per_class=3))
    assert labelled.kept().tolist() == list(range(9))


def test_a_column_of_ones_own_ranks(labelled):
    labelled.add_columns({"what": "a discriminator's score"}, realism=np.arange(100) * 0.5)
    keep(labelled, KeepConfig(rule="by-column", column="realism", per_class=3))
    assert labelled.kept().tolist() == list(range(91, 100))
    with pytest.raises(ValueError, match="has no column 'beauty'; it has: condition, label"):
        keep(labelled, KeepConfig(rule="by-column", column="beauty", per_class=3))
    with pytest.raises(ValueError, match="a column go together"):
        KeepConfig(rule="by-column")


def test_fifty_million_images_open_at_once(tmp_path):
    """Sparse files of true size: 154 GB that nothing reads."""
    count, each = 50_000_000, 100_000
    shards = [{"file": shard_name(k), "count": each, "sha256": "0" * 64} for k in range(count // each)]
    for name, header in (
        *((shard["file"], ("|u1", (each, 32, 32, 3))) for shard in shards),
        ("label.npy", ("<i4", (count,))),
        ("kept.npy", ("|b1", (count,))),
    ):
        with (tmp_path / name).open("wb") as file:
            descr, shape = header
            np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(descr).itemsize)
    with (tmp_path / shard_name(321)).open("r+b") as file:
        file.seek(128 + 5 * 3072)
        file.write(b"\x07" * 3072)
    manifest = {"format": 1, "count": count, "shape": [3, 32, 32], "classes": list("0123456789"), "shards": shards}
    write_json(tmp_path / "manifest.json", manifest | {"columns": {"label": {}, "kept": {}}, "generator": {}})
    began = time.process_time()
    opened = ProxySet(tmp_path)
    taken = time.process_time() - began
    assert len(opened) == count and taken < 0.1
    pixels = opened.images(np.array([32_100_005, 0, count - 1, 32_100_005]))
    assert (pixels[[0, 3]] == 7).all() and not pixels[[1, 2]].any()
    began = time.process_time()
    assert opened.column("label")[12_345_678] == 0
    assert time.process_time() - began < 0.1


def test_manifests_that_do_not_add_up_are_refused(proxies):
    path = proxies.folder / "manifest.json"
    manifest = read_json(path)
    for change in ({"count": 99}, {"shards": []}, {"shards": [{"file": "../x.npy", "count": 100}]}, {"columns": []}):
        write_json(path, manifest | change)
        with pytest.raises(ValueError, match=r"manifest\.json is not the manifest of a proxy set"):
            ProxySet(proxies.folder)
    for missing in ("shards", "shape", "classes"):
        write_json(path, {key: value for key, value in manifest.items() if key != missing})
        with pytest.raises(ValueError, match=r"manifest\.json is not the manifest of a proxy set"):
            ProxySet(proxies.folder)
    write_json(path, [1])
    with pytest.raises(ValueError, match="expected format 1"):
        ProxySet(proxies.folder)


def test_blocks_are_images_in_order(proxies):
    everything = proxies.images(np.arange(100))
    for first, stop in ((0, 100), (0, 30), (29, 31), (30, 60), (59, 100), (99, 100)):
        assert np.array_equal(proxies.block(first, stop), everything[first:stop])
    with pytest.raises(ValueError, match=r"holds images 0\.\.99, not 5\.\.100"):
        proxies.images(np.array([5, 100]))
