"""Every format in which sets are published: a file in its exact layout comes in, a bad one leaves nothing behind."""

import io
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from robustgen import cli
from robustgen.proxy import exchange
from robustgen.proxy.exchange import export_proxies, import_proxies, open_source
from robustgen.proxy.formats import FORMATS, format_of
from robustgen.proxy.formats.folder import folder_names
from robustgen.proxy.store import ProxySet
from robustgen.storage.files import read_json

COUNT, CLASSES = 60, 4
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
LABELS = np.sort(np.arange(COUNT) % CLASSES)  # as published: one class after the other


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def add(archive, name, content, kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    archive.addfile(member, io.BytesIO(content))


def write_npz(folder):
    np.savez(folder / "set.npz", image=IMAGES, label=LABELS)
    return [folder / "set.npz"]


def write_binary(folder):
    (folder / "cifar_sorted_images.bin").write_bytes(IMAGES.tobytes())
    np.save(folder / "cifar_sorted_labels.npy", LABELS)
    return [folder / "cifar_sorted_images.bin"]


def write_pickle(folder):
    content = {"data": IMAGES, "extrapolated_targets": LABELS, "prediction_model": "wrn", "prediction_model_epoch": 199}
    (folder / "ti.pickle").write_bytes(pickle.dumps(content))
    return [folder / "ti.pickle"]


def write_folder(folder):
    for number, (pixels, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        place = folder / "pictures" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}.png").write_bytes(png(pixels))
    return [folder / "pictures"]


def write_webdataset(folder):
    with tarfile.open(folder / "set-000.tar", "w") as archive:
        for number, (pixels, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
            add(archive, f"{number:06d}.cls", str(label).encode())
            add(archive, f"{number:06d}.png", png(pixels))
    return [folder / "set-000.tar"]


WRITERS = {
    "npz": write_npz,
    "binary": write_binary,
    "pickle": write_pickle,
    "webdataset": write_webdataset,
    "folder": write_folder,
}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def bring_in(paths, folder, **options):
    name = format_of(paths)
    return import_proxies(open_source(paths, name), folder, made_by={"format": name}, **options)


@pytest.fixture
def robustgen(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["robustgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


@pytest.mark.parametrize("name", FORMATS)
def test_a_published_set_comes_in_whole(name, tmp_path, robustgen):
    paths = WRITERS[name](tmp_path)
    code, out, err = robustgen("import", *paths, "--into", tmp_path / "p", "--shard-images", 25)
    assert code == 0, err
    assert f"60 images of 4 classes (format {name}, by the name)" in out
    proxies = ProxySet(tmp_path / "p")
    assert proxies.shape == (3, 32, 32) and proxies.classes == ("0", "1", "2", "3")
    assert np.array_equal(proxies.images(np.arange(COUNT)), IMAGES)
    assert np.array_equal(proxies.column("label"), LABELS) and np.array_equal(proxies.column("condition"), LABELS)
    assert proxies.manifest["counts"]["label"] == [15] * 4 and len(proxies.manifest["shards"]) == 3
    proxies.verify()
    before = contents(tmp_path / "p")
    assert robustgen("import", *paths, "--into", tmp_path / "p", "--shard-images", 25)[0] == 0
    assert contents(tmp_path / "p") == before
    code, _, err = robustgen("import", *paths, "--into", tmp_path / "p", "--shard-images", 20)
    assert code == 2 and "shard_images: stored 25, requested 20" in err


@pytest.mark.parametrize("name", FORMATS)
def test_an_import_broken_off_and_repeated_gives_the_same_bytes(name, tmp_path, monkeypatch):
    paths = WRITERS[name](tmp_path)
    whole = bring_in(paths, tmp_path / "whole", shard_images=16)
    written = exchange.write_rows
    left = [2]

    def dies(path, *arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return written(path, *arguments)

    monkeypatch.setattr(exchange, "write_rows", dies)
    with pytest.raises(KeyboardInterrupt):
        bring_in(paths, tmp_path / "again", shard_images=16)
    monkeypatch.undo()
    assert (tmp_path / "again" / "images-00001.npy").exists()
    (tmp_path / "again" / "images-00000.npy").unlink()
    bring_in(paths, tmp_path / "again", shard_images=16)
    assert contents(tmp_path / "again") == contents(whole.folder)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 1])


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_file_is_refused_and_leaves_nothing(name, tmp_path, robustgen):
    paths = WRITERS[name](tmp_path)
    cut(sorted(paths[0].rglob("*.png"))[40] if paths[0].is_dir() else paths[0])
    refused(robustgen, tmp_path, paths, "")


def refused(robustgen, folder, paths, message):
    code, out, err = robustgen("import", *paths, "--into", folder / "p", "--shard-images", 25)
    assert code == 2, out + err
    assert message in err and err.startswith("robustgen: ") and err.count("\n") == 1 and "Traceback" not in err
    assert not (folder / "p").exists()


class Runs:
    """Its pickle would run code."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (open, (str(self.place), "w"))


def archive_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return [path]


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def claiming(shape, dtype="|u1"):
    """The header of an array of that shape with nothing behind it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_pickles_run_nothing(tmp_path, robustgen):
    (tmp_path / "ti.pickle").write_bytes(pickle.dumps({"data": Runs(tmp_path / "ran")}))
    refused(robustgen, tmp_path, [tmp_path / "ti.pickle"], "open, which plain image data does not need")
    assert not (tmp_path / "ran").exists()
    objects = np.array([Runs(tmp_path / "ran")] * 3, dtype=object)
    np.savez(tmp_path / "set.npz", image=objects, label=np.arange(3))
    refused(robustgen, tmp_path, [tmp_path / "set.npz"], "holds Python objects, which would have to be unpickled")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "x_images.bin").write_bytes(IMAGES[:3].tobytes())
    np.save(tmp_path / "x_labels.npy", objects)
    refused(robustgen, tmp_path, [tmp_path / "x_images.bin"], "x_labels.npy is missing or damaged")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../image.npy", "a/../../x.npy", "/etc/x.npy", "..\\x.npy"])
def test_names_that_lead_out_of_an_archive_are_refused(name, tmp_path, robustgen):
    paths = archive_of(tmp_path / "x.npz", {"image.npy": npy(IMAGES), "label.npy": npy(LABELS), name: b""})
    refused(robustgen, tmp_path, paths, "a name that leads out of the archive")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "0.png", png(IMAGES[0]))
        add(archive, "0.cls", b"0")
        add(archive, name, b"x")
    refused(robustgen, tmp_path, [tmp_path / "x.tar"], "a name that leads out of the archive")


def test_bombs_are_refused_before_they_unpack(tmp_path, robustgen):
    members = {"image.npy": npy(np.zeros((2000, 32, 32, 3), np.uint8)), "label.npy": npy(np.zeros(2000, np.int64))}
    paths = archive_of(tmp_path / "zeros.npz", members, zipfile.ZIP_DEFLATED)
    refused(robustgen, tmp_path, paths, "as decompression bombs do")
    lies = {"image.npy": claiming((10**9, 32, 32, 3)), "label.npy": npy(LABELS)}
    refused(
        robustgen, tmp_path, archive_of(tmp_path / "lies.npz", lies), "says it is uint8 (1000000000, 32, 32, 3), but"
    )
    lies = {"image.npy": npy(IMAGES), "label.npy": claiming((10**12,), "<i8")}
    refused(robustgen, tmp_path, archive_of(tmp_path / "lies.npz", lies), "but holds 128 bytes")
    wide = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(wide, "PNG")
    (tmp_path / "wide" / "0").mkdir(parents=True)
    (tmp_path / "wide" / "0" / "0.png").write_bytes(wide.getvalue())
    refused(robustgen, tmp_path, [tmp_path / "wide"], "cannot be used")
    (tmp_path / "x_images.bin").touch()
    with (tmp_path / "x_images.bin").open("r+b") as file:
        file.truncate(3072 * 10**9)
    with (tmp_path / "x_labels.npy").open("wb") as labels:
        labels.write(claiming((10**9,)))
    refused(robustgen, tmp_path, [tmp_path / "x_images.bin"], "x_labels.npy is missing or damaged")


def test_more_than_the_disk_holds_is_refused(tmp_path, robustgen, monkeypatch):
    paths = write_npz(tmp_path)
    free = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(exchange.shutil, "disk_usage", lambda place: free)
    refused(robustgen, tmp_path, paths, "but 1,000 are free")


def test_links_and_devices_in_archives_are_refused(tmp_path, robustgen):
    for kind, link in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "0.png"), (tarfile.CHRTYPE, "")):
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            add(archive, "0.png", b"", kind, link)
        refused(robustgen, tmp_path, [tmp_path / "x.tar"], "is a link or device, not a regular file")


