"""Data sets in the layouts in which they are published, written from real images where there are any at hand."""

import gzip
import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from conftest import REPOSITORY, real_data
from robustgen.config.recipe import DataConfig
from robustgen.datasets import DATASETS, load_splits, load_test
from robustgen.datasets.celeba import read_hair
from robustgen.datasets.imagenet64 import read_batch
from robustgen.datasets.mnist import read_idx
from robustgen.datasets.sources import SOURCES
from robustgen.storage.downloads import problem_with

sys.path[:0] = [str(REPOSITORY / "benchmarks")]
from unpack_cifar10 import read_packed  # noqa: E402

RNG = np.random.default_rng(0)


def channels_first(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


@pytest.fixture(scope="module")
def cifar100():
    """5,000 real images of CIFAR-100, 50 a class; which of them are for training is not as published."""
    return read_packed(real_data("cifar100_test5k_own_split.npz"))


def test_cifar100_is_read_from_both_official_versions(tmp_path, cifar100):
    images, labels = cifar100
    coarse = labels // 5
    python, binary = tmp_path / "cifar-100-python", tmp_path / "b" / "cifar-100-binary"
    python.mkdir()
    binary.mkdir(parents=True)
    for part, rows in (("train", slice(0, 4000)), ("test", slice(4000, None))):
        content = {
            b"data": channels_first(images[rows]),
            b"fine_labels": labels[rows].tolist(),
            b"coarse_labels": coarse[rows].tolist(),
            b"filenames": [],
            b"batch_label": b"training batch 1 of 1",
        }
        (python / part).write_bytes(pickle.dumps(content, protocol=2))
        head = np.stack([coarse[rows], labels[rows]], 1).astype(np.uint8)
        (binary / f"{part}.bin").write_bytes(np.concatenate([head, channels_first(images[rows])], 1).tobytes())
    for place in (tmp_path, python, tmp_path / "b"):
        train, test = DATASETS["cifar100"](place)
        assert np.array_equal(train.images, images[:4000]) and np.array_equal(test.images, images[4000:])
        assert np.array_equal(train.labels, labels[:4000]) and np.array_equal(test.labels, labels[4000:])
    assert train.info.classes[0] == "apple" and train.info.classes[99] == "worm"
    pixels = images.reshape(-1, 3) / 255
    assert np.allclose(pixels.mean(0), train.info.mean, atol=0.01)
    assert np.allclose(pixels.std(0), train.info.std, atol=0.01)
    (binary / "train.bin").write_bytes((binary / "train.bin").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"train\.bin is not a whole CIFAR-100 batch.* multiple of 3,074"):
        DATASETS["cifar100"](tmp_path / "b")
    (python / "train").write_bytes(pickle.dumps({b"data": content[b"data"], b"labels": [0] * 1000}))
    with pytest.raises(ValueError, match=r"train is not a CIFAR-100 batch .*fine_labels"):
        DATASETS["cifar100"](tmp_path)


def write_svhn(folder, images, labels, part):
    folder.mkdir(exist_ok=True)
    savemat(
        folder / f"{part}_32x32.mat",
        {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)},
        do_compression=True,
    )


def test_svhn_is_read_and_its_label_10_is_the_digit_0(tmp_path):
    images, labels = RNG.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8), np.arange(30) % 10
    write_svhn(tmp_path, images, labels, "train")
    write_svhn(tmp_path, images[:10], labels[:10], "test")
    train, test = DATASETS["svhn"](tmp_path)
    assert np.array_equal(train.images, images) and np.array_equal(train.labels, labels)
    assert np.array_equal(test.images, images[:10]) and test.labels.tolist() == list(range(10))
    assert train.info.mean == (0.5, 0.5, 0.5)  # as the published weights normalise


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"junk", "cannot be read as a .mat file of SVHN"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "cannot be read .*'y'"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))}, "X must be uint8 .* got float64"),
        ({"X": np.zeros((2, 32, 32, 3), np.uint8), "y": np.ones((2, 1), int)}, "X must be uint8 of shape"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [1]])}, "labels 1..10"),
        ({"X": np.zeros((32, 32, 3, 3), np.uint8), "y": np.array([[1], [1]])}, "one label for each of 3"),
        (None, "no SVHN in .* train_32x32.mat is missing; get it with robustgen fetch svhn"),
    ],
)
def test_a_bad_mat_is_one_clear_line(tmp_path, content, message):
    file = tmp_path / "train_32x32.mat"
    write_svhn(tmp_path, np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2), "test")
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        savemat(file, content)
    with pytest.raises(ValueError, match=message) as caught:
        DATASETS["svhn"](tmp_path)
    assert "\n" not in str(caught.value)


