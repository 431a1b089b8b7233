"""Minibatches of original and generated images in a fixed share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robustgen.contracts import Augment, Batch
from robustgen.images import ImageSet, one_hot, to_unit
from robustgen.proxy.store import ProxySet
from robustgen.randomness import Rng, rng_for


class _Stream:
    """Positions 0..count-1 in a shuffled order, shuffled anew each time round; any place can be asked for."""

    def __init__(self, count: int, seed: int, name: str):
        self.count, self.seed, self.name = count, seed, name
        self._round, self._order = -1, np.empty(0, dtype=np.int64)

    def take(self, first: int, count: int) -> np.ndarray:
        """The positions number first .. first + count - 1 of the endless stream."""
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


class Mixture:
    """Batches of round(real_share * batch_size) original images, then generated ones; batch t depends on t alone.

    Both come from streams shuffled anew each time round. Targets are one-hot, smoothed by `smoothing` for the
    images that `smooth` names: generated (the official code), all (the PyTorch ports) or none.

    Raises:
        ValueError: a share below 1 without a proxy set, sets that do not fit together, or a batch without images
            of one kind.
    """

    def __init__(
        self,
        real: ImageSet,
        proxies: ProxySet | None = None,
        *,
        batch_size: int,
        real_share: float = 1.0,
        smoothing: float = 0.0,
        smooth: str = "generated",
        augment: Augment | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        classes = len(real.info.classes)
        if proxies is None and real_share < 1:
            raise ValueError(f"a real share of {real_share} needs a proxy set; give one, or set the share to 1")
        if not len(real):
            raise ValueError("there are no training images")
        self.real_count = batch_size if proxies is None else round(real_share * batch_size)
        self.generated_count = batch_size - self.real_count
        self.classes, self.augment, self.seed, self.device = classes, augment, seed, device
        self._real_pixels, self._real_labels = real.pixels(device), real.targets(device)
        self._real_order = _Stream(len(real), seed, "real")
        if proxies is not None and self.generated_count:
            self._use(proxies, real)
        smoothed_kinds = {"generated": (False, True), "all": (True, True), "none": (False, False)}
        self._smoothing = [smoothing if smoothed else 0.0 for smoothed in smoothed_kinds[smooth]]

    def _use(self, proxies: ProxySet, real: ImageSet) -> None:
        if proxies.shape != real.info.shape or len(proxies.classes) != self.classes:
            raise ValueError(
                f"proxy set {proxies.folder} holds images of shape {proxies.shape} in {len(proxies.classes)} classes; "
                f"{real.info.name} has {real.info.shape} in {self.classes}"
            )
        self._proxies = proxies
        self._kept = proxies.kept()
        if not len(self._kept):
            raise ValueError(f"proxy set {proxies.folder} keeps no image; run: robustgen keep {proxies.folder}")
        self._labels = proxies.column("label")
        self._order = _Stream(len(self._kept), self.seed, "generated")

    def _targets(self, labels: Tensor, smoothing: float) -> Tensor:
        return one_hot(labels, self.classes) * (1 - smoothing) + smoothing / self.classes

    def batch(self, step: int) -> Batch:
        """Batch number `step`, augmented; originals first."""
        index = torch.from_numpy(self._real_order.take(step * self.real_count, self.real_count)).to(self.device)
        pixels = self._real_pixels[index]
        targets = self._targets(self._real_labels[index], self._smoothing[0])
        if self.generated_count:
            rows = self._kept[self._order.take(step * self.generated_count, self.generated_count)]
            images = torch.from_numpy(self._proxies.images(rows)).to(self.device).permute(0, 3, 1, 2)
            labels = torch.from_numpy(self._labels[rows].astype(np.int64)).to(self.device)
            pixels = torch.cat([pixels, images])
            targets = torch.cat([targets, self._targets(labels, self._smoothing[1])])
        generated = torch.arange(len(pixels), device=self.device) >= self.real_count
        images = to_unit(pixels).contiguous(memory_format=torch.channels_last)
        if self.augment is not None:
            images, targets = self.augment(images, targets, self._rng(step))
        return Batch(images, targets, generated)

    def _rng(self, step: int) -> Rng:
        return rng_for(self.seed, "augment", step, device=self.device)
