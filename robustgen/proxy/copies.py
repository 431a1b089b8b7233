"""Duplicates within a proxy set, and copies of real images: exact ones by hash, near ones by distance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustgen.contracts import Progress, silent
from robustgen.proxy.partial_rows import PartialRows
from robustgen.proxy.store import ProxySet
from robustgen.randomness import content_ids

COPIES = {
    "duplicates": 1,
    "copies of training images": 2,
    "copies of test images": 4,
    "near-duplicates": 8,
    "near-copies of training images": 16,
    "near-copies of test images": 32,
}
"""Bits of the column `copy`; 0 means no copy."""
BLOCK_ROWS = 4096
CANDIDATES = 4
"""Number of nearest images by rounded arithmetic, among which exact arithmetic finds the nearest."""


@dataclass(frozen=True)
class NearDuplicate:
    """Definition of a near-duplicate: closer than `eps` in `norm`, pixels in [0, 1].

    norm    "l2" or "linf" (the largest difference of a pixel; searched among the nearest in l2)
    within  whether images of the set are also compared with each other: quadratic in their number
    """

    norm: str
    eps: float
    within: bool = False


@torch.no_grad()
def nearest_distances(
    images: np.ndarray,
    reference: Iterable[tuple[int, np.ndarray]],
    norm: str,
    device: torch.device | str = "cpu",
    before: int | None = None,
) -> np.ndarray:
    """(n,) float32: distance of each image to the nearest of a reference, pixels in [0, 1]; inf if there is none.

        |x - y|^2 = |x|^2 + |y|^2 - 2 x y

    finds the CANDIDATES nearest in l2 by matrix products. Their distances are then computed in integers, so that an
    exact copy is at exactly 0 despite rounding.

    Args:
        images: (n, H, W, C) uint8.
        reference: blocks (position of the first, images), as large as fits on the device.
        before: position of the first of `images` in the reference; each is then compared with earlier images only.
    """
    pixels = torch.from_numpy(images.reshape(len(images), -1)).to(device)
    mine = pixels.float() - 128
    best = torch.full((len(images), CANDIDATES), torch.inf, device=device)
    exact = torch.full((len(images), CANDIDATES), torch.inf, device=device)
    for first, block in reference:
        others = torch.from_numpy(block.reshape(len(block), -1)).to(device)
        theirs = others.float() - 128
        squares = torch.addmm((theirs**2).sum(1)[None] + (mine**2).sum(1)[:, None], mine, theirs.T, alpha=-2)
        if before is not None:
            here = torch.arange(before, before + len(images), device=device)[:, None]
            squares.masked_fill_(torch.arange(first, first + len(block), device=device)[None] >= here, torch.inf)
        found = squares.topk(min(CANDIDATES, len(block)), largest=False)
        distances = _exact(pixels, others, found.indices, norm).masked_fill(found.values.isinf(), torch.inf)
        best, order = torch.cat([best, found.values], 1).topk(CANDIDATES, largest=False)
        exact = torch.cat([exact, distances], 1).gather(1, order)
    return exact.amin(1).cpu().numpy()


def _exact(pixels: Tensor, others: Tensor, candidates: Tensor, norm: str) -> Tensor:
    """(n, candidates) distances in units of [0, 1], from integers."""
    columns = []
    for place in range(candidates.shape[1]):
        difference = pixels.int() - others[candidates[:, place]].int()
        if norm == "linf":
            columns.append(difference.abs().amax(1).float() / 255)
        else:
            columns.append((difference**2).sum(1).double().sqrt().float() / 255)
    return torch.stack(columns, 1)


def _identities(proxies: ProxySet, progress: Progress) -> np.ndarray:
    """(N,) 64-bit hash of each image's bytes: less than one collision in 10,000 sets of 50 million images."""
    ids = np.empty(len(proxies), dtype=np.int64)
    for first in range(0, len(ids), BLOCK_ROWS):
        ids[first : first + BLOCK_ROWS] = content_ids(proxies.block(first, min(first + BLOCK_ROWS, len(ids))))
        progress(min(first + BLOCK_ROWS, len(ids)), len(ids), "images")
    return ids


