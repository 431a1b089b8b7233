"""Sampling a generator into a proxy set, image i from seed i whatever the batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.contracts import GenerativeModel, Progress, silent
from robustgen.images import to_bytes
from robustgen.proxy.store import FORMAT, ProxySet, digest_of, read_array, shard_name
from robustgen.randomness import rng_for
from robustgen.records import write_array
from robustgen.runs import read_json, write_json


def sample_batch(generator: GenerativeModel, ids: np.ndarray, seed: int, device: torch.device | str) -> Tensor:
    """Images number `ids` of a seed, uint8 (n, H, W, C) on the host; image i is of class i mod K."""
    labels = torch.from_numpy(ids % generator.classes).to(device)
    images = generator.sample(labels, rng_for(seed, "sample", device=device).each(ids))
    return to_bytes(images).permute(0, 2, 3, 1).cpu()


def sample_proxies(
    generator: GenerativeModel,
    count: int,
    folder: Path,
    *,
    classes: Sequence[str],
    seed: int = 0,
    batch_size: int = 512,
    shard_images: int = 100_000,
    made_by: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> ProxySet:
    """`count` images, classes in turn, into a folder; finished shards are kept when run again.

    Args:
        classes: names; their number is the generator's.
        batch_size: images in one pass; changes nothing but speed.
        shard_images: images in a file; one shard is what a killed run loses at most.
        made_by: what to write into the manifest about the generator; a half-made set is only taken up again by
            the same.

    Raises:
        ValueError: the folder holds a set, or a part of one, that was made otherwise.
    """
    plan: dict[str, Any] = {
        "format": FORMAT,
        "count": count,
        "shape": list(generator.shape),
        "classes": list(classes),
        "shard_images": shard_images,
        "seed": seed,
        "generator": made_by or {},
    }
    _claim(folder, plan)
    if (folder / "manifest.json").exists():
        return ProxySet(folder)
    shards = []
    for number, first in enumerate(range(0, count, shard_images)):
        ids = np.arange(first, min(first + shard_images, count))
        path = folder / shard_name(number)
        if not _is_whole(path, len(ids), generator.shape):
            channels, height, width = generator.shape
            shard = np.empty((len(ids), height, width, channels), dtype=np.uint8)
            for start in range(0, len(ids), batch_size):
                some = slice(start, start + batch_size)
                shard[some] = sample_batch(generator, ids[some], seed, device).numpy()
                done = first + min(start + batch_size, len(ids))
                progress(done, count, "images")
            write_array(path, shard)
        progress(int(ids[-1]) + 1, count, "images")
        shards.append({"file": path.name, "count": len(ids), "sha256": digest_of(path)})
    condition = np.arange(count) % generator.classes
    write_array(folder / "condition.npy", condition.astype(np.int32))
    manifest = {**plan, "shards": shards, "columns": {"condition": {"what": "the class asked of the generator"}}}
    write_json(folder / "manifest.json", manifest)
    (folder / "plan.json").unlink(missing_ok=True)
    return ProxySet(folder)


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Make the folder this plan's, or make sure that it is."""
    for name in ("manifest.json", "plan.json"):
        if (folder / name).exists():
            found = read_json(folder / name)
            other = [key for key in plan if found.get(key) != plan[key]]
            if other:
                raise ValueError(
                    f"{folder} holds a proxy set made otherwise ({', '.join(other)} differ); choose another folder, "
                    "or remove it"
                )
            return
    write_json(folder / "plan.json", plan)


def _is_whole(path: Path, count: int, shape: tuple[int, int, int]) -> bool:
    if not path.exists():
        return False
    channels, height, width = shape
    return read_array(path, mapped=True).shape == (count, height, width, channels)
