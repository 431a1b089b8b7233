"""WebDataset archives and folders of Hugging Face datasets as training and test images."""

import importlib.util
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from conftest import quietly
from robustgen.config.recipe import DataConfig
from robustgen.datasets import load_splits, load_test

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
_PACKAGE = importlib.util.find_spec("datasets")
HAS_DATASETS = _PACKAGE is not None and _PACKAGE.origin is not None  # without it this folder passes for a package
with_datasets = pytest.mark.skipif(
    not HAS_DATASETS, reason="needs the package datasets: pip install robustgen[datasets]"
)


def encoded(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def archive(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(rows):
    for i in rows:
        yield f"{i:04d}.png", encoded(PIXELS[i])
        yield f"{i:04d}.cls", str(LABELS[i]).encode()


def test_an_archive_is_judged_whole_in_its_order(tmp_path):
    path = archive(tmp_path / "a.tar", samples([5, 3, 11, 0]))
    for data in (DataConfig(name="webdataset", path=str(path)), DataConfig(test_path=str(path))):
        found, notes = quietly(load_test, data)
        assert np.array_equal(found.images, PIXELS[[5, 3, 11, 0]]) and found.labels.tolist() == [2, 0, 2, 0]
        assert not notes and found.numbered


def test_a_folder_of_archives_has_training_and_test_images(tmp_path):
    archive(tmp_path / "train-0000.tar", samples(range(6)))
    archive(tmp_path / "train-0001.tar", samples(range(6, 9)))
    archive(tmp_path / "test-0000.tar", samples(range(9, 12)))
    splits, _ = quietly(load_splits, DataConfig(name="webdataset", path=str(tmp_path), validation=2))
    assert (len(splits.train), len(splits.validation)) == (7, 2) and np.array_equal(splits.test.images, PIXELS[9:])
    assert splits.test.labels.tolist() == [0, 1, 2]


def test_archives_hold_pictures_of_any_kind(tmp_path):
    members = [*samples([0, 1]), ("x/gray.jpg", encoded(PIXELS[2, ..., 0], "JPEG")), ("x/gray.cls", b"2")]
    found, notes = quietly(load_test, DataConfig(test_path=str(archive(tmp_path / "a.tar", members))))
    assert found.images.shape == (3, 8, 8, 3) and "1 gray of 3 images became RGB" in notes[0]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", b"junk"), ("a.cls", b"1")], r"a\.png cannot be read as an image \(not an image, or damaged\)"),
        ([("a.png", encoded(PIXELS[0]))], "1 samples have no picture or no .cls"),
        ([("a.png", encoded(PIXELS[0])), ("a.cls", b"cat")], "should hold one class number, got b'cat'"),
        ([("../a.png", encoded(PIXELS[0])), ("../a.cls", b"1")], "a name that leads out of the archive"),
        ([("readme.txt", b"hello")], "holds no pictures with a .cls"),
    ],
)
def test_bad_archives_are_one_line(tmp_path, members, message):
    path = archive(tmp_path / "bad.tar", members)
    with pytest.raises(ValueError, match=message) as caught:
        load_test(DataConfig(test_path=str(path)))
    assert "\n" not in str(caught.value) and "bad.tar" in str(caught.value)


def test_bad_pictures_of_an_archive_can_be_skipped(tmp_path):
    path = archive(tmp_path / "a.tar", [*samples(range(6)), ("x.png", b"junk"), ("x.cls", b"1")])
    found, notes = quietly(load_test, DataConfig(test_path=str(path), skip_bad=True))
    assert len(found) == 6 and "left out 1 of 7 files" in notes[0]


def test_no_files_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for data, message in (
        (DataConfig(name="webdataset"), "needs its archive"),
        (DataConfig(name="webdataset", path=str(tmp_path / "no.tar")), "there is no file"),
        (DataConfig(name="webdataset", path=str(tmp_path / "empty")), r"no \.tar archives in"),
        (DataConfig(name="hf-data"), "needs its folder"),
        (DataConfig(name="hf-data", path=str(tmp_path / "no")), "there is no folder"),
        (DataConfig(test_path=str(tmp_path / "empty")), "0 class folders"),
    ):
        with pytest.raises(ValueError, match=message):
            load_test(data)
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"cannot tell what images .*x\.csv holds; expected an \.npz"):
        load_test(DataConfig(test_path=str(tmp_path / "x.csv")))