@pytest.mark.parametrize("name", FORMATS)
def test_whatever_is_in_a_file_it_is_used_or_refused(name, tmp_path):
    """Bytes changed at random, in headers above all: an import succeeds, or is a ValueError."""
    paths = WRITERS[name](tmp_path)
    file = sorted(paths[0].rglob("*.png"))[0] if paths[0].is_dir() else paths[0]
    whole = file.read_bytes()
    draw = np.random.default_rng(0)
    refusals = 0
    for turn in range(60):
        content = bytearray(whole)
        for _ in range(draw.integers(1, 4)):
            near_an_end = int(draw.integers(0, 600)) * (1 if turn % 2 else -1) % len(content)
            content[near_an_end] = int(draw.integers(0, 256))
        file.write_bytes(content)
        try:
            source = open_source(paths, name)
            for _ in source.blocks(0):
                pass
        except ValueError as error:
            refusals += 1
            assert str(file) in str(error) or paths[0].is_dir()
    assert refusals or name == "binary"


def test_one_wrong_byte_is_found(tmp_path, robustgen):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        members = {"image.npy": npy(IMAGES), "label.npy": npy(LABELS)}
        paths = archive_of(tmp_path / "x.npz", members, compression)
        content = bytearray(paths[0].read_bytes())
        content[100_000] ^= 1
        paths[0].write_bytes(content)
        refused(robustgen, tmp_path, paths, "is damaged")


