"""`.npz` with `image` uint8 (N, H, W, C) and `label` integers (N,), in one file or in several parts.

DeepMind (arXiv:2103.01946) and Wang et al. (arXiv:2302.04638) publish their sets in this format. A stored member is
memory-mapped inside the archive; a deflated one is streamed. Nothing is unpickled, and sizes in headers are not
trusted.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.proxy.formats.source import BLOCK, ExportedImages, Format, PublishedSet, checked_labels, numbered
from robustgen.storage.arrays import DAMAGE, read_header
from robustgen.storage.files import atomic_write
from robustgen.storage.tars import check_member_names
from robustgen.units import show_names

BOMB = 200
"""Maximal compression ratio of a deflated member. Pictures have 2 to 5; zeros 1,000."""


@dataclass(frozen=True)
class _Member:
    """The header of an array in an archive."""

    path: Path
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype
    skip: int
    """Bytes of the `.npy` header."""


def _damaged(path: Path, error: Exception) -> ValueError:
    if isinstance(error, OSError) and error.errno is not None:
        return ValueError(f"cannot read {path}: {error.strerror}")
    return ValueError(f"{path} is damaged or cut off ({error or type(error).__name__})")


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> _Member:
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise ValueError(f"{path}: {name!r} is encrypted, or compressed in a way that NumPy does not write")
    # Sorted labels have any compression ratio; their number is compared with that of the images.
    if name == "image" and info.file_size > BOMB * max(1, info.compress_size):
        raise ValueError(
            f"{path} is refused: {name!r} would grow {info.file_size // max(1, info.compress_size)}-fold to "
            f"{info.file_size:,} bytes, as decompression bombs do"
        )
    with archive.open(info) as file:
        try:
            shape, fortran, dtype = read_header(file)
        except ValueError as error:
            raise ValueError(f"{path}: {name!r} is not an array that can be read ({error})") from None
        skip = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{path} is refused: {name!r} holds Python objects, which would have to be unpickled")
    if fortran and len(shape) > 1:
        raise ValueError(f"{path}: {name!r} is in Fortran order; save it by np.ascontiguousarray")
    if skip + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"{path} is refused: {name!r} says it is {dtype} {shape}, but holds {info.file_size:,} bytes")
    return _Member(path, info, shape, dtype, skip)


def _open(path: Path) -> tuple[_Member, np.ndarray]:
    """The member with the images, and the labels."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            check_member_names(names, path)
            if not {"image.npy", "label.npy"} <= set(names) or len(set(names)) < len(names):
                raise ValueError(f"{path}: expected arrays 'image' and 'label', got {show_names(names) or 'none'}")
            images, labels = _member(path, archive, "image"), _member(path, archive, "label")
            if images.dtype != np.uint8 or len(images.shape) not in (3, 4) or min(images.shape) < 1:
                raise ValueError(f"{path}: 'image' must be uint8 (N, H, W, C), got {images.dtype} {images.shape}")
            if len(images.shape) == 4 and images.shape[3] not in (1, 3):
                advice = "; move its channels to the end" if images.shape[1] in (1, 3) else ""
                raise ValueError(f"{path}: 'image' must have 1 or 3 channels, got shape {images.shape}{advice}")
            if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
                raise ValueError(
                    f"{path}: 'label' must be {images.shape[0]} integers, got {labels.dtype} {labels.shape}"
                )
            with archive.open(labels.info) as file:
                file.read(labels.skip)
                found = np.frombuffer(file.read(), dtype=labels.dtype)
            return images, checked_labels(found, images.shape[0], path)
    except DAMAGE as error:
        raise _damaged(path, error) from None


def _rows(member: _Member, first: int) -> Iterator[np.ndarray]:
    """(n, bytes per image) from image `first` on. The whole member is read, so that its checksum is verified."""
    count, size = member.shape[0], math.prod(member.shape[1:])
    blocks = _stored if member.info.compress_type == zipfile.ZIP_STORED else _deflated
    start = 0
    for rows in blocks(member, count, size):
        start += len(rows)
        if start > first:
            yield rows[first - start :] if start - first < len(rows) else rows


def _stored(member: _Member, count: int, size: int) -> Iterator[np.ndarray]:
    """Rows of a stored member, memory-mapped inside the archive."""
    with member.path.open("rb") as file:
        file.seek(member.info.header_offset)
        name, extra = struct.unpack("<26x2H", file.read(30))
        file.seek(name + extra, 1)
        summed = zlib.crc32(file.read(member.skip))
        offset = file.tell()
    try:
        mapped = np.memmap(member.path, np.uint8, "r", offset, (count, size)).view(np.ndarray)
    except (ValueError, OSError) as error:
        raise ValueError(f"{member.path} is damaged or cut off ({error})") from None
    for start in range(0, count, BLOCK):
        rows = mapped[start : start + BLOCK]
        summed = zlib.crc32(rows.reshape(-1).data, summed)
        if start + BLOCK >= count and summed != member.info.CRC:
            raise ValueError(f"{member.path} is damaged: its checksum is wrong; download it again")
        yield rows


def _deflated(member: _Member, count: int, size: int) -> Iterator[np.ndarray]:
    """Rows of a deflated member, as a stream."""
    try:
        with zipfile.ZipFile(member.path) as archive, archive.open(member.info) as file:
            file.read(member.skip)
            for start in range(0, count, BLOCK):
                wanted = min(BLOCK, count - start)
                content = file.read(wanted * size)
                if len(content) < wanted * size:
                    raise ValueError(f"{member.path} is cut off at image {start + len(content) // size} of {count}")
                if start + wanted == count:
                    file.read(1)  # makes zipfile verify the checksum
                yield np.frombuffer(content, np.uint8).reshape(wanted, size)
    except DAMAGE as error:
        raise _damaged(member.path, error) from None


def read(paths: Sequence[Path]) -> PublishedSet:
    """The parts, in the order given, as one set."""
    parts = [_open(path) for path in paths]
    shape = parts[0][0].shape[1:]
    for member, _ in parts[1:]:
        if member.shape[1:] != shape:
            raise ValueError(f"{member.path} holds images of shape {member.shape[1:]}, {paths[0]} of shape {shape}")
    labels = np.concatenate([labels for _, labels in parts])
    height, width, *channels = shape
    found = (height, width, *(channels or [1]))

    def blocks(first: int) -> Iterator[np.ndarray]:
        for member, _ in parts:
            if first < member.shape[0]:
                for rows in _rows(member, max(0, first)):
                    yield rows.reshape(len(rows), *found)
            first -= member.shape[0]

    return PublishedSet((found[0], found[1], found[2]), labels, numbered(labels), blocks)


def write(path: Path, export: ExportedImages) -> None:
    """`image` and `label` (int64), stored; equal images give equal bytes."""
    count = len(export.labels)

    def member(
        archive: zipfile.ZipFile, name: str, dtype: Any, shape: tuple[int, ...], parts: Callable[[], Any]
    ) -> None:
        with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts():
                file.write(np.ascontiguousarray(part, dtype=dtype).reshape(-1).view(np.uint8).data)

    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        member(archive, "image", np.uint8, (count, *export.shape), export.blocks)
        member(archive, "label", np.int64, (count,), lambda: [export.labels])


def fits(paths: Sequence[Path]) -> bool:
    return all(path.suffix == ".npz" for path in paths)


FORMAT = Format(fits, read, write)
