"""Proxy sets at scale: random batches, labelling, ranking, opening.

    python benchmarks/proxy.py

batches  1,024 random images at a time out of 1 million of 32x32x3, from a proxy set in ten shards and from torch's own
         DataLoader over the same images in an `.npz` (without workers and with two; the faster is the base). `ratio` is
         images a second over the base's; aim: at least 5. `own MB` is memory that the process alone holds, beyond what
         it held before; `mapped MB` pages of files that it looks at, shared by all and taken back by the system.
labels   `pseudo_label` (reading, passes, columns) over the bare passes on a batch that is already there; aim: at most
         1.1.
ranking  the K best of each of ten classes among 5 million scores in mapped columns; `MB` on top of what was there, the
         columns (40) and the answer (5) included.
opening  a set of 50 million images (sparse files of true size).

Needs 7 GB of disk for the time it runs; set TMPDIR to choose where.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from timing import device, interleaved, ratios, record
from torch.utils.data import DataLoader, TensorDataset

from robustgen.images import DatasetInfo, to_unit
from robustgen.models import build_model
from robustgen.modes import batch_invariant, channels_last
from robustgen.proxy.exchange import export_proxies, import_proxies
from robustgen.proxy.formats import PublishedSet
from robustgen.proxy.labeling import pseudo_label
from robustgen.proxy.ranking import top_per_class
from robustgen.proxy.store import ProxySet, shard_name, write_rows
from robustgen.randomness import rng_for
from robustgen.stages.common import images_in_a_pass
from robustgen.storage.files import write_json

SHAPE, BATCH = (32, 32, 3), 1024
CLASSES = tuple("0123456789")


def memory(kind: str) -> float:
    """Megabytes of this process now: RssAnon (its own), RssFile (mapped files)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def noise_set(folder: Path, count: int, shard_images: int) -> ProxySet:
    """A proxy set of random pixels."""

    def blocks(first: int) -> Iterator[np.ndarray]:
        for start in range(first, count, 10_000):
            rng = np.random.default_rng(start)
            yield rng.integers(0, 256, (min(10_000, count - start), *SHAPE), dtype=np.uint8)

    source = PublishedSet(SHAPE, (np.arange(count) % 10).astype(np.int32), CLASSES, blocks)
    return import_proxies(source, folder, made_by={"kind": "noise"}, shard_images=shard_images)


def batches(folder: Path, rounds: int = 9, each: int = 40) -> list[dict[str, object]]:
    proxies = noise_set(folder / "set", 1_000_000, 100_000)
    export_proxies(proxies, folder / "set.npz", "npz", kept=False)
    labels, order = proxies.column("label"), np.random.default_rng(0)

    def ours() -> None:
        for _ in range(each):
            index = order.integers(0, len(proxies), BATCH)
            torch.from_numpy(proxies.images(index)), torch.from_numpy(labels[index])

    before = memory("RssAnon")
    for _ in range(25):
        ours()
    own = {"proxy set": memory("RssAnon") - before}
    mapped = memory("RssFile")
    with np.load(folder / "set.npz") as stored:
        loaded = TensorDataset(torch.from_numpy(stored["image"]), torch.from_numpy(stored["label"]))
    works: dict[str, Callable[[], object]] = {"proxy set": ours}
    for workers in (0, 2):
        name, turn = (
            f"DataLoader, {workers} workers",
            iter(DataLoader(loaded, BATCH, shuffle=True, num_workers=workers)),
        )
        works[name] = lambda turn=turn: [next(turn) for _ in range(each)]  # type: ignore[misc]
        own[name] = memory("RssAnon") - before
    seconds = interleaved(works, "cpu", rounds)
    base = min((name for name in works if name != "proxy set"), key=lambda name: seconds[name])
    faster = 1 / ratios({name: works[name] for name in ("proxy set", base)}, base, "cpu", rounds)["proxy set"]
    rows: list[dict[str, object]] = [
        {"what": f"batches, {name}", "images/s": round(each * BATCH / seconds[name]), "own MB": round(own[name])}
        for name in works
    ]
    rows[0] |= {"mapped MB": round(mapped), "ratio": round(faster, 1)}
    return rows


def labels(folder: Path, architecture: str, passes: int, where: str) -> dict[str, object]:
    info = DatasetInfo("bench", CLASSES, (3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    model = channels_last(build_model(architecture, info, rng_for(0))).to(where).eval()
    size = images_in_a_pass(info.shape, where)
    count = size * passes
    proxies = noise_set(folder / "labels", count, count // 4)
    batch = torch.from_numpy(proxies.block(0, size)).to(where).permute(0, 3, 1, 2)

    @torch.no_grad()
    def floor() -> None:
        for _ in range(count // size):
            batch_invariant(model, to_unit(batch)).softmax(1)

    def label() -> None:
        pseudo_label(proxies, model, made_by={}, batch_size=size, device=where)

    return {
        "what": f"labelling by {architecture}",
        "images": count,
        "ratio": round(ratios({"floor": floor, "label": label}, "floor", where, 5)["label"], 3),
    }


def ranking(folder: Path, count: int, per_class: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    write_rows(folder / "label.npy", "<i4", (count,), [rng.integers(0, 10, count)])
    write_rows(folder / "score.npy", "<f4", (count,), [rng.random(count, dtype=np.float32)])
    label, score = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("label", "score"))
    top_per_class(label[:1000], score[:1000], 10, 10)
    before = peak()
    began = time.perf_counter()
    kept = top_per_class(label, score, per_class, 10)
    seconds = time.perf_counter() - began
    assert kept.sum() == 10 * per_class
    row = {"what": f"{per_class:,} best of each class", "scores": count, "seconds": round(seconds, 2)}
    return row | {"MB": round(peak() - before)}


def peak() -> float:
    """Highest memory so far in megabytes, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def opening(folder: Path, count: int = 50_000_000, each: int = 100_000) -> dict[str, object]:
    shards = [{"file": shard_name(k), "count": each, "sha256": "0" * 64} for k in range(count // each)]
    for shard in shards:
        with (folder / str(shard["file"])).open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (each, *SHAPE)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + each * 3072)
    manifest = {"format": 1, "count": count, "shape": [3, 32, 32], "classes": CLASSES, "shards": shards, "columns": {}}
    write_json(folder / "manifest.json", manifest)
    began = time.perf_counter()
    proxies = ProxySet(folder)
    opened = time.perf_counter() - began
    index = np.random.default_rng(0).integers(0, count, BATCH)
    began = time.perf_counter()
    proxies.images(index)
    first = time.perf_counter() - began
    return {"what": "opening", "images": count, "seconds": round(opened, 4), "first batch seconds": round(first, 3)}


def main() -> None:
    where = device()
    folder = Path(tempfile.mkdtemp())
    try:
        parts = {name: folder / name for name in ("ranking", "opening", "labels", "batches")}
        for place in parts.values():
            place.mkdir()
        rows = [ranking(parts["ranking"], 5_000_000, k) for k in (1_000, 100_000)]
        rows.append(opening(parts["opening"]))
        networks = {"wrn-10-2": 32, "preact-resnet-18": 4} if where == "cpu" else {"wrn-28-10": 64}
        rows += [labels(parts["labels"] / name, name, passes, where) for name, passes in networks.items()]
        rows = [*batches(parts["batches"]), *rows]
    finally:
        shutil.rmtree(folder)
    record("proxy", where, rows)


if __name__ == "__main__":
    main()