def test_a_truncated_mat_is_one_clear_line(tmp_path):
    images = RNG.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    for part in ("train", "test"):
        write_svhn(tmp_path, images, np.arange(30) % 10, part)
    whole = (tmp_path / "train_32x32.mat").read_bytes()
    for size in (0, 100, 200, 5000, len(whole) - 1):
        (tmp_path / "train_32x32.mat").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"train_32x32\.mat"):
            DATASETS["svhn"](tmp_path)


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def test_mnist_is_read_from_the_original_files(tmp_path):
    images, labels = (real_data(f"mnist_t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    for file in SOURCES["mnist"].files[2:]:
        assert not problem_with(images if "images" in file.name else labels, file.digest)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(images.read_bytes())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(labels.read_bytes())
    real = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(real[:600]))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(600, dtype=np.uint8) % 10)))
    train, test = DATASETS["mnist"](tmp_path)
    assert len(test) == 10_000 and np.array_equal(test.images[..., 0], real)
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.array_equal(train.images[..., 0], real[:600]) and train.labels[:3].tolist() == [0, 1, 2]
    small, _ = DATASETS["mnist"](tmp_path, 14)
    assert small.images.shape == (600, 14, 14, 1) and small.info.shape == (1, 14, 14)
    assert abs(small.images.mean() - train.images.mean()) < 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "not an idx file of unsigned bytes"),
        (idx(np.zeros((3, 4), np.uint8))[:-1], "cut off: 23 bytes do not hold values of shape"),
        (b"\0\0\x08\x03\0\0", "cut off"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "cut off"),
    ],
)
def test_a_bad_idx_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    for name in ("x", "x.gz"):
        with pytest.raises(ValueError, match=message):
            read_idx(tmp_path / name)
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(np.zeros(999, np.uint8)))[:-9])
    with pytest.raises(ValueError, match=r"x\.gz is damaged"):
        read_idx(tmp_path / "x.gz")


@pytest.fixture(scope="module")
def tiny_imagenet(tmp_path_factory):
    """Three real classes in the archive's layout: 20 training and 10 validation images of each, original JPEGs."""
    root = tmp_path_factory.mktemp("ti") / "tiny-imagenet-200"
    wanted = {}
    lines = []
    for part, each in (("train50", 20), ("val_0_9", 10)):
        with np.load(real_data(f"tinyimagenet200_{part}.npz"), allow_pickle=False) as packed:
            blob, offsets, labels = packed["jpeg"], packed["offsets"], packed["labels"]
            names, ids, words = packed["names"], packed["wnids"], packed["words"]
        for label in (3, 77, 150):
            wnid = str(ids[label])
            wanted[wnid] = str(words[label])
            folder = root / "train" / wnid / "images" if part == "train50" else root / "val" / "images"
            folder.mkdir(parents=True, exist_ok=True)
            for row in np.flatnonzero(labels == label)[:each]:
                name = str(names[row]).rpartition("/")[2]
                (folder / name).write_bytes(blob[offsets[row] : offsets[row + 1]].tobytes())
                if part == "val_0_9":
                    lines.append(f"{name}\t{wnid}\t0\t0\t63\t63")
    (root / "wnids.txt").write_text("\n".join(sorted(wanted, reverse=True)) + "\n")
    (root / "words.txt").write_text("".join(f"{wnid}\t{text}\n" for wnid, text in wanted.items()))
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def test_tiny_imagenet_is_read_from_the_archives_folder(tiny_imagenet):
    for place in (tiny_imagenet, tiny_imagenet.parent):
        train, test = DATASETS["tiny-imagenet"](place)
        assert train.images.shape == (60, 64, 64, 3) and np.bincount(train.labels).tolist() == [20, 20, 20]
        assert test.images.shape == (30, 64, 64, 3) and np.bincount(test.labels).tolist() == [10, 10, 10]
    ids = sorted((tiny_imagenet / "wnids.txt").read_text().split())
    words = dict(line.split("\t") for line in (tiny_imagenet / "words.txt").read_text().splitlines())
    assert train.info.classes == tuple(words[wnid].split(",")[0] for wnid in ids)
    first = tiny_imagenet / "train" / ids[1] / "images" / f"{ids[1]}_0.JPEG"
    with Image.open(first) as image:
        assert np.array_equal(train.images[20], np.asarray(image.convert("RGB")))
    last = (tiny_imagenet / "val" / "val_annotations.txt").read_text().splitlines()[-1].split("\t")
    assert ids[test.labels[-1]] == last[1]
    assert np.allclose(train.images.reshape(-1, 3).mean(0) / 255, train.info.mean, atol=0.12)
    small, _ = DATASETS["tiny-imagenet"](tiny_imagenet, 32)
    assert (
        small.info.shape == (3, 32, 32)
        and len(load_test(DataConfig(name="tiny-imagenet", path=str(tiny_imagenet)))) == 30
    )


