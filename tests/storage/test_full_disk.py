"""Writes that fail: one line with the place and the bytes needed, nothing half-written, and the work goes on later."""

import errno
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robustgen.proxy.formats import folder as picture_folder
from robustgen.proxy.formats.npz import write as write_npz
from robustgen.proxy.formats.source import ExportedImages
from robustgen.proxy.store import write_rows
from robustgen.runtime.errors import describe_error
from robustgen.runtime.trackers import JsonLines, read_lines
from robustgen.storage import files
from robustgen.storage.arrays import save_arrays, write_array
from robustgen.storage.checkpoints import load_checkpoint, save_checkpoint
from robustgen.storage.files import WriteError, atomic_write, locked, write_json
from robustgen.storage.weights import save_weights

REASONS = {
    errno.ENOSPC: "free disk space and run the command again to resume",
    errno.EDQUOT: "free disk space and run the command again to resume",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that can be written",
    errno.ENOENT: "restore the folder and repeat the command",
}


def network():
    torch.manual_seed(0)
    return nn.Linear(64, 64)


def picture(path):
    with atomic_write(path) as file:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(file, format="png")


def exported(path):
    images = np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8, 1)
    write_npz(
        path, ExportedImages((8, 8, 1), np.zeros(20, dtype=np.int64), ("a",), lambda: iter([images[:10], images[10:]]))
    )


WRITERS = {
    "c.pt": lambda path: save_checkpoint(path, {"step": 3}, model=network()),
    "w.safetensors": lambda path: save_weights(path, network()),
    "a.npz": lambda path: save_arrays(path, {"x": np.arange(999.0), "y": np.zeros(9)}),
    "a.npy": lambda path: write_array(path, np.arange(999.0)),
    "rows.npy": lambda path: write_rows(path, np.uint8, (900, 4), [np.ones((450, 4)), np.zeros((450, 4))]),
    "a.json": lambda path: write_json(path, list(range(500))),
    "a.png": picture,
    "set.npz": exported,
}
"""A write of every kind, by the name of its file."""


class FailingFile(io.RawIOBase):
    """Takes some bytes, then fails as a disk does: at once, or in the middle of a block."""

    def __init__(self, file, room, number):
        self.file, self.room, self.number = file, room, number

    def writable(self):
        return True

    def write(self, content):
        taken = memoryview(content).cast("B")[: self.room]
        if not len(taken):
            raise OSError(self.number, "the disk's words")
        self.room -= len(taken)
        return self.file.write(taken)

    def seekable(self):
        return True

    def seek(self, place, whence=0):
        return self.file.seek(place, whence)

    def tell(self):
        return self.file.tell()

    def close(self):
        self.file.close()
        super().close()


@pytest.fixture
def disk(monkeypatch):
    """Makes every file fail after some bytes; with None, none any more."""
    whole = files._create

    def fail(room, number=errno.ENOSPC):
        def create(path):
            if room is None:
                return whole(path)
            if room < 0:
                raise OSError(number, "the disk's words", str(path))
            return io.BufferedWriter(FailingFile(io.FileIO(path, "w"), room, number))

        monkeypatch.setattr(files, "_create", create)

    return fail


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("room", [-1, 0, 700])
def test_every_write_says_the_place_and_the_bytes_and_leaves_the_old_file(tmp_path, disk, name, room):
    path = tmp_path / name
    WRITERS[name](path)
    before, size = path.read_bytes(), path.stat().st_size
    assert size > 700
    disk(room)
    with pytest.raises(WriteError) as caught:
        WRITERS[name](path)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    text = describe_error(caught.value)
    assert text.startswith(f"cannot write {path}, which takes {size:,} bytes: the disk's words (") and "\n" not in text
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    disk(None)
    WRITERS[name](path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("number", REASONS)
def test_the_advice_fits_the_reason(tmp_path, disk, number):
    disk(100, number)
    with pytest.raises(WriteError) as caught:
        save_checkpoint(tmp_path / "c.pt", {}, model=network())
    text = describe_error(caught.value)
    assert "the disk's words" in text and text.endswith(f"; {REASONS[number]}"), text
    assert ("are free" in text) == (number == errno.ENOSPC)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_checkpoint_of_before(tmp_path, disk):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"step": 1}, model=network())
    disk(2000)
    with pytest.raises(WriteError, match=r"c\.pt"):
        save_checkpoint(path, {"step": 2}, model=network())
    assert load_checkpoint(path, model=network()) == {"step": 1}


def test_an_error_of_the_writer_itself_is_not_taken_for_the_disks(tmp_path):
    with pytest.raises(RuntimeError, match="ours"), atomic_write(tmp_path / "a") as file:
        file.write(b"half")
        raise RuntimeError("ours")
    with pytest.raises(OSError, match=r"other\.txt") as caught, atomic_write(tmp_path / "a") as file:
        (tmp_path / "other.txt").read_bytes()
    assert not isinstance(caught.value, WriteError) and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for write in (lambda: write_json(tmp_path / "file" / "a.json", 1), lambda: locked(tmp_path / "file").__enter__()):
        with pytest.raises(WriteError) as caught:
            write()
        assert describe_error(caught.value).startswith(f"cannot write {tmp_path / 'file'}")


def test_a_log_on_a_full_disk(tmp_path, monkeypatch):
    log = JsonLines(tmp_path / "progress.jsonl")
    log.log(1, {"loss": 1.0})
    log._file.close()
    log._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    with pytest.raises(WriteError) as caught:
        log.log(2, {"loss": 1.0})
    assert describe_error(caught.value).startswith(f"cannot write {tmp_path / 'progress.jsonl'}: No space left")
    log.close()
    assert read_lines(tmp_path / "progress.jsonl") == [{"step": 1, "loss": 1.0}]


def test_pictures_on_a_full_disk_leave_no_folder(tmp_path, monkeypatch):
    written = []

    def write_bytes(path, content):
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", write_bytes)
    images = np.zeros((5, 8, 8, 1), dtype=np.uint8)
    with pytest.raises(WriteError) as caught:
        picture_folder.write(
            tmp_path / "out", ExportedImages((8, 8, 1), np.zeros(5, int), ("a",), lambda: iter([images]))
        )
    assert describe_error(caught.value).startswith(f"cannot write {tmp_path / 'out'}")
    assert not list(tmp_path.iterdir())


def test_a_lock_needs_no_room_for_its_note(tmp_path, monkeypatch):
    """A finished run can be read again on a full disk: the number of the process in the lock is a courtesy."""

    def full(descriptor, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "write", full)
    with locked(tmp_path):
        pass
