"""Merge several proxy sets into one, in given proportions."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.contracts import Progress, silent
from robustgen.proxy.filtering import uniform_scores
from robustgen.proxy.ranking import top_per_class
from robustgen.proxy.store import (
    MANIFEST_FORMAT,
    ProxySet,
    chunks,
    class_counts,
    ensure_plan,
    shard_name,
    write_rows,
)
from robustgen.storage.files import atomic_write, write_json


def per_class_of(available: Sequence[np.ndarray], shares: Sequence[float], names: Sequence[str]) -> list[int]:
    """Number of images per class from each set: the most that the shares allow, the same for every class.

    Args:
        available: (K,) counts of usable images, for each set.
        names: of the sets, for the message.

    Raises:
        ValueError: a class of a set has too few images to select even one.
    """
    scarcest = [int(counts.min()) for counts in available]
    unit = min(count / share for count, share in zip(scarcest, shares, strict=True))
    given = [int(share * unit + 1e-9) for share in shares]
    for name, counts, number in zip(names, available, given, strict=True):
        if not number:
            poorest = int(counts.argmin())
            raise ValueError(
                f"these shares select no image per class from {name}, whose class {poorest} has "
                f"{counts[poorest]}; change the shares, or sample more"
            )
    return given


def merge(
    sets: Sequence[ProxySet], shares: Sequence[float], folder: Path, *, seed: int = 0, progress: Progress = silent
) -> ProxySet:
    """Merge all images of several sets into a new one; `kept` marks a class-balanced selection in the given shares.

    Shards are hard links to those of the sets, which can then be removed, or copies if links are not possible. Columns
    that all sets have are concatenated; `source` is the set that an image comes from. From the kept images of each set
    as many are selected as the shares allow, by a random number per image.

    Raises:
        ValueError: sets of other shapes or classes, sets without labels, or too few images for the shares.
    """
    if len(sets) < 2 or len(sets) != len(shares) or min(shares) <= 0 or not np.isfinite(shares).all():
        raise ValueError(f"expected two sets or more and a positive share for each, got {len(sets)} and {list(shares)}")
    first = sets[0]
    for other in sets[1:]:
        if other.shape != first.shape or other.classes != first.classes:
            raise ValueError(
                f"{other.folder} holds {other.shape} images of {len(other.classes)} classes, {first.folder} "
                f"{first.shape} of {len(first.classes)}, or classes of other names; they cannot be merged"
            )
    plan: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "count": sum(map(len, sets)),
        "shape": list(first.shape),
        "classes": list(first.classes),
        "seed": seed,
        "generator": {
            "kind": "merged",
            "shares": list(shares),
            "sets": [{"generator": s.manifest.get("generator", {}), "count": len(s)} for s in sets],
        },
        "shards": [
            {**entry, "file": shard_name(number)}
            for number, entry in enumerate(entry for s in sets for entry in s.manifest["shards"])
        ],
    }
    labels = [s.column("label") for s in sets]
    among = [s.column("kept") if "kept" in s.columns else None for s in sets]
    classes = len(first.classes)
    counts = [class_counts(label, classes, used) for label, used in zip(labels, among, strict=True)]
    given = per_class_of(counts, shares, [str(s.folder) for s in sets])
    ensure_plan(folder, plan)
    if (folder / "manifest.json").exists():
        return ProxySet(folder)
    kept = [
        top_per_class(label, uniform_scores(s, "merge", seed, number), each, classes, used)
        for number, (s, label, used, each) in enumerate(zip(sets, labels, among, given, strict=True))
    ]
    number = 0
    for s in sets:
        for entry in s.manifest["shards"]:
            _link(s.folder / entry["file"], folder / shard_name(number))
            number += 1
            progress(number, len(plan["shards"]), "shards")
    common = [name for name in first.columns if name not in ("kept", "copy") and all(s.has(name) for s in sets)]
    columns: dict[str, Any] = {name: [s.manifest["columns"][name] for s in sets] for name in common}
    for name in common:
        values = [s.column(name) for s in sets]
        parts = (part[some] for part in values for some in chunks(len(part)))
        write_rows(folder / f"{name}.npy", np.result_type(*values), (plan["count"],), parts)
    source = (np.full(len(s), which, dtype=np.int32) for which, s in enumerate(sets))
    write_rows(folder / "source.npy", np.int32, (plan["count"],), source)
    write_rows(folder / "kept.npy", bool, (plan["count"],), kept)
    columns["source"] = {"what": "which of the merged sets an image is from"}
    columns["kept"] = {"what": "used for training", "rule": "shares", "per_class": given}
    found = {
        "label": np.sum([class_counts(label, classes) for label in labels], axis=0).tolist(),
        "kept": [sum(given)] * classes,
    }
    write_json(folder / "manifest.json", {**plan, "columns": columns, "counts": found})
    (folder / "plan.json").unlink(missing_ok=True)
    return ProxySet(folder)


def _link(old: Path, new: Path) -> None:
    if new.exists() and new.stat().st_size == old.stat().st_size:
        return
    new.unlink(missing_ok=True)
    try:
        os.link(old, new)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        with old.open("rb") as source, atomic_write(new) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
