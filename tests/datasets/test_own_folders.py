"""Class folders as people have them: colors, sizes, what systems leave behind, damage."""

import os

import numpy as np
import pytest
from PIL import Image

from conftest import quietly
from robustgen.config.recipe import DataConfig
from robustgen.datasets import load_splits, load_test
from robustgen.datasets.folder import load
from robustgen.datasets.sizes import Reading

RNG = np.random.default_rng(0)


def picture(mode="RGB", size=(8, 8)):
    """An image of noise in a Pillow mode."""
    noise = RNG.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    if mode == "P":
        return Image.fromarray(noise[..., :3]).quantize(16)
    if mode in ("RGBA", "CMYK"):
        return Image.frombytes(mode, size, noise.tobytes())
    return Image.fromarray(noise[..., :3]).convert(mode)


def saved(path, mode="RGB", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture(mode, size)
    image.save(path)
    return image


@pytest.fixture
def animals(tmp_path):
    """Three images of 8x8 in each of two classes."""
    for name in ("cat", "dog"):
        for i in range(3):
            saved(tmp_path / "animals" / name / f"{i}.png")
    return tmp_path / "animals"


def test_images_of_one_kind_are_read_without_a_word(animals):
    found, test = load(animals)
    assert test is None and found.images.shape == (6, 8, 8, 3) and found.notes == ()
    assert np.array_equal(found.images[4], np.asarray(Image.open(animals / "dog/1.png")))


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "LA"])
def test_folders_of_gray_images_are_gray(tmp_path, mode):
    images = [saved(tmp_path / name / f"{i}.png", mode) for name in "ab" for i in range(2)]
    found, _ = load(tmp_path)
    assert found.images.shape == (4, 8, 8, 1)
    if mode == "I;16":
        assert np.array_equal(found.images[0, ..., 0] * 257.0, np.asarray(images[0]).astype(float))
        assert found.notes == (f"{tmp_path}: 4 images of 16 bits were rounded to 8",)
    data = DataConfig(name="folder", path=str(tmp_path), color="rgb", only_test=True)
    rgb, notes = quietly(load_test, data)
    assert np.array_equal(rgb.images, np.repeat(found.images, 3, axis=3)) and "repeating their channel" in notes[-1]


def test_colors_are_brought_together_and_said(animals):
    saved(animals / "cat/gray.png", "L")
    saved(animals / "cat/palette.png", "P")
    saved(animals / "dog/print.jpg", "CMYK")
    transparent = saved(animals / "dog/transparent.png", "RGBA")
    found, _ = load(animals)
    assert found.notes == (
        f"{animals}: 1 CMYK, 1 gray, 1 palette of 10 images became RGB",
        f"{animals}: 1 transparent images were blended over white",
    )
    alpha = np.asarray(transparent)[..., 3:] / 255
    over_white = np.asarray(transparent)[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(found.images[9] - over_white).max() <= 1
    assert np.array_equal(found.images[4], np.asarray(Image.open(animals / "cat/palette.png").convert("RGB")))


def test_an_opaque_alpha_channel_says_nothing(tmp_path):
    for name in "ab":
        image = picture()
        image.putalpha(255)
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "x.png")
    found, _ = load(tmp_path)
    assert found.images.shape == (2, 8, 8, 3) and found.notes == ()


def test_sizes_that_differ_little_are_said_and_much_refused(animals):
    saved(animals / "cat/large.png", size=(20, 15))
    found, _ = load(animals)
    assert found.images.shape == (7, 8, 8, 3)
    assert found.notes == (f"{animals}: images of 8x8 to 20x15 pixels were cropped to a square and brought to 8x8",)
    saved(animals / "dog/tiny.png", size=(9, 7))
    with pytest.raises(ValueError, match=r"dog/tiny\.png has 9x7 pixels, cat/large\.png has 20x15; .*data\.resize=N"):
        load(animals)
    found, _ = load(animals, 16)
    assert found.images.shape == (8, 16, 16, 3) and found.notes == ()


def test_wide_images_are_cropped_and_it_is_said(tmp_path):
    for name in "ab":
        saved(tmp_path / name / "x.png", size=(10, 7))
    found, _ = load(tmp_path)
    assert found.images.shape == (2, 7, 7, 3)
    assert found.notes == (f"{tmp_path}: images of 10x7 pixels were cropped to a square and brought to 7x7",)


