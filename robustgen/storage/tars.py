"""Archives of others, read without trust: nothing is unpacked to disk, and no member leads out. No torch here."""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path

_LARGEST_PICTURE = 16 * 1024**2
_LARGEST_LABEL = 32


def check_member_names(names: Sequence[str], origin: Path) -> None:
    """Raise ValueError if an archive has a member whose path leads out of it."""
    for name in names:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
            raise ValueError(f"{origin} is refused: it holds {name!r}, a name that leads out of the archive")


def index_tar(path: Path, suffixes: Collection[str]) -> list[tuple[str, int, int, int]]:
    """(name, offset, bytes, label) of each sample of a WebDataset: a picture KEY.png with its label KEY.cls.

    Args:
        suffixes: endings of pictures, in lower case.

    Raises:
        ValueError: damaged, cut off or compressed; a member that is not a regular file or leads out; samples that
            are not pairs.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 512))
        if any(file.read()):
            raise ValueError(f"{path} is cut off, or no plain .tar archive: it has no end")
    pictures: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or millions would stay in memory
                check_member_names([member.name], path)
                if member.isdir():
                    continue
                if not member.isfile() or member.sparse is not None:
                    raise ValueError(f"{path} is refused: {member.name!r} is a link or device, not a regular file")
                folder, _, base = member.name.rpartition("/")
                key, suffix = f"{folder}/{base.partition('.')[0]}", f".{base.partition('.')[2]}".lower()
                if suffix == ".cls":
                    stream = archive.extractfile(member)
                    text = stream.read(_LARGEST_LABEL).strip() if stream else b""
                    if not text.isdigit() or len(text) > 6 or key in labels:
                        raise ValueError(f"{path}: {member.name!r} should hold one class number, got {text[:20]!r}")
                    labels[key] = int(text)
                elif suffix in suffixes:
                    if member.size > _LARGEST_PICTURE or key in pictures:
                        raise ValueError(f"{path}: {member.name!r} is too large for a picture, or not the only one")
                    pictures[key] = (member.name, member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error})") from None
    if odd := pictures.keys() ^ labels.keys():
        raise ValueError(f"{path}: {len(odd)} samples have no picture or no .cls, such as {min(odd).lstrip('/')!r}")
    return [(*picture, labels[key]) for key, picture in pictures.items()]
