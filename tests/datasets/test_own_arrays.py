"""Images of one's own as .npz and .npy: the layouts in which people keep them, good, bad and absurd."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import quietly
from robustgen.config.recipe import DataConfig
from robustgen.datasets import load_splits, load_test
from robustgen.datasets.npz import load
from robustgen.datasets.sizes import Reading
from robustgen.images import to_unit
from robustgen.records.verdicts import Verdicts, clean_file

NET = "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear({inputs}, {classes}))\n"

BLACK = np.zeros((4, 4, 4, 3), np.uint8)


@pytest.fixture
def some():
    """Twelve images of 8x6 with three channels, and labels of four classes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 8, 6, 3), dtype=np.uint8), np.arange(12) % 4


def written(path, **arrays):
    np.savez(path, **arrays)
    return path


def judged_of(path, **settings):
    return quietly(load_test, DataConfig(name="npz", path=str(path), only_test=True, **settings))


@pytest.mark.parametrize(
    "keys",
    [("image", "label"), ("images", "labels"), ("x", "y"), ("X", "Y"), ("data", "targets"), ("arr_0", "arr_1"),
     ("images", "targets")],
)  # fmt: skip
def test_usual_names_of_arrays_are_found(tmp_path, some, keys):
    images, labels = some
    path = written(tmp_path / "a.npz", **{keys[0]: images, keys[1]: labels, "filenames": np.array(["a.png"] * 12)})
    found, notes = judged_of(path)
    assert np.array_equal(found.images, images) and np.array_equal(found.labels, labels) and not notes
    assert found.images.dtype == np.uint8 and found.info.classes == ("0", "1", "2", "3")


def test_unnamed_arrays_are_named_by_settings(tmp_path, some):
    images, labels = some
    path = written(tmp_path / "a.npz", clean=images, adv=255 - images, truth=labels)
    with pytest.raises(ValueError, match=r"known to be the images: it has clean, adv, truth; .*--image-key"):
        judged_of(path)
    with pytest.raises(ValueError, match=r"to be the labels.*data\.label_key=NAME"):
        judged_of(path, image_key="adv")
    with pytest.raises(ValueError, match=r"has no array 'advs'; it has: clean, adv, truth"):
        judged_of(path, image_key="advs", label_key="truth")
    found, _ = judged_of(path, image_key="adv", label_key="truth")
    assert np.array_equal(found.images, 255 - images)
    both = written(tmp_path / "b.npz", x=images, images=images, y=labels)
    with pytest.raises(ValueError, match=r"several arrays may be the images: it has x, images, y"):
        judged_of(both)
    with pytest.raises(ValueError, match=r"digits does not use data\.image_key"):
        load_test(DataConfig(name="digits", image_key="x"))


