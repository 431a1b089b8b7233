"""Minibatches of original and generated images in fixed shares, from one proxy set or several."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustgen.augment import with_repeats
from robustgen.config.recipe import Arm, Phase
from robustgen.config.training import TrainingConfig
from robustgen.contracts import Augment, Batch
from robustgen.images import ImageSet, one_hot, to_unit
from robustgen.proxy.store import ProxySet
from robustgen.randomness import Rng, rng_for


class _Stream:
    """Positions 0..count-1 in an order that is reshuffled every epoch; with random access."""

    def __init__(self, count: int, seed: int, name: str):
        self.count, self.seed, self.name = count, seed, name
        self._round, self._order = -1, np.empty(0, dtype=np.int64)

    def take(self, first: int, count: int) -> np.ndarray:
        """Entries first .. first + count - 1 of the infinite stream."""
        parts = []
        while count:
            turn, offset = divmod(first, self.count)
            if turn != self._round:
                order = rng_for(self.seed, "order", self.name, turn).permutation(self.count)
                self._round, self._order = turn, order
            part = self._order[offset : offset + count]
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


class _Draws(_Stream):
    """Positions drawn with replacement in each step, as in the PyTorch ports."""

    def take(self, first: int, count: int) -> np.ndarray:
        return rng_for(self.seed, "draw", self.name, first).integers(self.count, (count,)).numpy()


@dataclass(frozen=True)
class PhasePlan:
    """A phase of the run with its own proxy sets.

    steps       their number; the last phase may be infinite (None)
    real_share  share of original images in a batch
    proxies     the proxy sets, each with its weight among the generated images
    """

    steps: int | None
    real_share: float
    proxies: tuple[tuple[ProxySet, float], ...]


def phase_plans(sources: Arm, settings: TrainingConfig) -> list[PhasePlan]:
    """The phases of a run with the proxy sets of each; a single phase of real images if there are no proxy sets."""
    if not sources.proxies:
        return [PhasePlan(None, 1.0, ())]
    phases = sources.phases or (Phase(proxies={sources.proxies[0]: 1.0}),)
    opened = {folder: ProxySet(folder) for folder in sources.proxies}
    steps, found, start = settings.schedule.steps, [], 0
    for phase in phases:
        end = round(phase.until * steps)
        share = settings.real_share if phase.real_share is None else phase.real_share
        weighted = tuple((opened[folder], weight) for folder, weight in phase.proxies.items())
        found.append(PhasePlan(end - start, share, weighted))
        start = end
    return found


class _Proxies:
    """A proxy set in use: its kept images in order, on the device if they fit."""

    def __init__(self, proxies: ProxySet, order: _Stream, kept: np.ndarray, device: torch.device):
        self.order = order
        self._set, self._kept, self._labels = proxies, kept, proxies.column("label")
        size = len(kept) * math.prod(proxies.shape)
        self.resident = device.type != "cpu" and size <= _free_bytes(device) // 4
        """Whether it is in the device's memory. On a CPU the memory-mapped file is as good."""
        self.slow = device.type != "cpu" or size > _free_bytes(device) // 2
        """Whether to prefetch: it does not fit in memory, or must be copied to the device."""
        self._pixels = torch.from_numpy(proxies.images(kept)).to(device) if self.resident else None

    def read(self, first: int, count: int) -> tuple[np.ndarray | Tensor, np.ndarray]:
        """Pixels (n, H, W, C) uint8 and labels (n,) of the next `count` images from number `first`."""
        places = self.order.take(first, count)
        rows = self._kept[places]
        labels = self._labels[rows].astype(np.int64)
        if self._pixels is not None:
            return self._pixels[torch.from_numpy(places).to(self._pixels.device)], labels
        return self._set.images(rows), labels


@dataclass(frozen=True)
class _Plan:
    """The composition of the batches of a phase.

    start        first step
    real_count   original images per batch, with repeats
    real_before  different original images used before this phase
    takes        per proxy set: images per batch, and images used before this phase
    """

    start: int
    real_count: int
    real_before: int
    takes: tuple[tuple[_Proxies, int, int], ...]