@pytest.mark.skipif(HAS_DATASETS, reason="the package datasets is installed")
def test_without_the_package_it_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"needs the package datasets; install it with pip install 'robustgen\[data"):
        load_test(DataConfig(name="hf-data", path=str(tmp_path)))


def table(rows, **columns):
    """A table with pictures as Hugging Face's image data sets have them."""
    import datasets

    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine": datasets.ClassLabel(names=["ant", "bee", "cow"]),
            "note": datasets.Value("string"),
        }
    )
    content = {
        "img": [{"bytes": encoded(PIXELS[i]), "path": None} for i in rows],
        "fine": LABELS[rows].tolist(),
        "note": ["x"] * len(rows),
    }
    return datasets.Dataset.from_dict(content | columns, features=features)


@with_datasets
def test_a_saved_table_is_judged_whole_in_its_order(tmp_path):
    table([5, 3, 11, 0]).save_to_disk(str(tmp_path / "t"))
    for data in (DataConfig(name="hf-data", path=str(tmp_path / "t")), DataConfig(test_path=str(tmp_path / "t"))):
        found, notes = quietly(load_test, data)
        assert np.array_equal(found.images, PIXELS[[5, 3, 11, 0]]) and found.labels.tolist() == [2, 0, 2, 0]
        assert found.info.classes == ("ant", "bee", "cow") and not notes


@with_datasets
def test_saved_splits_are_training_and_test_images(tmp_path):
    import datasets

    parts = {"train": table([*range(9), *range(9)]), "validation": table([8]), "test": table([9, 10, 11])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "d"))
    splits, notes = quietly(load_splits, DataConfig(name="hf-data", path=str(tmp_path / "d"), validation=2))
    assert np.array_equal(splits.test.images, PIXELS[9:]) and len(splits.train) == 16
    assert "the splits validation are not used" in notes[0]
    only, _ = quietly(load_test, DataConfig(test_path=str(tmp_path / "d")))
    assert np.array_equal(only.images, PIXELS[9:])


@with_datasets
def test_columns_of_numbers_are_arrays(tmp_path):
    import datasets

    floats = np.random.default_rng(1).uniform(0, 1, (6, 4, 4)).astype(np.float32)
    features = datasets.Features({"x": datasets.Array2D((4, 4), "float32"), "kind": datasets.Value("string")})
    kinds = ["b", "a"] * 3
    datasets.Dataset.from_dict({"x": floats, "kind": kinds}, features=features).save_to_disk(str(tmp_path / "t"))
    with pytest.raises(ValueError, match=r"no column is known to be the labels: it has x, kind; .*--label-key"):
        load_test(DataConfig(test_path=str(tmp_path / "t")))
    found, notes = quietly(load_test, DataConfig(test_path=str(tmp_path / "t"), label_key="kind"))
    assert found.is_float and np.array_equal(found.images[..., 0], floats)
    assert found.labels.tolist() == [1, 0] * 3 and len(notes) == 2
    with pytest.raises(ValueError, match="has no column 'y'; it has: x, kind"):
        load_test(DataConfig(test_path=str(tmp_path / "t"), label_key="y"))


@with_datasets
def test_bad_tables_are_one_line(tmp_path):
    bad = [{"bytes": b"junk", "path": None}, {"bytes": encoded(PIXELS[1]), "path": None}]
    table([0, 1], img=bad).save_to_disk(str(tmp_path / "t"))
    with pytest.raises(ValueError, match="row 0 cannot be read as an image"):
        load_test(DataConfig(test_path=str(tmp_path / "t")))
    table([0, 1], fine=[-1, 1]).save_to_disk(str(tmp_path / "u"))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, got -1 at image 0"):
        load_test(DataConfig(test_path=str(tmp_path / "u")))
    (tmp_path / "v").mkdir()
    (tmp_path / "v/dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read as a folder of save_to_disk") as caught:
        load_test(DataConfig(test_path=str(tmp_path / "v")))
    assert "\n" not in str(caught.value)