def test_a_damaged_tiny_imagenet_is_one_clear_line(tiny_imagenet, tmp_path):
    import shutil

    def broken(change):
        place = tmp_path / "broken"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tiny_imagenet, place)
        change(place)
        with pytest.raises(ValueError) as caught:
            DATASETS["tiny-imagenet"](place)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    wnid = (tiny_imagenet / "wnids.txt").read_text().split()[0]
    assert "no TinyImageNet in" in broken(lambda place: (place / "wnids.txt").unlink())
    assert "holds no .JPEG" in broken(lambda place: shutil.rmtree(place / "train" / wnid))
    assert "val_annotations.txt is missing" in broken(lambda place: (place / "val/val_annotations.txt").unlink())
    assert "is damaged: 'x" in broken(lambda place: (place / "val/val_annotations.txt").write_text("x\ty\n"))
    assert "is damaged" in broken(lambda place: (place / "val/val_annotations.txt").write_text(f"../../x\t{wnid}\n"))
    assert "cannot be read as an image" in broken(
        lambda place: (place / f"train/{wnid}/images/{wnid}_3.JPEG").write_bytes(b"\xff\xd8 no")
    )


def test_imagenet64_is_read_from_npz_and_pickled_batches(tmp_path):
    images = RNG.integers(0, 256, (25, 64, 64, 3), dtype=np.uint8)
    labels = RNG.integers(1, 1001, 25)
    for number, rows in ((1, slice(0, 12)), (2, slice(12, 20))):
        np.savez(
            tmp_path / f"train_data_batch_{number}.npz",
            data=channels_first(images[rows]),
            labels=labels[rows],
            mean=np.zeros(12288),
        )
    content = {"data": channels_first(images[20:]), "labels": labels[20:].tolist()}
    (tmp_path / "val_data").write_bytes(pickle.dumps(content))
    train, test = DATASETS["imagenet64"](tmp_path)
    assert np.array_equal(train.images, images[:20]) and np.array_equal(train.labels, labels[:20] - 1)
    assert np.array_equal(test.images, images[20:]) and np.array_equal(test.labels, labels[20:] - 1)
    np.savez(
        tmp_path / "train_data_batch_3.npz", data=np.concatenate([channels_first(images)] * 2), labels=[*labels] * 2
    )
    train, _ = DATASETS["imagenet64"](tmp_path)  # a batch larger than the first
    assert len(train) == 70 and np.array_equal(train.images[45:], images)
    for wrong, message in (
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2]}, r"expected uint8 \(N, 12288\)"),
        ({"data": np.zeros((2, 12288), np.uint8), "labels": [1]}, "one an image"),
        ({"data": np.zeros((1, 12288), np.uint8), "labels": [0]}, r"labels lie in 0\.\.0"),
        ({"data": np.zeros((1, 12288), np.uint8)}, "labels"),
    ):
        np.savez(tmp_path / "bad.npz", **wrong)
        with pytest.raises(ValueError, match=f"not a batch of ImageNet-64 .*{message}"):
            read_batch(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match=r"no ImageNet-64 in .*log in at https://image-net\.org"):
        DATASETS["imagenet64"](tmp_path / "nothing")


ATTRIBUTES = ["Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Smiling"]


