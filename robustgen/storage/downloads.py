"""Published files: downloads that resume, are verified, and are unpacked safely. No torch here."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from robustgen.storage.files import writing_to

DownloadProgress = Callable[[int, int, str], None]
"""Called with bytes done, total bytes (0 if unknown), and the name of the file."""

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60


def weights_folder() -> Path:
    """The folder of published weights: $ROBUSTGEN_WEIGHTS, or ~/.cache/robustgen."""
    return Path(os.environ.get("ROBUSTGEN_WEIGHTS") or Path.home() / ".cache" / "robustgen")


@dataclass(frozen=True)
class Download:
    """A published file.

    url      its address
    name     its name in the folder it is saved to
    digest   "md5:..." or "sha256:...", in full or its first digits; empty if none was published
    unpacks  for an archive: a path that exists once it has been unpacked; empty for other files
    limit    largest number of bytes that an archive may unpack to
    """

    url: str
    name: str
    digest: str = ""
    unpacks: str = ""
    limit: int = 1 << 34

    @property
    def leaves(self) -> str:
        """The path in the folder that shows that it has been fetched."""
        return self.unpacks or self.name


def problem_with(path: Path, digest: str) -> str:
    """The error in a file's digest, as part of a sentence; empty if it is right or unknown."""
    if not digest:
        return ""
    kind, _, wanted = digest.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    return "" if found.startswith(wanted) else f"has {kind} {found}, expected {wanted}"


def download(item: Download, folder: Path, progress: DownloadProgress) -> bool:
    """Download a file into a folder, and unpack it if it is an archive; returns False when it exists already.

    An interrupted download resumes where it stopped, if the server supports that and the file is still the same.

    Raises:
        ValueError: the file cannot be reached, is cut off, or is not the published one; says what to do.
    """
    if (folder / item.leaves).exists():
        return False
    target = folder / item.name
    if not target.exists():
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{item.name}.download"
        _receive(item, part, target, progress)
        if wrong := problem_with(part, item.digest):
            part.unlink()
            _validator_of(part).unlink(missing_ok=True)
            raise ValueError(f"{item.url} is not the published file: it {wrong}; it was removed")
        part.replace(target)
        _validator_of(part).unlink(missing_ok=True)
    elif wrong := problem_with(target, item.digest):
        raise ValueError(f"{target} is not the published file: it {wrong}; remove it and repeat the command")
    if item.unpacks:
        unpack(target, folder, item.limit)
        if not (folder / item.unpacks).exists():
            raise ValueError(f"{target} does not contain {item.unpacks}; it is not the expected archive; remove it")
        target.unlink()
    return True


def _validator_of(part: Path) -> Path:
    """The file that holds the server's tag of the version that `part` belongs to."""
    return part.with_name(part.name + ".etag")


def _receive(item: Download, part: Path, target: Path, progress: DownloadProgress) -> None:
    """Download a file into `part`, resuming at its end."""
    if not item.url.startswith(("https://", "http://")):
        raise ValueError(f"{item.name} cannot be fetched automatically; download it by hand and put it at {target}")
    validator = _validator_of(part)
    have = part.stat().st_size if part.exists() and validator.exists() else 0
    headers = {"User-Agent": "robustgen", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator.read_text()}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(item.url, headers=headers), timeout=_TIMEOUT_SECONDS
        ) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise ValueError(
                    f"{item.url} answered with a web page, not the file; open it in a browser and put the file "
                    f"at {target}"
                )
            if not _continues(answer, have):
                have = 0
                part.unlink(missing_ok=True)
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else 0
            with writing_to(target, total or None):
                if version := answer.headers.get("ETag") or answer.headers.get("Last-Modified"):
                    validator.write_text(version)
                else:
                    validator.unlink(missing_ok=True)  # versions cannot be distinguished: restart next time
                file = part.open("ab" if have else "wb", buffering=0)
            with file:
                while chunk := answer.read(_CHUNK):
                    with writing_to(target, total or None):
                        have += _write_all(file, chunk)
                    progress(have, total, item.name)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the server has nothing left to send
            if error.headers.get("Content-Range", "") == f"bytes */{have}":
                return
            part.unlink()
            raise ValueError(f"{item.url} has changed since the download began; repeat the command") from None
        raise ValueError(_advice(item, target, f"{error.code} {error.reason}")) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise ValueError(_advice(item, target, str(getattr(error, "reason", error)) or type(error).__name__)) from None
    if total and have < total:
        raise ValueError(f"{item.url} was cut off after {have} of {total} bytes; repeat the command to resume")


def _write_all(file: IO[bytes], content: bytes) -> int:
    """Write to an unbuffered file, which may accept only a part if the disk is nearly full."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    return len(content)


def _continues(answer: http.client.HTTPResponse, have: int) -> bool:
    """Whether the server sends the bytes after the first `have`, and not the whole file."""
    if not have:
        return False
    span = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return answer.status == 206 and span is not None and int(span[1]) == have


def _advice(item: Download, target: Path, reason: str) -> str:
    return (
        f"{item.url} cannot be fetched from here ({reason}); download it on a connected machine and put it at {target}"
        ", then repeat the command"
    )


def unpack(archive: Path, folder: Path, limit: int) -> None:
    """Unpack a `.zip`, `.tar` or `.tar.gz` into a folder: regular files only, all of them or none.

    Raises:
        ValueError: the archive is damaged, holds more than `limit` bytes, a link or a device, or a path that leads
            out of the folder.
    """
    aside = folder / f".unpacking-{archive.name}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        room = limit
        for name, size, source in _members(archive):
            inside = PurePosixPath(name)
            if inside.is_absolute() or ".." in inside.parts or "\\" in name or ":" in name or not inside.parts:
                raise ValueError(f"{archive} holds {name!r}, which leads out of the folder; it was not unpacked")
            room -= size
            if room < 0:
                raise ValueError(f"{archive} unpacks to more than {limit} bytes; it was not unpacked")
            place = aside / inside
            with writing_to(folder / inside, size):
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
            if place.stat().st_size != size:
                raise ValueError(f"{archive} is damaged: {name} is not {size} bytes long")
        with writing_to(folder):
            for made in sorted(aside.iterdir()) if aside.exists() else []:
                if (folder / made.name).is_dir():
                    shutil.copytree(made, folder / made.name, dirs_exist_ok=True)
                else:
                    made.replace(folder / made.name)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:  # a full disk, not gzip's error about damaged data
            raise
        raise ValueError(
            f"{archive} is damaged or not an archive ({error}); remove it and repeat the command"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """(name, bytes, content) of each file of an archive, without folders."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            for entry in content.infolist():
                kind = (entry.external_attr >> 28) & 0xF  # of a Unix file mode: 4 a folder, 8 a file; 0 elsewhere
                if kind not in (0, 4, 8):
                    raise ValueError(
                        f"{archive} holds {entry.filename!r}, which is not a regular file; it was not unpacked"
                    )
                if not entry.is_dir():
                    with content.open(entry) as inside:
                        yield entry.filename, entry.file_size, inside
        return
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if not member.isfile() and not member.isdir():
                raise ValueError(f"{archive} holds {member.name!r}, which is not a regular file; it was not unpacked")
            source = tar.extractfile(member)
            if source is not None:
                yield member.name, member.size, source