def test_what_does_not_fit_is_said(tmp_path, robustgen):
    def one(message, **arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        refused(robustgen, tmp_path, [tmp_path / "x.npz"], message)

    one("expected arrays 'image' and 'label', got x.npy", x=IMAGES)
    one("must be uint8 (N, H, W, C), got float32", image=IMAGES.astype(np.float32), label=LABELS)
    one("move its channels to the end", image=IMAGES.transpose(0, 3, 1, 2).copy(), label=LABELS)
    one("is in Fortran order", image=np.asfortranarray(IMAGES), label=LABELS)
    one("'label' must be 60 integers", image=IMAGES, label=LABELS[:-1])
    one("'label' must be 60 integers, got float64", image=IMAGES, label=LABELS / 2)
    one("labels must lie in 0..999999, got -1", image=IMAGES, label=LABELS - 1)
    (tmp_path / "y.pickle").write_bytes(pickle.dumps({"extrapolated_targets": LABELS}))
    refused(robustgen, tmp_path, [tmp_path / "y.pickle"], "has to be merged with its images first")
    (tmp_path / "z_images.bin").write_bytes(IMAGES.tobytes())
    np.save(tmp_path / "z_labels.npy", LABELS[:-1])
    refused(robustgen, tmp_path, [tmp_path / "z_images.bin"], "expected one label for each of 60 images")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "0.png", png(IMAGES[0]))
    refused(robustgen, tmp_path, [tmp_path / "x.tar"], "1 samples have no picture or no .cls, such as '0'")
    refused(robustgen, tmp_path, ["x.xyz"], "pass --format NAME; known: npz, binary, pickle, webdataset, folder")
    code, _, err = robustgen("import", tmp_path / "x.npz", "--into", tmp_path / "p", "--format", "hdf5")
    assert code == 2 and "unknown format 'hdf5'; known: npz, binary" in err


def test_pictures_of_several_sizes_are_refused(tmp_path, robustgen):
    paths = write_folder(tmp_path)
    (paths[0] / "3" / "last.png").write_bytes(png(IMAGES[0][:16]))
    refused(robustgen, tmp_path, paths, "its shape is (16, 32, 3), that of the first image (32, 32, 3)")
    (paths[0] / "3" / "last.png").unlink()
    (paths[0] / "4").mkdir()
    refused(robustgen, tmp_path, paths, "4 is empty")


def test_parts_deflated_or_stored_are_one_set(tmp_path):
    np.savez(tmp_path / "50m_part1.npz", image=IMAGES[:20], label=LABELS[:20])
    np.savez_compressed(tmp_path / "50m_part2.npz", image=IMAGES[20:33], label=LABELS[20:33].astype(np.int32))
    np.savez(tmp_path / "50m_part3.npz", image=IMAGES[33:], label=LABELS[33:])
    parts = [tmp_path / f"50m_part{k}.npz" for k in (1, 2, 3)]
    proxies = bring_in(parts, tmp_path / "p", shard_images=7)
    assert np.array_equal(proxies.block(0, COUNT), IMAGES) and np.array_equal(proxies.column("label"), LABELS)
    sorted_labels = np.sort(np.arange(20_000) % 10)
    images = rng.integers(0, 256, (20_000, 2, 2, 1), dtype=np.uint8)
    np.savez_compressed(tmp_path / "sorted.npz", image=images, label=sorted_labels)
    assert np.array_equal(open_source([tmp_path / "sorted.npz"], "npz").labels, sorted_labels)
    np.savez(tmp_path / "50m_part3.npz", image=IMAGES[33:, :16], label=LABELS[33:])
    with pytest.raises(ValueError, match=r"part3\.npz holds images of shape \(16, 32, 3\)"):
        open_source(parts, "npz")