def repeats(ids: np.ndarray) -> np.ndarray:
    """(N,) bool: equal to an earlier one."""
    order = np.argsort(ids, kind="stable")
    found = np.zeros(len(ids), dtype=bool)
    found[order[1:][ids[order[1:]] == ids[order[:-1]]]] = True
    return found


def find_copies(
    proxies: ProxySet,
    real: Mapping[str, np.ndarray],
    *,
    near: NearDuplicate | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> dict[str, int]:
    """Add the column `copy`, and with `near` the nearest distances; returns the number of images for each of COPIES.

    Args:
        real: real images (n, H, W, C) uint8 under the keys "training" and "test".
        near: also find near-copies. Rows are saved during the run, so that a killed run resumes. Adds the columns
            `training_distance`, `test_distance` and, with `near.within`, `within_distance`, float32.

    Raises:
        ValueError: real images of another shape.
    """
    channels, height, width = proxies.shape
    for name, images in real.items():
        if images.shape[1:] != (height, width, channels):
            raise ValueError(
                f"{proxies.folder} holds images of shape {(height, width, channels)}, the {name} images have "
                f"{images.shape[1:]}"
            )
    ids = _identities(proxies, progress)
    flags = repeats(ids).astype(np.uint8)
    real_ids = {name: content_ids(images) for name, images in real.items()}
    for name, known in real_ids.items():
        flags[np.isin(ids, known)] |= COPIES[f"copies of {name} images"]
    columns: dict[str, np.ndarray] = {}
    if near is not None and (real or near.within):
        rows = _distances(proxies, real, {k: _sum(v) for k, v in real_ids.items()}, near, device, progress)
        for name in rows.dtype.names or ():
            columns[f"{name}_distance"] = rows.column(name)()
            bit = "near-duplicates" if name == "within" else f"near-copies of {name} images"
            flags[columns[f"{name}_distance"] <= np.float32(near.eps)] |= COPIES[bit]
    made_by = {
        "what": "found to be a copy",
        "compared with": {name: len(images) for name, images in real.items()},
        **({} if near is None else {"near": f"{near.norm}:{near.eps:g}"}),
    }
    proxies.add_columns(made_by, **columns, copy=flags)
    if columns:
        rows.remove()
    return {name: int(((flags & bit) > 0).sum()) for name, bit in COPIES.items()}


def _sum(ids: np.ndarray) -> str:
    """A digest of a sequence of images."""
    return format(int(content_ids(ids[None].view(np.uint8))[0]) & (2**64 - 1), "016x")


def _distances(
    proxies: ProxySet,
    real: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    near: NearDuplicate,
    device: torch.device | str,
    progress: Progress,
) -> PartialRows:
    """Distances of all images, one field per reference."""
    fields = [*real, *(["within"] if near.within else [])]
    shards = [shard["sha256"] for shard in proxies.manifest["shards"]]
    plan = {"norm": near.norm, "fields": fields, "real": dict(names), "shards": shards}
    rows = PartialRows(proxies.folder / "checking", np.dtype([(name, "<f4") for name in fields]), plan)

    def blocks(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        return ((first, images[first : first + BLOCK_ROWS]) for first in range(0, len(images), BLOCK_ROWS))

    for first in range(rows.done, len(proxies), BLOCK_ROWS):
        stop = min(first + BLOCK_ROWS, len(proxies))
        images = proxies.block(first, stop)
        found = np.empty(len(images), dtype=rows.dtype)
        for name, others in real.items():
            found[name] = nearest_distances(images, blocks(others), near.norm, device)
        if near.within:
            earlier = (
                (start, proxies.block(start, min(start + BLOCK_ROWS, stop))) for start in range(0, stop, BLOCK_ROWS)
            )
            found["within"] = nearest_distances(images, earlier, near.norm, device, before=first)
        rows.add(found)
        progress(stop, len(proxies), "images", "near copies")
    return rows
