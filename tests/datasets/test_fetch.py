"""Downloads from a server of our own: whole, cut off, changed, wrong, malicious."""

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from robustgen.datasets import sources
from robustgen.datasets.sources import Published
from robustgen.models import catalog
from robustgen.stages import fetch as fetching
from robustgen.storage.downloads import Download, download, problem_with, unpack


class Server(http.server.ThreadingHTTPServer):
    """Files by path; each may be cut off after some bytes, marked with a version, or served in parts."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.version, self.ranges, self.asked = {}, {}, '"1"', True, []
        self.sent = 0

    @property
    def place(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.lstrip("/")
        span = self.headers.get("Range")
        server.asked.append((name, span))
        if name not in server.files:
            self.send_error(404)
            return
        body, kind = server.files[name], "text/html" if name.endswith(".html") else "application/octet-stream"
        start = 0
        if span and server.ranges and self.headers.get("If-Range") == server.version:
            start = int(span.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.version:
            self.send_header("ETag", server.version)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        server.sent += self.wfile.write(body[start : server.cut.pop(name, None)])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def quiet(done, total, name):
    pass


def archive(members, form="tar.gz"):
    """An archive of (name, content) or of ready-made tar members."""
    made = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as content:
            for name, data in members:
                content.writestr(name, data)
        return made.getvalue()
    with tarfile.open(fileobj=made, mode="w:gz") as content:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                content.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                content.addfile(entry, io.BytesIO(member[1]))
    return made.getvalue()


BODY = np.random.default_rng(0).bytes(3_000_000)
DIGEST = f"md5:{hashlib.md5(BODY).hexdigest()}"


def test_a_file_arrives_whole_and_is_not_fetched_again(server, tmp_path):
    server.files["x.bin"] = BODY
    item = Download(f"{server.place}/x.bin", "x.bin", DIGEST)
    told = []
    assert download(item, tmp_path, lambda *news: told.append(news))
    assert (tmp_path / "x.bin").read_bytes() == BODY and [p.name for p in tmp_path.iterdir()] == ["x.bin"]
    assert told[-1] == (len(BODY), len(BODY), "x.bin") and len(told) > 2
    assert not download(item, tmp_path, quiet) and len(server.asked) == 1


def test_a_download_that_was_cut_off_goes_on(server, tmp_path):
    server.files["x.bin"], server.cut["x.bin"] = BODY, 1_234_567
    item = Download(f"{server.place}/x.bin", "x.bin", DIGEST)
    with pytest.raises(ValueError, match=r"was cut off after 1234567 of 3000000 bytes; repeat the command to resume"):
        download(item, tmp_path, quiet)
    assert not (tmp_path / "x.bin").exists()
    assert download(item, tmp_path, quiet) and (tmp_path / "x.bin").read_bytes() == BODY
    assert server.asked[-1] == ("x.bin", "bytes=1234567-") and server.sent == len(BODY)  # not a byte twice


@pytest.mark.parametrize("why", ["another version", "no parts", "no version"])
def test_what_cannot_go_on_begins_anew(server, tmp_path, why):
    server.files["x.bin"], server.cut["x.bin"] = bytes(len(BODY)), 1_000_000
    server.version = "" if why == "no version" else '"0"'
    item = Download(f"{server.place}/x.bin", "x.bin", DIGEST)
    with pytest.raises(ValueError, match="was cut off"):
        download(item, tmp_path, quiet)
    server.files["x.bin"], server.ranges = BODY, why != "no parts"
    server.version = server.version and ('"1"' if why == "another version" else server.version)
    assert download(item, tmp_path, quiet) and (tmp_path / "x.bin").read_bytes() == BODY


def test_a_download_that_was_killed_at_its_end_is_taken_as_it_is(server, tmp_path):
    server.files["x.bin"] = BODY
    (tmp_path / "x.bin.download").write_bytes(BODY)
    (tmp_path / "x.bin.download.etag").write_text(server.version)
    assert download(Download(f"{server.place}/x.bin", "x.bin", DIGEST), tmp_path, quiet)
    assert (tmp_path / "x.bin").read_bytes() == BODY and [p.name for p in tmp_path.iterdir()] == ["x.bin"]
    (tmp_path / "y.bin.download").write_bytes(BODY + b"more")
    (tmp_path / "y.bin.download.etag").write_text(server.version)
    server.files["y.bin"] = BODY
    with pytest.raises(ValueError, match="has changed since the download began"):
        download(Download(f"{server.place}/y.bin", "y.bin"), tmp_path, quiet)
    assert download(Download(f"{server.place}/y.bin", "y.bin"), tmp_path, quiet)


def test_another_file_than_was_published_is_removed(server, tmp_path):
    server.files["x.bin"] = BODY[:-1] + b"?"
    with pytest.raises(
        ValueError, match=rf"is not the published file: it has md5 .*, expected {DIGEST[4:]}; it was removed"
    ):
        download(Download(f"{server.place}/x.bin", "x.bin", DIGEST), tmp_path, quiet)
    assert not list(tmp_path.iterdir())
    (tmp_path / "x.tar.gz").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"x\.tar\.gz is not the published file.*remove it"):
        download(Download(f"{server.place}/x.tar.gz", "x.tar.gz", DIGEST, unpacks="x"), tmp_path, quiet)


def test_digests_may_be_their_first_digits(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert not problem_with(tmp_path / "x", "sha256:ba7816bf") and not problem_with(tmp_path / "x", "")
    assert not problem_with(tmp_path / "x", "md5:900150983cd24fb0d6963f7d28e17f72")
    assert "has sha256 ba7816bf8f01" in problem_with(tmp_path / "x", "sha256:00")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "{}/missing.bin",
            r"cannot be fetched from here \(404 Not Found\); download it on a connected machine and put it at .*x",
        ),
        ("{}/page.html", "answered with a web page, not the file; open it in a browser and put the file at"),
        ("http://127.0.0.1:1/x", r"cannot be fetched from here \(.*Connection refused"),
        ("http://nowhere.invalid/x", r"cannot be fetched from here"),
        ("file:///etc/passwd", "x cannot be fetched automatically; download it by hand and put it at"),
        ("", "x cannot be fetched automatically; download it by hand"),
    ],
)
def test_what_is_out_of_reach_is_said_with_what_to_do(server, tmp_path, url, message):
    server.files["page.html"] = b"<html>Sign in</html>"
    with pytest.raises(ValueError, match=message) as caught:
        download(Download(url.format(server.place), "x"), tmp_path, quiet)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("x*"))


@pytest.mark.parametrize("form", ["tar.gz", "zip"])
def test_archives_are_unpacked_and_then_removed(server, tmp_path, form):
    members = [("set/train/a.txt", b"a" * 10), ("set/test/b.txt", b"b" * 20_000), ("readme", b"hello")]
    server.files["x"] = archive(members, form)
    item = Download(f"{server.place}/x", f"x.{form}", unpacks="set/test")
    assert download(item, tmp_path, quiet)
    for name, data in members:
        assert (tmp_path / name).read_bytes() == data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["readme", "set"]
    assert not download(item, tmp_path, quiet)
    server.files["x"] = archive([("other", b"")], form)
    with pytest.raises(ValueError, match="does not contain set2; it is not the expected archive"):
        download(Download(f"{server.place}/x", "y", unpacks="set2"), tmp_path, quiet)


def link(name, target, kind=tarfile.SYMTYPE):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def zip_link():
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as content:
        entry = zipfile.ZipInfo("set/link")
        entry.external_attr = 0o120777 << 16
        content.writestr(entry, "/etc/passwd")
    return made.getvalue()


def lying_zip():
    """A member whose headers say 10 bytes and which holds ten thousand."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("set/a", b"a" * 10_000)
    return made.getvalue().replace((10_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))