def write_celeba(root, rows, parts):
    (root / "img_align_celeba").mkdir(parents=True)
    lines = [str(len(rows)), " ".join(ATTRIBUTES)]
    for number, row in enumerate(rows):
        lines.append(f"{number:06}.jpg  " + "  ".join("1" if name in row else "-1" for name in ATTRIBUTES))
        pixels = np.zeros((218, 178, 3), np.uint8)
        pixels[20:198] = 40 * number  # what the square about the centre holds
        Image.fromarray(pixels).save(root / "img_align_celeba" / f"{number:06}.jpg")
    (root / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (root / "list_eval_partition.txt").write_text("".join(f"{i:06}.jpg {part}\n" for i, part in enumerate(parts)))


def test_celeba_has_one_hair_colour_an_image(tmp_path):
    rows = [
        {"Black_Hair"},
        {"Blond_Hair", "Smiling"},
        {"Brown_Hair", "Gray_Hair"},
        {"Gray_Hair"},
        {"Bald"},
        {"Brown_Hair"},
    ]
    write_celeba(tmp_path, rows, [0, 0, 0, 1, 0, 2])
    assert read_hair(tmp_path / "list_attr_celeba.txt") == {
        "000000.jpg": 0,
        "000001.jpg": 1,
        "000003.jpg": 3,
        "000005.jpg": 2,
    }
    train, test = DATASETS["celeba"](tmp_path)
    assert train.labels.tolist() == [0, 1] and test.labels.tolist() == [3]
    assert train.images.shape == (2, 64, 64, 3) and train.info.classes == ("black", "blond", "brown", "grey")
    assert train.images[0].max() < 5 and abs(train.images[1].astype(int) - 40).max() < 5
    assert abs(test.images[0].astype(int) - 120).max() < 5
    assert DATASETS["celeba"](tmp_path, 32)[0].info.shape == (3, 32, 32)
    (tmp_path / "list_attr_celeba.txt").write_text("1\nBald Smiling\n000000.jpg 1 1\n")
    with pytest.raises(ValueError, match=r"its second line lacks Black_Hair, Blond_Hair"):
        DATASETS["celeba"](tmp_path)
    (tmp_path / "list_attr_celeba.txt").write_text(f"1\n{' '.join(ATTRIBUTES)}\n000000.jpg 1 1\n")
    with pytest.raises(ValueError, match=r"is damaged: 3 values in the line"):
        DATASETS["celeba"](tmp_path)
    (tmp_path / "list_attr_celeba.txt").unlink()
    with pytest.raises(ValueError, match=r"list_attr_celeba\.txt is missing; get it from https://mmlab"):
        DATASETS["celeba"](tmp_path)


def write_animals(root, held_out):
    for part, each in (("train", 3), (held_out, 2)):
        for number, name in enumerate(("cat", "dog", "wild")):
            (root / "afhq" / part / name).mkdir(parents=True)
            for i in range(each):
                image = Image.fromarray(RNG.integers(0, 256, (256, 256, 3), dtype=np.uint8) // (number + 1))
                image.save(root / "afhq" / part / name / f"{i}.jpg")


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_afhq_is_read_from_both_versions_at_the_papers_size(tmp_path, held_out):
    write_animals(tmp_path, held_out)
    train, test = DATASETS["afhq"](tmp_path)
    assert train.images.shape == (9, 224, 224, 3) and len(test) == 6 and train.info.name == "afhq"
    assert train.info.classes == ("cat", "dog", "wild") and train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert DATASETS["afhq"](tmp_path / "afhq", 64)[1].images.shape == (6, 64, 64, 3)
    with pytest.raises(ValueError, match="no AFHQ in"):
        DATASETS["afhq"](tmp_path / "afhq" / "train")


def test_images_are_brought_to_the_size_that_a_recipe_asks_for(tmp_path):
    splits = load_splits(DataConfig(name="digits", train=50, validation=20, test=30, resize=16))
    assert splits.train.info.shape == (1, 16, 16) and splits.test.images.shape == (30, 16, 16, 1)
    same = load_splits(DataConfig(name="digits", train=50, validation=20, test=30))
    assert np.array_equal(splits.train.labels, same.train.labels)
    flat = RNG.integers(0, 256, (4, 1, 1, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", image=np.broadcast_to(flat, (4, 20, 30, 3)), label=np.arange(4))
    images, _ = DATASETS["npz"](tmp_path / "x.npz", 8)
    assert images.images.shape == (4, 8, 8, 3)
    assert np.array_equal(images.images, np.broadcast_to(flat, (4, 8, 8, 3)))  # one colour stays itself


def test_resizing_keeps_the_square_about_the_centre(tmp_path):
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(picture).save(tmp_path / name / "1.png")
    images, _ = DATASETS["folder"](tmp_path, 10)
    assert images.images.shape == (2, 10, 10, 3) and (images.images == 255).all()


@pytest.mark.parametrize("name", [name for name in DATASETS if name in SOURCES and name != "digits"])
def test_what_is_missing_is_said_in_one_line(name, tmp_path):
    with pytest.raises(ValueError, match=r"^no .* expected .* get it|^no .* expected .* take") as caught:
        DATASETS[name](tmp_path)
    assert "\n" not in str(caught.value) and "--set data.path=FOLDER" in str(caught.value)
    assert name in SOURCES


def test_a_malicious_batch_is_refused_unrun(tmp_path, capsys):
    class Malicious:
        def __reduce__(self):
            return (print, ("this ran",))

    for name, folder, files in (
        ("cifar100", "cifar-100-python", ("train", "test")),
        ("imagenet64", ".", ("train_data_batch_1", "val_data")),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / folder / file).write_bytes(pickle.dumps({"data": Malicious()}))
        with pytest.raises(ValueError, match=r"builtins\.print"):
            DATASETS[name](tmp_path)
    objects = io.BytesIO()
    np.savez(objects, data=np.array([Malicious()]), labels=np.array([1]))
    (tmp_path / "train_data_batch_1.npz").write_bytes(objects.getvalue())
    with pytest.raises(ValueError, match="holds Python objects"):
        DATASETS["imagenet64"](tmp_path)
    assert "this ran" not in capsys.readouterr().out
