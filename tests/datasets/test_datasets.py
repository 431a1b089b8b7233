import io
import pickle
import struct
import zlib

import numpy as np
import pytest

from robustgen.config.recipe import DataConfig
from robustgen.datasets import DATASETS, balanced, load_splits
from robustgen.datasets.cifar import load as load_cifar
from robustgen.datasets.npz import load as load_npz
from robustgen.datasets.npz import read_npz, write_npz
from robustgen.images import ImageSet
from robustgen.storage.safe_pickle import load_plain_pickle


@pytest.fixture
def cifar_like():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.arange(40) % 10


def write_python(folder, images, labels, protocol=2):
    """Batches as the official Python version has them: dictionaries with byte keys, rows channel by channel."""
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        content = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": rows, b"filenames": [b"x.png"]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))


def write_binary(folder, images, labels):
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        (folder / name).write_bytes(np.concatenate([labels[:, None].astype(np.uint8), rows], 1).tobytes())


@pytest.mark.parametrize("write", [write_python, write_binary])
def test_reads_both_official_versions(tmp_path, cifar_like, write):
    images, labels = cifar_like
    name = "cifar-10-batches-py" if write is write_python else "cifar-10-batches-bin"
    write(tmp_path / name, images, labels)
    for path in (tmp_path, tmp_path / name):
        train, test = load_cifar(path)
        assert len(train) == 200 and len(test) == 40
        assert np.array_equal(test.images, images) and np.array_equal(test.labels, labels)
        assert np.array_equal(train.images[160:], images)


def test_a_missing_folder_says_what_to_get(tmp_path):
    with pytest.raises(ValueError, match=r"no CIFAR-10 in .*cifar-10-batches-py.*cs\.toronto\.edu.*data\.path"):
        load_cifar(tmp_path)


class Malicious:
    def __reduce__(self):
        return (print, ("this ran",))


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path, capsys):
    (tmp_path / "bad").write_bytes(pickle.dumps({b"data": Malicious()}))
    with pytest.raises(ValueError, match=r"bad cannot be read .*builtins\.print"):
        load_plain_pickle(tmp_path / "bad")
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("payload", [b"", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04garbage"])
def test_strange_pickles_are_one_clear_line(tmp_path, payload):
    (tmp_path / "bad").write_bytes(payload)
    with pytest.raises(ValueError, match="cannot be read as a pickle of plain arrays"):
        load_plain_pickle(tmp_path / "bad")


def test_old_pickles_of_numpy_arrays_are_read(tmp_path):
    for protocol in (0, 2, 4, 5):
        path = tmp_path / f"p{protocol}"
        path.write_bytes(pickle.dumps({"x": np.arange(5), "y": np.float64(3)}, protocol=protocol))
        assert load_plain_pickle(path)["x"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("write", [write_python, write_binary])
def test_truncated_batches_are_one_clear_line(tmp_path, cifar_like, write):
    name = "cifar-10-batches-py" if write is write_python else "cifar-10-batches-bin"
    write(tmp_path / name, *cifar_like)
    victim = sorted((tmp_path / name).iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=victim.name):
        load_cifar(tmp_path)


def test_a_batch_with_wrong_content_is_named(tmp_path, cifar_like):
    write_python(tmp_path / "cifar-10-batches-py", *cifar_like)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(
        pickle.dumps({b"data": np.zeros((3, 5)), b"labels": [1]})
    )
    with pytest.raises(ValueError, match="data_batch_2 is not a CIFAR-10 batch"):
        load_cifar(tmp_path)
    images, labels = cifar_like
    write_python(tmp_path / "b" / "cifar-10-batches-py", images, labels + 5)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.9, got 1[0-4]"):
        load_cifar(tmp_path / "b")


def test_npz_round_trip(tmp_path, cifar_like):
    images, labels = cifar_like
    write_npz(tmp_path / "mine.npz", images, labels)
    train, test = load_npz(tmp_path / "mine.npz")
    assert test is None and np.array_equal(train.images, images) and train.info.shape == (3, 32, 32)
    assert train.info.mean == pytest.approx(tuple(images.reshape(-1, 3).mean(0) / 255), abs=1e-4)
    write_npz(tmp_path / "mine_test.npz", images[:7], labels[:7])
    assert len(load_npz(tmp_path / "mine.npz")[1]) == 7
    np.savez(tmp_path / "grey.npz", image=images[..., 0], label=labels)
    assert read_npz(tmp_path / "grey.npz")[0].shape == (40, 32, 32, 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"image": np.zeros((4, 8, 8, 3), np.uint8)},
            "no array is known to be the labels: it has image; say",
        ),
        ({"image": np.zeros((4, 8, 8, 3), bool), "label": np.zeros(4, int)}, "must be uint8 .* got bool"),
        ({"image": np.full((4, 8, 8, 3), np.nan), "label": np.zeros(4, int)}, "NaN or infinite"),
        ({"image": np.zeros((4, 2, 8, 8), np.uint8), "label": np.zeros(4, int)}, "1 or 3 channels"),
        ({"image": np.zeros((4, 8), np.uint8), "label": np.zeros(4, int)}, "shape"),
        ({"image": np.zeros((0, 8, 8, 3), np.uint8), "label": np.zeros(0, int)}, "is empty"),
        ({"image": np.zeros((4, 8, 8, 3), np.uint8), "label": np.zeros(3, int)}, "one label for each of 4"),
        ({"image": np.zeros((4, 8, 8, 3), np.uint8), "label": np.full(4, 0.5)}, "labels must be integers"),
        ({"image": np.zeros((4, 8, 8, 3), np.uint8), "label": np.array([0, 1, -1, 0])}, "got -1 at image 2"),
        ({"image": np.zeros((4, 8, 8, 3), np.uint8), "label": np.array([0, 1, 2**40, 0])}, "at image 2"),
        ({"image": np.array([None]), "label": np.zeros(1, int)}, "'image' holds Python objects"),
    ],
)
def test_bad_npz_is_one_clear_line(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        load_npz(tmp_path / "bad.npz")
    assert "\n" not in str(caught.value)


def test_truncated_npz_is_one_clear_line(tmp_path, cifar_like):
    write_npz(tmp_path / "bad.npz", *cifar_like)
    whole = (tmp_path / "bad.npz").read_bytes()
    for size in (0, 10, 5000, len(whole) - 10):
        (tmp_path / "bad.npz").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"bad\.npz"):
            load_npz(tmp_path / "bad.npz")