def bomb():
    """A tar that says it holds a terabyte, and goes on with zeros."""
    entry = tarfile.TarInfo("set/huge")
    entry.size = 1 << 40
    return gzip.compress(entry.tobuf() + bytes(1_000_000))


WHOLE = archive([("set/a", BODY[:100_000])])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive([("set/a", b"x"), ("../evil", b"x")]), r"holds '\.\./evil', which leads out of the folder"),
        (archive([("/evil", b"x")]), "holds '/evil', which leads out"),
        (archive([("set/../../evil", b"x")]), "leads out"),
        (archive([("set\\..\\evil", b"x")]), "leads out"),
        (archive([("c:/evil", b"x")]), "leads out"),
        (archive([("../evil", b"x")], "zip"), "leads out"),
        (archive([("/evil", b"x")], "zip"), "leads out"),
        (archive([link("set/l", "/etc/passwd")]), "holds 'set/l', which is not a regular file"),
        (archive([("set/a", b"x"), link("set/h", "set/a", tarfile.LNKTYPE)]), "not a regular file"),
        (archive([link("set/d", "", tarfile.CHRTYPE)]), "not a regular file"),
        (zip_link(), "holds 'set/link', which is not a regular file"),
        (archive([("set/a", bytes(2000)), ("set/b", bytes(99_000))]), "unpacks to more than 100000 bytes"),
        (archive([("set/a", bytes(100_001))], "zip"), "unpacks to more than 100000 bytes"),
        (bomb(), "unpacks to more than 100000 bytes"),
        (lying_zip(), "is damaged"),
        (WHOLE[:-5000], "is damaged"),
        (WHOLE[:50], "is damaged"),
        (archive([("set/a", BODY[:1000])], "zip")[:-30], "is damaged or not an archive"),
        (b"", "is damaged or not an archive"),
        (b"junk" * 1000, "is damaged or not an archive"),
    ],
)
def test_an_archive_that_is_not_right_leaves_nothing(tmp_path, content, message):
    folder = tmp_path / "in" / "folder"
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        unpack(folder / "x", folder, 100_000)
    assert "\n" not in str(caught.value)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [folder / "x"]
    assert [p.name for p in folder.iterdir()] == ["x"]