def test_layouts_give_the_same_images(tmp_path, some):
    images, labels = some
    last, notes = judged_of(written(tmp_path / "a.npz", x=images.transpose(0, 3, 1, 2), y=labels))
    assert np.array_equal(last.images, images) and "(N, C, H, W); its channels were moved to the end" in notes[0]
    gray, notes = judged_of(written(tmp_path / "b.npz", x=images[..., 0], y=labels))
    assert np.array_equal(gray.images, images[..., :1]) and not notes
    wide, notes = judged_of(written(tmp_path / "c.npz", x=images.astype(np.int64), y=labels))
    assert np.array_equal(wide.images, images) and wide.images.dtype == np.uint8 and "int64 in 0..255" in notes[0]
    binary, notes = judged_of(written(tmp_path / "d.npz", x=images // 128, y=labels))
    assert binary.images.max() == 1 and "nearly black; multiply by 255" in notes[0]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_kept_for_evaluation_and_rounded_for_training(tmp_path, kind):
    rng = np.random.default_rng(1)
    pixels, labels = rng.uniform(0, 1, (40, 8, 8, 1)).astype(kind), np.arange(40) % 2
    path = written(tmp_path / "f.npz", x=pixels, y=labels)
    test, notes = judged_of(path)
    assert test.is_float and np.array_equal(test.images, pixels.astype(np.float32))
    assert "evaluation keeps them as float32, training rounds them to bytes" in notes[0] and test.notes == tuple(notes)
    seen = to_unit(test.take(np.array([3, 1])).pixels())
    assert torch.equal(seen, torch.from_numpy(pixels[[3, 1]].astype(np.float32)).permute(0, 3, 1, 2))
    splits, _ = quietly(load_splits, DataConfig(name="npz", path=str(path), test=10, validation=10))
    for part in (splits.train, splits.validation, splits.test):
        assert part.images.dtype == np.uint8
        whole = (pixels.astype(np.float32)[part.source_rows] * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        assert np.array_equal(part.images, whole)


def test_floats_that_are_gray_levels_are_bytes(tmp_path, some):
    """What ToTensor and a division by 255 make: nothing is lost, so that nothing is said."""
    images, labels = some
    for number, floats in enumerate((images.astype(np.float32) / np.float32(255), images / 255)):
        found, notes = judged_of(written(tmp_path / f"{number}.npz", x=floats, y=labels))
        assert found.images.dtype == np.uint8 and np.array_equal(found.images, images) and not notes


def test_floats_can_be_resized_and_stay_in_range(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 2, (6, 9, 9, 3)).astype(np.float32) * np.float32(0.999)
    path = written(tmp_path / "f.npz", x=pixels, y=np.arange(6) % 2)
    found, _ = judged_of(path, resize=5)
    assert found.images.shape == (6, 5, 5, 3) and found.is_float and 0 <= found.images.min() <= found.images.max() <= 1


def test_labels_come_as_rows_names_or_whole_floats(tmp_path, some):
    images, labels = some
    one_hot, notes = judged_of(written(tmp_path / "a.npz", x=images, y=np.eye(5)[labels]))
    assert np.array_equal(one_hot.labels, labels) and len(one_hot.info.classes) == 5 and "one-hot" in notes[0]
    column, notes = judged_of(written(tmp_path / "b.npz", x=images, y=labels[:, None]))
    assert np.array_equal(column.labels, labels) and not notes
    whole, notes = judged_of(written(tmp_path / "c.npz", x=images, y=labels.astype(np.float32)))
    assert np.array_equal(whole.labels, labels) and "whole numbers" in notes[0]
    names = np.array(["été", "autumn", "winter", "spring is here"])
    for number, kept in enumerate((names[labels], np.char.encode(names, "utf-8")[labels])):
        path = tmp_path / f"n{number}.npz"
        named, notes = judged_of(written(path, x=images, y=kept))
        assert named.info.classes == ("autumn", "spring is here", "winter", "été")
        assert [named.info.classes[k] for k in named.labels] == names[
            labels
        ].tolist() and "'y' are names of 4 classes: autumn" in notes[0]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.linspace(-1, 1, 192).reshape(4, 4, 4, 3), np.arange(4), r"must lie in \[0, 1\].*-1 to 1; save \(x \+ 1"),
        (np.linspace(0, 255, 192).reshape(4, 4, 4, 3), np.arange(4), "got 0 to 255; divide by 255"),
        (np.linspace(-2.1, 2.6, 192).reshape(4, 4, 4, 3), np.arange(4), "undo the normalization"),
        (np.full((4, 4, 4, 3), np.inf), np.arange(4), "NaN or infinite"),
        (np.zeros((4, 4, 4, 4), np.uint8), np.arange(4), r"got shape \(4, 4, 4, 4\); with an alpha .* x\[..., :3\]"),
        (np.zeros((4, 4, 9, 9), np.uint8), np.arange(4), r"alpha channel.* x\[:, :3\]"),
        (np.zeros((4, 784), np.uint8), np.arange(4), r"got \(4, 784\); reshape it"),
        (np.zeros((4, 4, 4, 3), np.complex64), np.arange(4), "got complex64"),
        (np.full((4, 4, 4, 3), 65535, np.uint16), np.arange(4), r"got uint16 from 65535 to 65535; save \(x / 65535\)"),
        (np.full((4, 4, 4, 3), -1), np.arange(4), "must lie in 0..255 as integers, got int64 from -1"),
        (np.zeros((4, 0, 4, 3), np.uint8), np.arange(4), "empty"),
        (BLACK, np.full((4, 3), 1 / 3), r"is not one-hot.*y\.argmax\(1\)"),
        (BLACK, np.array([0, 1, np.nan, 2]), "not whole numbers"),
        (BLACK, np.arange(4) > 1e9, None),
        (BLACK, np.array(["a", "b", "c"]), r"one label for each of 4 images, got shape \(3,\)"),
        (BLACK, np.zeros((4, 2, 2)), r"got shape \(4, 2, 2\)"),
        (BLACK, np.array(["a", 1, None, 2], dtype=object), "'y' holds Python objects.*astype"),
        (BLACK, np.array(3), r"one label for each of 4 images, got shape \(\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path, images, labels, message):
    path = written(tmp_path / "bad.npz", x=images, y=labels)
    if message is None:
        assert judged_of(path)[0].labels.tolist() == [0, 0, 0, 0]
        return
    with pytest.raises(ValueError, match=message) as caught:
        judged_of(path)
    assert "\n" not in str(caught.value) and "bad.npz" in str(caught.value)


def test_a_small_file_may_have_large_labels(tmp_path, some):
    images, _ = some
    found, _ = judged_of(written(tmp_path / "a.npz", x=images[:2], y=np.array([999, 3])))
    assert found.labels.tolist() == [999, 3] and found.numbered


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("x_test", "y_test"), ("fog", "labels"), ("my-image-set", "my-label-set")]
)
def test_a_pair_of_npy_files_is_a_data_set(tmp_path, some, names):
    images, labels = some
    np.save(tmp_path / f"{names[0]}.npy", images)
    with pytest.raises(ValueError, match=r"needs its labels next to it, in .*labels\.npy; say which with --label-key"):
        judged_of(tmp_path / f"{names[0]}.npy")
    np.save(tmp_path / f"{names[1]}.npy", labels)
    found, _ = judged_of(tmp_path / f"{names[0]}.npy")
    assert np.array_equal(found.images, images) and np.array_equal(found.labels, labels)
    np.save(tmp_path / "truth.npy", 3 - labels)
    assert np.array_equal(judged_of(tmp_path / f"{names[0]}.npy", label_key="truth.npy")[0].labels, 3 - labels)


def test_an_npz_that_is_an_npy_says_so(tmp_path, some):
    np.save(tmp_path / "a.npy", some[0])
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz is not an \.npz but an \.npy"):
        judged_of(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", some[0])
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    np.save(tmp_path / "labels.npy", some[1])
    with pytest.raises(ValueError, match=r"b\.npy is not an \.npy but an \.npz"):
        judged_of(tmp_path / "b.npy")


def test_files_of_several_parts_have_their_test_set(tmp_path, some):
    """As Keras and MedMNIST keep theirs."""
    images, labels = some
    keras = written(tmp_path / "k.npz", x_train=images, y_train=labels, x_test=images[:5], y_test=labels[:5])
    train, test = load(keras)
    assert len(train) == 12 and len(test) == 5 and not train.notes
    med = written(
        tmp_path / "m.npz", train_images=images, train_labels=labels[:, None], val_images=images[:3],
        val_labels=labels[:3, None], test_images=images[:5], test_labels=labels[:5, None],
    )  # fmt: skip
    train, test = load(med)
    assert len(train) == 12 and len(test) == 5 and "val is not used" in train.notes[0]
    only = written(tmp_path / "t.npz", x_test=images[:5], y_test=labels[:5])
    assert [None if part is None else len(part) for part in load(only)] == [5, None]
    picked, _ = load(keras, None, Reading(image_key="x_test", label_key="y_test"))
    assert len(picked) == 5


def test_test_names_are_numbered_as_in_training(tmp_path, some):
    images, labels = some
    names = np.array(["ant", "bee", "cow", "dog"])
    path = written(tmp_path / "a.npz", x=images, y=names[labels])
    written(tmp_path / "a_test.npz", x=images[:2], y=np.array(["dog", "bee"]))
    assert load(path)[1].labels.tolist() == [3, 1]
    written(tmp_path / "a_test.npz", x=images[:2], y=np.array(["dog", "eel"]))
    with pytest.raises(ValueError, match=r"a_test\.npz: 'y' names eel, which the training images do not have"):
        load(path)


def test_a_recipe_may_have_its_test_images_elsewhere(tmp_path, some):
    images, labels = some
    names = np.array(["ant", "bee", "cow", "dog"])
    train = written(tmp_path / "train.npz", x=np.tile(images, (3, 1, 1, 1)), y=np.tile(names[labels], 3))
    other = written(tmp_path / "other.npz", x=images[:3], y=np.array(["dog", "bee", "dog"]))
    data = DataConfig(name="npz", path=str(train), test_path=str(other), validation=4)
    splits, _ = quietly(load_splits, data)
    assert splits.test.labels.tolist() == [3, 1, 3] and splits.test.info == splits.train.info
    assert len(splits.train) == 32
    with pytest.raises(ValueError, match=r"'--|there is no file or folder .*none\.npz"):
        load_splits(data.model_copy(update={"test_path": str(tmp_path / "none.npz")}))
    bad = written(tmp_path / "eel.npz", x=images[:3], y=np.array(["dog", "eel", "dog"]))
    with pytest.raises(ValueError, match=r"eel\.npz has classes that .*train\.npz has not: eel"):
        load_splits(data.model_copy(update={"test_path": str(bad)}))
    small = written(tmp_path / "small.npz", x=images[:3, :4, :4], y=np.array(["dog"] * 3))
    with pytest.raises(ValueError, match=r"small\.npz has images of shape \(3, 4, 4\)"):
        load_splits(data.model_copy(update={"test_path": str(small)}))


def test_gray_becomes_rgb_and_rgb_gray(tmp_path, some):
    images, labels = some
    gray = written(tmp_path / "g.npz", x=images[..., 0], y=labels)
    found, notes = judged_of(gray, color="rgb")
    assert np.array_equal(found.images, np.repeat(images[..., :1], 3, axis=3)) and "repeating their channel" in notes[0]
    assert found.info.shape == (3, 8, 6) and len(found.info.mean) == 3
    flat = np.tile(images[..., :1], (1, 1, 1, 3))
    found, notes = judged_of(written(tmp_path / "r.npz", x=flat, y=labels), color="gray")
    assert np.array_equal(found.images, images[..., :1]) and found.info.shape == (1, 8, 6) and "became gray" in notes[0]
    assert load_test(DataConfig(name="digits", test=5)).info.shape == (1, 8, 8)


@pytest.fixture
def net(robustgen, tmp_path):
    def make(inputs, classes):
        (tmp_path / "net.py").write_text(NET.format(inputs=inputs, classes=classes))
        return robustgen

    return make


@pytest.mark.filterwarnings("default::robustgen.storage.files.Note")
def test_a_file_of_floats_is_judged_whole_in_its_order(net, tmp_path):
    pixels = np.random.default_rng(2).uniform(0, 1, (30, 8, 8)).astype(np.float32)
    labels = np.repeat(np.arange(3), 10)
    written(tmp_path / "mine.npz", x=pixels, y=labels)
    written(tmp_path / "mine_test.npz", x=pixels[:4], y=labels[:4])  # --test means the file that is named
    robustgen = net(64, 5)  # five classes, of which the file has three
    words = ("evaluate", "net.py:make", "--threat", "linf:0.1", "--suite", "quick", "--test", "mine.npz")
    code, out, err = robustgen(*words, "--into", "v.npz", "--keep-images")
    assert code == 0, err
    assert "evaluate net.py:make: mine.npz (the command line)" in out
    assert err.count("note: mine.npz: 'x' are floats in [0, 1]") == 1 and "Note:" not in out
    assert re.search(r"source of the images +mine\.npz\n", robustgen("show", "v.npz")[1])
    verdicts = Verdicts.load(Path("v.npz"))
    assert verdicts.rows.tolist() == list(range(30)) and np.array_equal(verdicts.labels, labels)
    assert verdicts.notes == ("images: " + err.split("note: ")[1].split("\n")[0],)
    assert np.array_equal(np.load(clean_file(Path("v.npz")))[..., 0], pixels)
    code, out, err = robustgen(*words, "--into", "first.npz", "--images", 12)
    assert code == 0 and ", the first 12 images\n" in out
    assert "the first 12 of the 30 images of mine.npz are of 2 of 3 classes; --balanced" in err
    assert Verdicts.load(Path("first.npz")).rows.tolist() == list(range(12))
    code, out, err = robustgen(*words, "--into", "even.npz", "--images", 6, "--balanced")
    assert code == 0 and ", 6 images, the first of each class\n" in out
    assert Verdicts.load(Path("even.npz")).rows.tolist() == [0, 1, 10, 11, 20, 21]
    for extra, message in (
        (("--data", "npz=mine.npz"), "leave out one of them"),
        (("--images", 31), "data.test asks for 31 images, mine.npz has 30"),
        (("--image-key", "z"), "has no array 'z'; it has: x, y"),
    ):
        code, _, err = robustgen(*words, "--into", "w.npz", *extra)
        assert code == 2 and message in err.splitlines()[-1] and "Traceback" not in err
    code, _, err = robustgen(*words[:-1], "nothing.npz")
    assert code == 2 and "there is no file or folder nothing.npz" in err
    code, _, err = net(64, 2)(*words, "--into", "x.npz")
    assert code == 2 and "returns (2, 2) for 2 images, expected (2, 3)" in err


@pytest.mark.filterwarnings("default::robustgen.storage.files.Note")
def test_gray_images_of_an_rgb_network_name_the_setting(net, tmp_path):
    written(
        tmp_path / "g.npz", x=np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8), y=np.arange(6) % 3
    )
    words = (
        "evaluate",
        "net.py:make",
        "--threat",
        "linf:0.1",
        "--suite",
        "quick",
        "--test",
        "g.npz",
        "--into",
        "v.npz",
    )
    code, _, err = net(192, 3)(*words)
    assert code == 2 and "add --set data.color=rgb" in err and err.count("\n") == 1
    code, _, err = net(192, 3)(*words, "--set", "data.color=rgb")
    assert code == 0 and "gray images became RGB" in err


@pytest.mark.filterwarnings("default::robustgen.storage.files.Note")
def test_a_trained_classifier_takes_its_classes_by_name(robustgen, tmp_path):
    rng = np.random.default_rng(0)
    names = np.array(["ant", "bee", "cow"])
    labels = np.arange(60) % 3
    images = rng.integers(0, 80, (60, 8, 8)) + 80 * labels[:, None, None]
    written(tmp_path / "a.npz", x=images.astype(np.uint8), y=names[labels])
    smaller = [f"data.{name}" for name in ("train=30", "validation=10", "test=20")]
    sets = [word for name in (*smaller, "labeller.schedule.total_images=64") for word in ("--set", name)]
    code, _, err = robustgen(
        "train", "--plain", "--into", "m", "--data", "npz=a.npz", "--recipe", "digits-smoke", *sets
    )
    assert code == 0, err
    written(tmp_path / "b.npz", x=images[:6].astype(np.uint8), y=np.array(["cow", "bee", "cow", "cow", "bee", "bee"]))
    words = ("evaluate", "m", "--threat", "linf:0.1", "--suite", "quick")
    code, _, err = robustgen(*words, "--test", "b.npz", "--into", "v.npz")
    assert code == 0 and "numbered by the names of the 3 classes of m" in err
    assert Verdicts.load(Path("v.npz")).labels.tolist() == [2, 1, 2, 2, 1, 1]
    written(tmp_path / "c.npz", x=np.zeros((6, 8, 8, 3), np.uint8), y=labels[:6])
    code, _, err = robustgen(*words, "--test", "c.npz", "--into", "w.npz")
    assert code == 2 and "m takes gray images, those of c.npz have 3 channels; add --set data.color=gray" in err