def test_digits_are_the_official_ones():
    images, test = DATASETS["digits"](None)
    assert test is None and len(images) == 1797
    assert images.images.min() == 0 and images.images.max() == 255
    assert np.bincount(images.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    pixels = images.images / 255
    assert images.info.mean == pytest.approx((pixels.mean(),), abs=1e-3)
    assert images.info.std == pytest.approx((pixels.std(),), abs=1e-3)


def test_splits_are_disjoint_balanced_and_of_their_seed():
    data = DataConfig(name="digits", train=150, validation=250, test=797)
    splits = load_splits(data)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (150, 250, 797)
    assert np.bincount(splits.train.labels).tolist() == [15] * 10
    everything = DATASETS["digits"](None)[0].images

    def where(part: ImageSet):
        known = {image.tobytes(): i for i, image in enumerate(everything)}
        return {known[image.tobytes()] for image in part.images}

    parts = [where(part) for part in (splits.train, splits.validation, splits.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert np.array_equal(load_splits(data).test.images, splits.test.images)
    other = load_splits(data.model_copy(update={"split_seed": 1}))
    assert not np.array_equal(other.test.images, splits.test.images)
    fewer = load_splits(data.model_copy(update={"train": 50}))
    assert np.array_equal(fewer.test.images, splits.test.images) and where(fewer.train) < parts[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": 5000}, "ask for 5250 images, digits has 1000"),
        ({"test": None}, "no test set of its own"),
        ({"test": 5000}, "no test set of its own"),
        ({"train": 5}, r"no training images of 5 classes \(5, 6, 7, 8, 9\)"),
        ({"name": "kmnist"}, "known: digits, mnist, cifar10"),
    ],
)
def test_impossible_splits_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        load_splits(DataConfig(name="digits", train=150, validation=250, test=797).model_copy(update=changes))


def test_balanced_takes_classes_in_turn_while_they_last():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    assert balanced(labels, 3).tolist() == [0, 4, 6]
    assert balanced(labels, 5).tolist() == [0, 1, 4, 5, 6]
    assert balanced(labels, 6).tolist() == [0, 1, 2, 4, 5, 6]


def test_a_zip_bomb_header_is_one_clear_line(tmp_path):
    """An .npz whose array claims more bytes than it has."""
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 3)})
    body = header.getvalue() + b"\0" * 10
    name = b"image.npy"
    local = struct.pack(
        "<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, zlib.crc32(body), len(body), len(body), len(name), 0
    )
    central = struct.pack(
        "<4s6H3I5H2I",
        b"PK\x01\x02",
        20,
        20,
        0,
        0,
        0,
        0,
        zlib.crc32(body),
        len(body),
        len(body),
        len(name),
        0,
        0,
        0,
        0,
        0,
        0,
    )
    offset = len(local) + len(name) + len(body)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central) + len(name), offset, 0)
    (tmp_path / "bomb.npz").write_bytes(local + name + body + central + name + end)
    with pytest.raises(ValueError, match=r"bomb\.npz"):
        load_npz(tmp_path / "bomb.npz")
