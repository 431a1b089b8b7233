import numpy as np
import pytest
import torch
from torch import nn

from robustgen.generators import Gaussian
from robustgen.proxy.filtering import keep, top_per_class
from robustgen.proxy.labeling import pseudo_label
from robustgen.proxy.sampling import sample_proxies
from robustgen.proxy.store import ProxySet, shard_name
from robustgen.records import write_array
from robustgen.runs import read_json, write_json

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
    with pytest.raises(ValueError, match=r"made otherwise \(count differ\)"):
        sample_proxies(generator, 99, proxies.folder, classes=CLASSES, shard_images=30)
    with pytest.raises(ValueError, match="generator differ"):
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
    assert model.training
    before = contents(proxies.folder)
    pseudo_label(proxies, model, made_by={}, batch_size=64)
    assert contents(proxies.folder) == before


def test_keeping_takes_the_best_of_each_class(proxies):
    pseudo_label(proxies, Rows(), made_by={})
    keep(proxies, "top-confidence", 10)
    labels, scores, kept = (ProxySet(proxies.folder).column(name) for name in ("label", "confidence", "kept"))
    for label in range(3):
        rows = labels == label
        assert (rows & kept).sum() == 10
        assert scores[rows & kept].min() >= scores[rows & ~kept].max()
    assert np.array_equal(proxies.kept(), np.flatnonzero(kept))
    keep(proxies, "all", 1)
    assert len(proxies.kept()) == 100


def test_equal_scores_go_to_the_earlier_image():
    kept = top_per_class(np.array([0, 0, 0, 1]), np.array([0.5, 0.5, 0.5, 0.1]), 1, 2)
    assert kept.tolist() == [True, False, False, True]


def test_what_cannot_be_kept_is_said(proxies):
    with pytest.raises(ValueError, match=r"no column 'label'; run: robustgen label"):
        keep(proxies, "top-confidence", 10)
    pseudo_label(proxies, Rows(), made_by={})
    with pytest.raises(ValueError, match=r"cannot keep 60 images of each class: class \d has \d+; keep fewer"):
        keep(proxies, "top-confidence", 60)
    with pytest.raises(ValueError, match="known: top-confidence, all"):
        keep(proxies, "best", 10)
    with pytest.raises(ValueError, match="has no column 'score'; it has: condition"):
        proxies.column("score")


def test_a_labeller_of_other_classes_is_refused(proxies):
    with pytest.raises(ValueError, match="knows 64 classes, the proxy set 3"):
        pseudo_label(proxies, nn.Flatten(), made_by={})