class Mixture:
    """Batches of round(real_share * batch_size) original images, then generated ones; batch t depends only on t.

    Both come from streams that are reshuffled every epoch; a proxy set continues its stream in the next phase.
    Targets are one-hot, smoothed by `smoothing` for the images that `smooth` names: generated (the official code), all
    (the PyTorch ports) or none.

    Args:
        proxies: a proxy set for the whole run, which fills 1 - `real_share` of a batch; or phases in order.
        repeats: number of adjacent copies of each original in a batch, each augmented independently. 4 is the official
            code, whose four workers read the same stream: round(batch_size / 4 * real_share) different originals.
            Generated images are not repeated. CutMix and similar augmentations mix within sub-batches that contain each
            original once, with the same order of rows (`augment.mixup.partners`).
        order: of generated images: shuffled, or drawn with replacement, as in the PyTorch ports.

    A proxy set is copied to a GPU if it takes at most a quarter of its free memory. Otherwise it stays a memory-mapped
    file, and a thread prefetches the next batch during the current step.

    Raises:
        ValueError: a share below 1 without a proxy set, proxy sets of other shapes or classes, or a batch size that is
            not a multiple of `repeats`.
    """

    def __init__(
        self,
        real: ImageSet,
        proxies: ProxySet | Sequence[PhasePlan] | None = None,
        *,
        batch_size: int,
        real_share: float = 1.0,
        repeats: int = 1,
        order: str = "shuffled",
        smoothing: float = 0.0,
        smooth: str = "generated",
        augment: Augment | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if not len(real):
            raise ValueError("there are no training images")
        if batch_size % repeats:
            raise ValueError(f"batch_size ({batch_size}) must be a multiple of the {repeats} repeats of each original")
        if isinstance(proxies, ProxySet):
            proxies = [PhasePlan(None, real_share, ((proxies, 1.0),))]
        phases = proxies or [PhasePlan(None, real_share, ())]
        self.classes, self.seed, self.device = len(real.info.classes), seed, torch.device(device)
        self.augment = with_repeats(augment, repeats)
        self.shape = real.info.shape
        self.batch_size, self.repeats, self._order = batch_size, repeats, order
        self._real, self._real_labels = real.pixels(device), real.targets(device)
        self._real_order = _Stream(len(real), seed, "real")
        self._sets: dict[str, _Proxies] = {}
        self._plans = self._planned(phases, real)
        smoothed_kinds = {"generated": (False, True), "all": (True, True), "none": (False, False)}
        self._smoothing = [smoothing if smoothed else 0.0 for smoothed in smoothed_kinds[smooth]]
        slow = any(used.slow and not used.resident for used in self._sets.values())
        self._reader = ThreadPoolExecutor(1, "reads ahead") if slow else None
        self._ahead: dict[int, Future[_Read]] = {}

    @property
    def real_count(self) -> int:
        """Original images per batch in the first phase."""
        return self._plans[0].real_count

    def _planned(self, phases: Sequence[PhasePlan], real: ImageSet) -> list[_Plan]:
        plans: list[_Plan] = []
        start, originals, taken = 0, 0, dict[str, int]()
        for phase in phases:
            if not phase.proxies and phase.real_share < 1:
                raise ValueError(f"real_share {phase.real_share} needs a proxy set; give one, or set real_share to 1")
            different = round(phase.real_share * self.batch_size / self.repeats)
            generated = self.batch_size - different * self.repeats
            takes = []
            for count, (proxies, _) in zip(_split(generated, phase.proxies), phase.proxies, strict=True):
                if count:
                    name = str(proxies.folder)
                    takes.append((self._use(proxies, real), count, taken.get(name, 0)))
                    taken[name] = taken.get(name, 0) + count * (phase.steps or 0)
            plans.append(_Plan(start, different * self.repeats, originals, tuple(takes)))
            start += phase.steps or 0
            originals += different * (phase.steps or 0)
        return plans

    def _use(self, proxies: ProxySet, real: ImageSet) -> _Proxies:
        if proxies.shape != real.info.shape or len(proxies.classes) != self.classes:
            raise ValueError(
                f"proxy set {proxies.folder} holds images of shape {proxies.shape} in {len(proxies.classes)} classes; "
                f"{real.info.name} has {real.info.shape} in {self.classes}"
            )
        name = str(proxies.folder)
        if name not in self._sets:
            kept = proxies.kept()
            if not len(kept):
                raise ValueError(f"proxy set {proxies.folder} keeps no image; run: robustgen keep {proxies.folder}")
            kind = _Stream if self._order == "shuffled" else _Draws
            stream = "generated" if not self._sets else f"generated {len(self._sets)}"
            self._sets[name] = _Proxies(proxies, kind(len(kept), self.seed, stream), kept, self.device)
        return self._sets[name]

    def _targets(self, labels: Tensor, smoothing: float) -> Tensor:
        return one_hot(labels, self.classes) * (1 - smoothing) + smoothing / self.classes

    def _read(self, step: int) -> _Read:
        """The rows and images of batch `step`, as far as they need no device."""
        plan = next(plan for plan in reversed(self._plans) if plan.start <= step)
        different = plan.real_count // self.repeats
        index = self._real_order.take(plan.real_before + (step - plan.start) * different, different)
        parts = [used.read(before + (step - plan.start) * count, count) for used, count, before in plan.takes]
        return np.repeat(index, self.repeats), parts

    def _next(self, step: int) -> _Read:
        """Read batch `step` (or take it prefetched), and start to prefetch the next one."""
        if self._reader is None:
            return self._read(step)
        ready = self._ahead.pop(step, None) or self._reader.submit(self._read, step)
        self._ahead = {step + 1: self._reader.submit(self._read, step + 1)}
        return ready.result()

    def batch(self, step: int) -> Batch:
        """Batch number `step`, augmented; originals first."""
        originals, parts = self._next(step)
        index = torch.from_numpy(originals).to(self.device)
        pixels, targets = [self._real[index]], [self._targets(self._real_labels[index], self._smoothing[0])]
        for images, labels in parts:
            if isinstance(images, np.ndarray):
                images = torch.from_numpy(images)
                images = images.pin_memory() if self.device.type == "cuda" else images
            pixels.append(images.to(self.device, non_blocking=True).permute(0, 3, 1, 2))
            targets.append(self._targets(torch.from_numpy(labels).to(self.device), self._smoothing[1]))
        images, soft = (torch.cat(pixels), torch.cat(targets)) if parts else (pixels[0], targets[0])
        generated = torch.arange(len(images), device=self.device) >= len(originals)
        images = to_unit(images).contiguous(memory_format=torch.channels_last)
        if self.augment is not None:
            images, soft = self.augment(images, soft, self._rng(step))
        return Batch(images, soft, generated)

    def _rng(self, step: int) -> Rng:
        return rng_for(self.seed, "augment", step, device=self.device)


_Read = tuple[np.ndarray, list[tuple[np.ndarray | Tensor, np.ndarray]]]
"""Rows of the originals; pixels and labels of each proxy set."""


def _split(count: int, weighted: Sequence[tuple[ProxySet, float]]) -> list[int]:
    """Split `count` by weight into integers (largest-remainder method)."""
    total = sum(weight for _, weight in weighted)
    exact = [count * weight / total for _, weight in weighted]
    whole = [math.floor(part) for part in exact]
    for place in sorted(range(len(whole)), key=lambda i: whole[i] - exact[i])[: count - sum(whole)]:
        whole[place] += 1
    return whole


def _free_bytes(device: torch.device) -> int:
    """Free memory of a GPU, or of the host."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:  # pragma: no cover - not on every system
        return sys.maxsize
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