def test_damaged_files_are_all_named_and_can_be_left_out(animals):
    (animals / "cat/empty.png").write_bytes(b"")
    (animals / "cat/text.jpg").write_text("no image")
    whole = (animals / "dog/0.png").read_bytes()
    (animals / "dog/cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="3 of 9 files that cannot be read as images") as caught:
        load(animals)
    assert all(name in str(caught.value) for name in ("cat/empty.png", "cat/text.jpg", "dog/cut.png"))
    assert "\n" not in str(caught.value) and "--set data.skip_bad=true" in str(caught.value)
    found, _ = load(animals, None, Reading(skip_bad=True))
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1] and "left out 3 of 9 files" in found.notes[0]
    for i in range(3):
        (animals / f"cat/{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no readable images of cat"):
        load(animals, None, Reading(skip_bad=True))


@pytest.mark.filterwarnings("default::robustgen.storage.files.Note")
def test_the_command_line_skips_bad_files(robustgen, animals, tmp_path):
    (animals / "cat/bad.png").write_bytes(b"")
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))\n"
    )
    words = ("evaluate", "net.py:make", "--test", animals, "--threat", "linf:0.1", "--suite", "quick", "--into", "v")
    code, _, err = robustgen(*words)
    assert code == 2 and "bad.png cannot be read as an image (not an image, or damaged)" in err and err.count("\n") == 1
    code, out, err = robustgen(*words, "--skip-bad")
    assert code == 0 and "note: " in err and "left out 1 of 7 files" in err and "clean" in out


def test_what_systems_leave_behind_is_ignored(animals):
    for name in (".DS_Store", "Thumbs.db", "cat/.DS_Store", "cat/Thumbs.db", "cat/._0.png", "dog/.hidden.png"):
        (animals / name).write_bytes(b"junk")
    (animals / "__MACOSX/cat").mkdir(parents=True)
    (animals / "__MACOSX/cat/._0.png").write_bytes(b"junk")
    (animals / ".git").mkdir()
    (animals / "cat/__MACOSX").mkdir()
    (animals / "cat/__MACOSX/0.png").write_bytes(b"junk")
    found, _ = load(animals)
    assert len(found) == 6 and found.info.classes == ("cat", "dog") and found.notes == ()
    saved(animals / "loose.png")
    assert load(animals)[0].notes == (f"{animals}: 1 images outside the folders of classes are left out",)


def test_names_have_spaces_and_accents_in_either_unicode_form(tmp_path):
    for part, name in (("train", "e\u0301te\u0301 chaud"), ("train", "hiver"), ("test", "\u00e9t\u00e9 chaud")):
        saved(tmp_path / part / name / "an image (1).png")
    train, test = load(tmp_path)
    assert train.info.classes == ("hiver", "été chaud") and test.labels.tolist() == [1]
    assert test.notes == (f"{tmp_path / 'test'} has no images of hiver",)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights elsewhere")
def test_links_are_followed_and_broken_ones_named(animals, tmp_path):
    saved(tmp_path / "elsewhere/more/x.png")
    (animals / "cow").symlink_to(tmp_path / "elsewhere")
    (animals / "cat/linked.png").symlink_to(animals / "dog/0.png")
    (animals / "cat/circle").symlink_to(animals / "cat")
    found, _ = load(animals)
    assert found.info.classes == ("cat", "cow", "dog") and np.bincount(found.labels).tolist() == [4, 1, 3]
    (animals / "cat/gone.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match=r"gone\.png cannot be read as an image \(a broken link\)"):
        load(animals)


def test_trees_have_training_and_test_images(tmp_path):
    for part in ("Train", "valid", "test"):
        for name in ("a", "b"):
            for i in range(4):
                saved(tmp_path / part / name / f"{i}.png")
    train, test = load(tmp_path)
    assert len(train) == 8 and len(test) == 8 and test.origin.endswith("test")
    assert train.notes == (f"{tmp_path / 'valid'} is not used; validation images are drawn from train",)
    splits, _ = quietly(load_splits, DataConfig(name="folder", path=str(tmp_path), validation=2))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (6, 2, 8)
    only, _ = quietly(load_test, DataConfig(name="folder", test_path=str(tmp_path)))
    assert len(only) == 8 and only.origin.endswith("test")


def test_a_folder_of_test_images_alone(tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / "test" / name / "0.png")
    found, test = load(tmp_path)
    assert test is None and found.info.classes == ("a", "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds 0 class folders and 0 images"),
        (("a.png", "b.png"), "0 images in them, and 2 outside of them; expected FOLDER/CLASS"),
        (("only/a.png",), "holds 1 class folders and 1 images in them; expected .* with at least 2 classes"),
        (("a/x.png", "b/x.txt"), "b holds no images"),
        (("train/a/x.png", "train/b/x.png", "test/a/x.png", "test/c/x.png"), "only the second c"),
    ],
)
def test_absurd_folders_are_one_line(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / name, "PNG")
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_pixels_of_floats_are_refused(animals):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(animals / "cat/float.tiff")
    with pytest.raises(ValueError, match=r"float\.tiff cannot be read .*floats of unknown range"):
        load(animals)
