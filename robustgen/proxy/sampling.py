"""Sample a generator into a proxy set: image i depends only on the seed and i, not on batches or processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.contracts import Progress, silent
from robustgen.generators.contracts import Generator
from robustgen.images import to_bytes
from robustgen.proxy.store import (
    MANIFEST_FORMAT,
    ProxySet,
    digest_of,
    ensure_plan,
    read_array,
    shard_name,
    write_rows,
)
from robustgen.randomness import rng_for
from robustgen.runtime import distributed
from robustgen.runtime.precision import autocast
from robustgen.storage.arrays import write_array
from robustgen.storage.files import write_json


def sample_batch(
    generator: Generator, ids: np.ndarray, seed: int, device: torch.device | str, precision: str = "float32"
) -> Tensor:
    """Images with the numbers `ids` of a seed, uint8 (n, H, W, C) on the host; image i is of class i mod K."""
    labels = torch.from_numpy(ids % generator.classes).to(device)
    with autocast(precision, device):
        images = generator.sample(labels, rng_for(seed, "sample", device=device).each(ids))
    return to_bytes(images.float() if precision == "bfloat16" else images).permute(0, 2, 3, 1).cpu()


def sample_proxies(
    generator: Generator,
    count: int,
    folder: Path,
    *,
    classes: Sequence[str],
    seed: int = 0,
    batch_size: int = 512,
    shard_images: int = 100_000,
    made_by: dict[str, Any] | None = None,
    precision: str = "float32",
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> ProxySet:
    """Sample `count` images, classes in turn, into a folder; a repeated call keeps finished shards.

    A shard is written while the next is sampled. Under torchrun, process r of P samples shards r, r + P, r + 2P ...

    Args:
        classes: names of the generator's classes.
        batch_size: images per forward pass; only changes the speed.
        shard_images: images per file; a killed run loses at most one shard.
        made_by: description of the generator for the manifest; only the same generator resumes an unfinished set.
        precision: float32 or bfloat16, of the generator's networks.

    Raises:
        ValueError: the folder holds a set, or a part of one, with other settings.
    """
    plan: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "count": count,
        "shape": list(generator.shape),
        "classes": list(classes),
        "shard_images": shard_images,
        "seed": seed,
        "generator": made_by or {},
    }
    rank, world = distributed.place()
    if rank == 0:
        ensure_plan(folder, plan)
    distributed.wait_for_all()
    if rank:
        ensure_plan(folder, plan)
    if (folder / "manifest.json").exists():
        return ProxySet(folder)
    numbers = range(-(-count // shard_images))
    mine = numbers[rank::world]
    total = sum(min(shard_images, count - number * shard_images) for number in mine)
    entries: list[Future[dict[str, Any]]] = []
    done = 0
    with ThreadPoolExecutor(1) as disk:
        for number in mine:
            ids = np.arange(number * shard_images, min((number + 1) * shard_images, count))
            path = folder / shard_name(number)
            shard: np.ndarray | None = None
            if not _is_whole(path, len(ids), generator.shape):
                channels, height, width = generator.shape
                shard = np.empty((len(ids), height, width, channels), dtype=np.uint8)
                for start in range(0, len(ids), batch_size):
                    some = slice(start, start + batch_size)
                    shard[some] = sample_batch(generator, ids[some], seed, device, precision).numpy()
                    progress(done + min(start + batch_size, len(ids)), total, "images")
            done += len(ids)
            progress(done, total, "images")
            for entry in entries[-1:]:
                entry.result()  # at most two shards in memory; raises the error of a full disk at once
            entries.append(disk.submit(_stored, path, shard, len(ids)))
        shards = [entry.result() for entry in entries]
    parts = distributed.gathered(shards)
    if rank == 0:
        condition = (np.arange(count) % generator.classes).astype(np.int32)
        write_array(folder / "condition.npy", condition)
        manifest = {
            **plan,
            "shards": [parts[number % world][number // world] for number in numbers],
            "counts": {"condition": np.bincount(condition, minlength=generator.classes).tolist()},
            "columns": {"condition": {"what": "the class asked of the generator"}},
        }
        write_json(folder / "manifest.json", manifest)
        (folder / "plan.json").unlink(missing_ok=True)
    distributed.wait_for_all()
    return ProxySet(folder)


def _stored(path: Path, shard: np.ndarray | None, count: int) -> dict[str, Any]:
    """The manifest's entry of a shard, which is first written if it is new; runs while the next one is sampled."""
    digest = digest_of(path) if shard is None else write_rows(path, np.uint8, shard.shape, [shard])
    return {"file": path.name, "count": count, "sha256": digest}


def _is_whole(path: Path, count: int, shape: tuple[int, int, int]) -> bool:
    if not path.exists():
        return False
    channels, height, width = shape
    return read_array(path, mapped=True).shape == (count, height, width, channels)
