"""Import of published sets as proxy sets, and export of proxy sets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.contracts import Progress, silent
from robustgen.proxy.formats import FORMATS, ExportedImages, PublishedSet
from robustgen.proxy.formats.source import BLOCK
from robustgen.proxy.store import (
    MANIFEST_FORMAT,
    ProxySet,
    class_counts,
    digest_of,
    ensure_plan,
    read_array,
    shard_name,
    write_rows,
)
from robustgen.storage.files import write_json


def open_source(paths: Sequence[Path], format: str) -> PublishedSet:
    """Open files of a named format without reading their pixels.

    Raises:
        ValueError: unknown format, or files that do not fit it.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    if not paths:
        raise ValueError("no files to import; pass at least one")
    return FORMATS[format].read(paths)


def import_proxies(
    source: PublishedSet,
    folder: Path,
    *,
    made_by: dict[str, Any],
    shard_images: int = 100_000,
    progress: Progress = silent,
) -> ProxySet:
    """Import a published set as a proxy set: its images in shards, its labels as the columns `condition` and `label`.

    `condition` keeps the published labels when another labeler replaces `label`. A repeated call keeps finished shards.
    If the files are damaged, the shards written from them are removed.

    Raises:
        ValueError: damaged files, too little disk space, or a folder that holds something else.
    """
    height, width, channels = source.shape
    count, size = len(source.labels), height * width * channels
    plan: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "count": count,
        "shape": [channels, height, width],
        "classes": list(source.classes),
        "shard_images": shard_images,
        "generator": made_by,
    }
    ensure_plan(folder, plan)
    if (folder / "manifest.json").exists():
        return ProxySet(folder)
    starts = list(range(0, count, shard_images))
    names = [folder / shard_name(number) for number in range(len(starts))]
    whole = [
        _is_whole(path, min(shard_images, count - first), source) for path, first in zip(names, starts, strict=True)
    ]
    shards: list[dict[str, Any]] = []
    try:
        _check_room(
            folder, size * sum(min(shard_images, count - f) for f, w in zip(starts, whole, strict=True) if not w)
        )
        cut: _Cut | None = None
        for path, first, done in zip(names, starts, whole, strict=True):
            number = min(shard_images, count - first)
            if done:
                shards.append({"file": path.name, "count": number, "sha256": digest_of(path)})
                cut = None
                continue
            cut = cut or _Cut(source.blocks(first), source.shape)
            reported = _reporting(cut.take(number), first, count, progress)
            digest = write_rows(path, np.uint8, (number, height, width, channels), reported)
            shards.append({"file": path.name, "count": number, "sha256": digest})
    except ValueError:
        for path in (*names, folder / "plan.json"):
            path.unlink(missing_ok=True)
        raise
    published = {"what": "the label that the set was published with"}
    for name in ("condition", "label"):
        write_rows(folder / f"{name}.npy", np.int32, (count,), [source.labels])
    columns = {"condition": published, "label": published}
    counts = class_counts(source.labels, len(source.classes)).tolist()
    manifest = {**plan, "shards": shards, "columns": columns, "counts": {"condition": counts, "label": counts}}
    write_json(folder / "manifest.json", manifest)
    (folder / "plan.json").unlink(missing_ok=True)
    return ProxySet(folder)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"the images need {needed:,} bytes in {folder}, but {free:,} are free; make room on the disk")


def _is_whole(path: Path, count: int, source: PublishedSet) -> bool:
    return path.exists() and read_array(path, mapped=True).shape == (count, *source.shape)


def _reporting(parts: Iterator[np.ndarray], first: int, count: int, progress: Progress) -> Iterator[np.ndarray]:
    for part in parts:
        yield part
        first += len(part)
        progress(first, count, "images")


class _Cut:
    """Blocks of any size, divided again at the ends of shards."""

    def __init__(self, blocks: Iterator[np.ndarray], shape: tuple[int, int, int]):
        self.blocks, self.rest = blocks, np.empty((0, *shape), dtype=np.uint8)

    def take(self, count: int) -> Iterator[np.ndarray]:
        while count:
            if not len(self.rest):
                self.rest = next(self.blocks)
            part, self.rest = self.rest[:count], self.rest[count:]
            count -= len(part)
            yield part


def export_proxies(proxies: ProxySet, path: Path, format: str, *, kept: bool, progress: Progress = silent) -> int:
    """Write a set, or its kept images, as a file or folder for other programs; returns the number of images.

    Labels are `label`, or the condition label if the set is not labeled.

    Raises:
        ValueError: the format is read-only, no images to write, or `path` exists.
    """
    write = FORMATS[format].write
    if write is None:
        able = ", ".join(name for name, member in FORMATS.items() if member.write)
        raise ValueError(f"format {format} is only read; write one of: {able}")
    if path.exists():
        raise ValueError(f"{path} exists; remove it, or choose another place with --into")
    rows = proxies.kept() if kept else None
    count = len(proxies) if rows is None else len(rows)
    if not count:
        raise ValueError(f"proxy set {proxies.folder} keeps no image; run: robustgen keep {proxies.folder}")
    labels = proxies.column("label" if proxies.has("label") else "condition")
    channels, height, width = proxies.shape

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, count, BLOCK):
            stop = min(first + BLOCK, count)
            yield proxies.block(first, stop) if rows is None else proxies.images(rows[first:stop])
            progress(stop, count, "images")

    chosen = labels if rows is None else labels[rows]
    write(path, ExportedImages((height, width, channels), chosen, proxies.classes, blocks))
    return count