def test_a_stored_set_is_not_read_into_memory(tmp_path):
    """3 GB of zeros, sparse on disk: only what is looked at is read."""
    count = 1_000_000
    header, labels = claiming((count, 32, 32, 3)), npy(np.zeros(count, np.int8))
    path = tmp_path / "1m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("label.npy", labels)
        archive.writestr("image.npy", header)
    content = bytearray(path.read_bytes())
    size = len(header) + count * 3072
    for mark, place in ((b"PK\x03\x04", 18), (b"PK\x01\x02", 20)):  # both headers of the image member
        at = content.rfind(mark)
        content[at + place : at + place + 8] = size.to_bytes(4, "little") * 2
    directory = content.find(b"PK\x01\x02")
    end = content.rfind(b"PK\x05\x06")
    content[end + 16 : end + 20] = (directory + count * 3072).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(content[:directory])
        file.seek(count * 3072, 1)
        file.write(content[directory:])
    source = open_source([path], "npz")
    assert len(source.labels) == count
    assert not next(source.blocks(0)).any()


@pytest.mark.parametrize("name", [name for name, member in FORMATS.items() if member.write])
def test_what_is_exported_comes_in_again(name, tmp_path, robustgen):
    proxies = bring_in(write_npz(tmp_path), tmp_path / "p", shard_images=25)
    kept = np.zeros(COUNT, dtype=bool)
    kept[[0, 3, 20, 31, 45, 59]] = True
    proxies.add_columns({}, kept=kept)
    for rows, options in ((np.arange(COUNT), []), (np.flatnonzero(kept), ["--kept"])):
        into = tmp_path / f"out{len(rows)}{'.npz' if name == 'npz' else ''}"
        code, out, err = robustgen("export", tmp_path / "p", "--into", into, *options)
        assert code == 0 and f"{len(rows)} images" in out, err
        again = bring_in([into], tmp_path / f"again{len(rows)}")
        assert np.array_equal(again.block(0, len(again)), IMAGES[rows])
        assert np.array_equal(again.column("label"), LABELS[rows])
        code, _, err = robustgen("export", tmp_path / "p", "--into", into, *options)
        assert code == 2 and "exists; remove it" in err
    other = tmp_path / f"copy{'.npz' if name == 'npz' else ''}"
    export_proxies(proxies, other, name, kept=False)
    first = tmp_path / f"out60{'.npz' if name == 'npz' else ''}"
    assert everything_in(other) == everything_in(first)


def everything_in(path):
    if path.is_file():
        return path.read_bytes()
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*.png"))}


def test_an_exported_npz_is_what_others_load(tmp_path):
    proxies = bring_in(write_pickle(tmp_path), tmp_path / "p")
    export_proxies(proxies, tmp_path / "out.npz", "npz", kept=False)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as stored:
        assert stored["image"].dtype == np.uint8 and stored["label"].dtype == np.int64
        assert np.array_equal(stored["image"], IMAGES) and np.array_equal(stored["label"], LABELS)
    with pytest.raises(ValueError, match="format pickle is only read; write one of: npz, folder"):
        export_proxies(proxies, tmp_path / "x", "pickle", kept=False)


def test_an_export_that_dies_leaves_nothing_under_its_name(tmp_path):
    proxies = bring_in(write_npz(tmp_path), tmp_path / "p")

    def dies(done, total, unit, note=""):
        raise KeyboardInterrupt

    for name, into in (("npz", "out.npz"), ("folder", "out")):
        with pytest.raises(KeyboardInterrupt):
            export_proxies(proxies, tmp_path / into, name, kept=False, progress=dies)
        assert not (tmp_path / into).exists() and not list(tmp_path.glob(".out*"))


def test_class_folders_sort_as_their_classes():
    for classes in (("cat", "dog"), ("dog", "cat"), tuple(map(str, range(12))), ("a/b", "..", "c")):
        names = folder_names(classes)
        assert names == sorted(names) and len(set(names)) == len(classes)
        assert not any("/" in name or name[0] == "." for name in names)
    assert folder_names(("dog", "cat")) == ["0-dog", "1-cat"]


def test_grey_pictures_keep_one_channel(tmp_path):
    for number in range(4):
        place = tmp_path / "grey" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(png(IMAGES[number, :, :, 0]))
    proxies = bring_in([tmp_path / "grey"], tmp_path / "p")
    assert proxies.shape == (1, 32, 32) and proxies.classes == ("a", "b")
    assert np.array_equal(proxies.block(0, 4)[..., 0], IMAGES[[0, 2, 1, 3], :, :, 0])
    assert read_json(tmp_path / "p" / "manifest.json")["generator"] == {"format": "folder"}
