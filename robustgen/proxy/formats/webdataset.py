"""WebDataset: `.tar` archives of samples, a picture KEY.png with its label KEY.cls.

Nothing is unpacked to disk: labels are read in one pass, pictures then where they lie in the archives.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from robustgen.proxy.formats.pictures import MOST_BYTES, SUFFIXES, decode
from robustgen.proxy.formats.source import BLOCK, Format, Source, check_member_names, checked_labels, numbered

_LARGEST_LABEL = 32


def _index(path: Path) -> list[tuple[str, int, int, int]]:
    """(name, offset, bytes, label) of each sample, in the archive's order.

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
                elif suffix in SUFFIXES:
                    if member.size > MOST_BYTES or key in pictures:
                        raise ValueError(f"{path}: {member.name!r} is too large for a picture, or not the only one")
                    pictures[key] = (member.name, member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error})") from None
    if odd := pictures.keys() ^ labels.keys():
        raise ValueError(f"{path}: {len(odd)} samples have no picture or no .cls, such as {min(odd).lstrip('/')!r}")
    return [(*picture, labels[key]) for key, picture in pictures.items()]


def read(paths: Sequence[Path]) -> Source:
    """The archives, in the order given, as one set."""
    samples = [(path, *sample) for path in paths for sample in _index(path)]
    if not samples:
        raise ValueError(f"{paths[0]} holds no pictures with a .cls of the same name")
    labels = checked_labels(np.array([sample[4] for sample in samples], dtype=np.int64), len(samples), paths[0])

    def picture(place: int, shape: tuple[int, int, int] | None = None) -> np.ndarray:
        path, name, offset, size, _ = samples[place]
        with path.open("rb") as file:
            file.seek(offset)
            return decode(io.BytesIO(file.read(size)), f"{path}: {name!r}", shape)

    height, width, channels = picture(0).shape

    def blocks(first: int) -> Iterator[np.ndarray]:
        for start in range(first, len(samples), BLOCK):
            places = range(start, min(start + BLOCK, len(samples)))
            yield np.stack([picture(place, (height, width, channels)) for place in places])

    return Source((height, width, channels), labels, numbered(labels), blocks)


def fits(paths: Sequence[Path]) -> bool:
    return all(path.suffix == ".tar" for path in paths)


FORMAT = Format(fits, read)
