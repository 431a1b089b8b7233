"""One TRADES-10 step beside the bare passes it needs, and beside the step of the public PyTorch ports.

    python benchmarks/training.py

floor   In units of a forward pass of the network in training mode a step needs 2 * 10 + 6 = 26: ten forward passes and
        ten gradients of the images (as dear as a forward pass) for the attack, one forward pass for the clean logits,
        one for the attacked images, and two backward passes with weight gradients (two units each). Just these passes,
        channels-last. On top of them a step has the attack's arithmetic, batches, augmentation, the optimiser and the
        weight average. `over floor` is the whole step over the floor; aim: at most 1.08 on 32x32 images.

ports   A step as the ports write it, on the same network and threads: contiguous (NCHW) tensors, a DataLoader whose
        data set pads, crops and flips image by image in PIL's and numpy's way, two forward passes of the clean images
        (one for the attack's aim, one for the loss), gradients of the images alone in the attack, both accuracies and
        the loss read back every step, the average updated tensor by tensor. The loader works in this process, as two
        cores leave no room for workers; its share is told. `faster than ports` is its time over ours; aim: 1.25.

Times are medians over rounds in which all take turns; ratios are taken within a round. On a CPU they are seconds of the
one thread that computes, which other programs on the machine do not lengthen. Memory is what
an image more in the batch adds to the peak: of a process with the batch over one with half of it.
"""

from __future__ import annotations

import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from timing import device, record
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustgen.augment import AUGMENTATIONS
from robustgen.images import DatasetInfo, ImageSet
from robustgen.losses import TRADES
from robustgen.models import build_model
from robustgen.modes import channels_last, frozen_bn_stats
from robustgen.randomness import rng_for
from robustgen.threat import ThreatModel
from robustgen.training.classifier import parameter_groups
from robustgen.training.ema import EMA, ramped
from robustgen.training.mixing import Mixture

STEPS = 10
WARMUPS, ROUNDS = 1, 5
EPS = 8 / 255


def data(shape: tuple[int, int, int]) -> ImageSet:
    channels, height, width = shape
    info = DatasetInfo("bench", tuple("0123456789"), shape, (0.5,) * channels, (0.25,) * channels)
    pixels = np.random.default_rng(0).integers(0, 256, (4096, height, width, channels), dtype=np.uint8)
    return ImageSet(pixels, np.arange(4096) % 10, info)


class Ours:
    """A step as `train_classifier` makes it, batch and augmentation included."""

    def __init__(self, architecture: str, images: ImageSet, batch_size: int, where: str):
        self.mixture = Mixture(images, batch_size=batch_size, augment=AUGMENTATIONS["crop-flip"], device=where)
        self.model = channels_last(build_model(architecture, images.info, rng_for(0))).to(where).train()
        self.optimizer = torch.optim.SGD(parameter_groups(self.model, 5e-4), lr=1e-3, momentum=0.9, nesterov=True)
        self.average = EMA(self.model)
        self.loss, self.threat, self.where, self.t = TRADES(), ThreatModel("linf", EPS), where, 0

    def __call__(self) -> None:
        rng = rng_for(0, "train", self.t, device=self.where)
        value = self.loss(self.model, self.mixture.batch(self.t), self.threat, rng)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        self.optimizer.step()
        self.average.update(self.model, ramped(0.995, self.t))
        self.t += 1


class Floor:
    """The passes of a step alone."""

    def __init__(self, ours: Ours):
        self.model, self.batch = ours.model, ours.mixture.batch(0).images
        self.labels = torch.zeros(len(self.batch), dtype=torch.int64, device=ours.where)

    def __call__(self) -> None:
        with frozen_bn_stats(self.model):
            clean = F.cross_entropy(self.model(self.batch), self.labels)
            for _ in range(STEPS):
                points = self.batch.detach().requires_grad_()
                torch.autograd.grad(F.cross_entropy(self.model(points), self.labels), points)
        (clean + F.cross_entropy(self.model(self.batch), self.labels)).backward()
        for parameter in self.model.parameters():
            parameter.grad = None


class Transformed(Dataset[tuple[Tensor, int]]):
    """An image at a time: pad by 4, crop, flip, to a tensor in [0, 1]."""

    def __init__(self, images: ImageSet):
        self.images, self.rng = images, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = ImageOps.expand(Image.fromarray(np.squeeze(self.images.images[index])), border=4, fill=0)
        height, width = self.images.images.shape[1:3]
        left, top = self.rng.integers(0, 9, 2)
        picture = picture.crop((left, top, left + width, top + height))
        if self.rng.random() < 0.5:
            picture = ImageOps.mirror(picture)
        pixels = torch.from_numpy(np.array(picture)).view(height, width, -1)
        return pixels.permute(2, 0, 1).contiguous().float().div(255), int(self.images.labels[index])