def test_a_full_disk_while_unpacking_stays_a_full_disk(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(archive([("set/a", b"a")]))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(tmp_path / "x", tmp_path, 100)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.fixture
def robustgen(robustgen, monkeypatch, tmp_path):
    """The command line in an empty folder, with an empty folder of weights."""
    monkeypatch.setenv("ROBUSTGEN_WEIGHTS", str(tmp_path / "weights"))
    return robustgen


@pytest.fixture
def mnist_like(server, monkeypatch):
    """A data set in MNIST's layout, published on our server."""
    files = []
    for part, count in (("train", 40), ("t10k", 20)):
        for name, array in (
            ("images-idx3", np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            ("labels-idx1", np.arange(count, dtype=np.uint8) % 10),
        ):
            body = gzip.compress(
                b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes(), mtime=0
            )
            file = f"{part}-{name}-ubyte.gz"
            server.files[file] = body
            files.append(Download(f"{server.place}/{file}", file, f"sha256:{hashlib.sha256(body).hexdigest()}"))
    monkeypatch.setitem(sources.SOURCES, "mnist", Published("made up", tuple(files)))
    return files


def test_fetched_data_is_where_it_is_looked_for(robustgen, mnist_like, server, tmp_path):
    code, out, _ = robustgen("fetch", "mnist", "--dry-run")
    assert code == 0 and out.count(" -> data/mnist/") == 4 and not (tmp_path / "data").exists()
    code, out, err = robustgen("fetch", "mnist")
    assert code == 0, err
    assert "train-images-idx3-ubyte.gz, " in out and "in data/mnist" in out
    code, out, _ = robustgen("fetch", "mnist")
    assert code == 0 and "data/mnist is already complete" in out and len(server.asked) == 4
    code, out, _ = robustgen("run", "digits-smoke", "--data", "mnist", "--dry-run")
    assert code == 0
    from robustgen.datasets import DATASETS

    assert len(DATASETS["mnist"]()[0]) == 40
    code, out, _ = robustgen("fetch", "mnist", "--check")
    assert code == 0 and out.count("as published") == 4
    file = tmp_path / "data/mnist/t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes() + b"x")
    code, _, err = robustgen("fetch", "mnist", "--check")
    assert code == 2 and "files differ from the published ones: data/mnist/t10k-labels-idx1-ubyte.gz has sha256" in err
    code, _, err = robustgen("fetch", "mnist", "--check", "--into", "elsewhere")
    assert code == 2 and "no files of mnist to compare in elsewhere; digests are published for train-images" in err


def test_fetched_weights_are_where_they_are_looked_for(robustgen, server, monkeypatch, tmp_path):
    name = "cifar10/linf/Wang2023Better_WRN-28-10"
    server.files["w.pt"] = b"weights"
    own = catalog.RELEASES[name]
    from dataclasses import replace

    monkeypatch.setitem(
        catalog.RELEASES, name, replace(own, files=(Download(f"{server.place}/w.pt", own.files[0].name),))
    )
    for asked in ("Wang2023Better_WRN-28-10", f"hub:{name}"):
        code, out, err = robustgen("fetch", asked)
        assert code == 0, err
    assert (tmp_path / "weights" / own.files[0].name).read_bytes() == b"weights"
    assert "no digest of cifar10_linf_wrn28-10.pt is published" in out
    code, out, _ = robustgen("list", "hub")
    assert code == 0 and next(line for line in out.splitlines() if line.endswith("weights here")).startswith(name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fetch nothing", "no published model is called 'nothing'; known: "),
        ("fetch nothing", "it is not a dataset or feature network either: cifar10, cifar100"),
        ("fetch celeba", "celeba cannot be fetched: agree to its terms at https://mmlab.ie.cuhk.edu.hk"),
        ("fetch imagenet64 --into x", "val_data.npz there: x"),
        ("fetch svhn/linf/Wang2023Better_WRN-28-10", "cannot be fetched: ask its authors (arXiv:2302.04638)"),
        ("fetch", "Missing argument"),
        ("fetch afhq --check", "no digests are published for it"),
    ],
)
def test_mistakes_are_one_clear_line(robustgen, line, message):
    code, out, err = robustgen(*line.split())
    assert code == 2 and message in err and "Traceback" not in out + err
    assert err.startswith("robustgen: ") and err.count("\n") == 1


def test_every_source_says_what_it_is_and_how_to_get_it():
    for name, source in sources.SOURCES.items():
        assert source.about and bool(source.files) != bool(source.by_hand), name
        for file in source.files:
            assert file.url.startswith(("https://", "http://")) and "/" not in file.name
        for digest in [*(file.digest for file in source.files if file.digest), *(d for _, d in source.checked)]:
            kind, _, digits = digest.partition(":")
            assert len(digits) == {"md5": 32, "sha256": 64}[kind] and int(digits, 16) >= 0
        assert fetching.planned_downloads(fetching.find_downloads(name))