class Ports:
    """A step as the ports make it: sign steps of 2/255 from a uniform start, KL against the clean prediction."""

    def __init__(self, architecture: str, images: ImageSet, batch_size: int, where: str):
        self.loader = DataLoader(Transformed(images), batch_size=batch_size, shuffle=True, drop_last=True)
        self.batches, self.where, self.t, self.loading = iter(self.loader), where, 0, 0.0
        self.model = build_model(architecture, images.info, rng_for(0)).to(where).train()
        self.average = copy.deepcopy(self.model)
        self.optimizer = torch.optim.SGD(parameter_groups(self.model, 5e-4), lr=1e-3, momentum=0.9, nesterov=True)
        self.told: list[float] = []

    def next_batch(self) -> tuple[Tensor, Tensor]:
        began = clock(self.where)
        try:
            images, labels = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            images, labels = next(self.batches)
        self.loading = clock(self.where) - began
        return images.to(self.where), labels.to(self.where)

    def __call__(self) -> None:
        images, labels = self.next_batch()
        model = self.model
        with frozen_bn_stats(model):
            points = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
            predictions = F.softmax(model(images), dim=1).detach()
            for _ in range(STEPS):
                points.requires_grad_()
                gain = F.kl_div(F.log_softmax(model(points), dim=1), predictions, reduction="sum")
                (gradient,) = torch.autograd.grad(gain, points)
                points = points.detach() + 2 / 255 * torch.sign(gradient)
                points = torch.min(torch.max(points, images - EPS), images + EPS).clamp(0, 1)
        self.optimizer.zero_grad()
        clean, attacked = model(images), model(points)
        natural = F.cross_entropy(clean, labels, label_smoothing=0.1)
        robust = F.kl_div(F.log_softmax(attacked, dim=1), F.softmax(clean, dim=1), reduction="batchmean")
        value = natural + 6.0 * robust
        value.backward()
        self.optimizer.step()
        decay = ramped(0.995, self.t)
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), model.parameters(), strict=True):
                mine.mul_(decay).add_(theirs, alpha=1 - decay)
        right = [(logits.argmax(1) == labels).float().mean().item() for logits in (clean, attacked)]
        self.told = [value.item(), *right]
        self.t += 1


def clock(where: str) -> float:
    return time.perf_counter() if where == "cuda" else time.process_time()


def once(work: Callable[[], object], where: str) -> float:
    """Seconds of a call."""
    if where == "cuda":
        torch.cuda.synchronize()
    began = clock(where)
    work()
    if where == "cuda":
        torch.cuda.synchronize()
    return clock(where) - began


def measure(architecture: str, shape: tuple[int, int, int], batch_size: int, where: str) -> dict[str, object]:
    images = data(shape)
    ours, ports = Ours(architecture, images, batch_size, where), Ports(architecture, images, batch_size, where)
    works = {"ours": ours, "floor": Floor(ours), "ports": ports}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(WARMUPS + ROUNDS):
        for name, work in works.items():
            seconds_taken = once(work, where)
            if turn >= WARMUPS:
                taken[name].append(seconds_taken)
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    over = {
        name: statistics.median(a / b for a, b in zip(times, taken["ours"], strict=True))
        for name, times in taken.items()
    }
    return {
        "network": architecture,
        "images": "x".join(map(str, shape)),
        "batch": batch_size,
        "images/s": round(batch_size / seconds["ours"], 1),
        "floor images/s": round(batch_size / seconds["floor"], 1),
        "ports images/s": round(batch_size / seconds["ports"], 1),
        "over floor": round(1 / over["floor"], 3),
        "faster than ports": round(over["ports"], 3),
        "ports' loading, share": round(ports.loading / seconds["ports"], 3),
        "MiB an image": memory(architecture, shape, batch_size, where),
    }


def memory(architecture: str, shape: tuple[int, int, int], batch_size: int, where: str) -> float:
    """MiB by which a step's peak grows with each image: on a CPU between two processes, the batch and half of it."""
    if where == "cuda":
        step = Ours(architecture, data(shape), batch_size, where)
        step()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        return round((torch.cuda.max_memory_allocated() - held) / batch_size / 2**20, 2)
    peaks = []
    for count in (batch_size, batch_size // 2):
        words = [sys.executable, __file__, "peak", architecture, ",".join(map(str, shape)), str(count)]
        peaks.append(float(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
    return round((peaks[0] - peaks[1]) / (batch_size - batch_size // 2) / 2**10, 2)


def peak(architecture: str, shape: tuple[int, int, int], batch_size: int) -> int:
    """KiB that this process held at most, a step included."""
    Ours(architecture, data(shape), batch_size, "cpu")()
    # Not getrusage: its peak is also that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    where = device()
    if sys.argv[1:2] == ["peak"]:
        channels, height, width = map(int, sys.argv[3].split(","))
        print(peak(sys.argv[2], (channels, height, width), int(sys.argv[4])))
        return
    cases = [("wrn-10-1", (1, 8, 8), 128), ("wrn-16-2", (3, 32, 32), 128)]
    if where == "cuda":
        cases = [("wrn-16-2", (3, 32, 32), 512), ("wrn-28-10", (3, 32, 32), 256)]
    record("training", where, [measure(*case, where) for case in cases])


if __name__ == "__main__":
    main()
