"""Which network, how long, on how many images: what a published scaling law says of a budget. No torch here.

The law (Bartoldson et al. 2024, arXiv:2404.09349; fitted to robust training of wide ResNets with generated CIFAR-10
images, TRADES with ten steps, l-infinity 8/255) gives the loss of N parameters that have seen D images of an FID:

    L = 6.68698 / N^0.244345 + B(FID) / D^0.228146 + E(FID)
    E = 0.560373 ((1 + FID) / 2.65)^0.155524,    B = 7.55169 ((1 + FID) / 2.65)^-0.276774

and the robust accuracy under 40 steps of PGD on margins, 1.25749 - 0.749583 L; AutoAttack finds 0.4 to 1.5 points less.
A run costs 7822 N D floating-point operations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from robustgen.config.training import EPOCH_IMAGES

FLOPS = 7822.0
"""Operations for each parameter and image: 26 forward passes' worth, for wide ResNets on 32x32 pixels."""
LEAST_IMAGES = 10_000_000
LEAST_FID, MOST_FID = 1.4, 10.0
AUTOATTACK_POINTS = (0.4, 1.5)
REAL_SHARE = 0.2
"""Original images in a batch where millions are generated (Wang et al. 2023, arXiv:2302.04638)."""
USES = 5
"""How often a generated image may be seen without much loss, by the law's authors."""
NETWORKS = (
    "wrn-16-4", "wrn-28-4", "wrn-28-8", "wrn-28-10", "wrn-34-10", "wrn-46-12", "wrn-58-12", "wrn-82-8", "wrn-82-12",
    "wrn-34-20", "wrn-70-16", "wrn-94-16", "wrn-106-16",
)  # fmt: skip


def parameters_of(architecture: str, classes: int = 10, channels: int = 3) -> int:
    """Parameters of a wide ResNet by name, batch norms included.

    Raises:
        ValueError: no wide ResNet.
    """
    found = re.fullmatch(r"wrn-(\d+)-(\d+)(?:-[a-z]+)?", architecture)
    if found is None or (int(found[1]) - 4) % 6:
        raise ValueError(f"the law knows wide ResNets alone, wrn-DEPTH-WIDTH with depth 6n + 4; got {architecture!r}")
    blocks, width = (int(found[1]) - 4) // 6, int(found[2])
    total, inputs = 9 * channels * 16, 16
    for outputs in (16 * width, 32 * width, 64 * width):
        for _ in range(blocks):
            total += 9 * inputs * outputs + 9 * outputs * outputs + 2 * inputs + 2 * outputs
            total += inputs * outputs if inputs != outputs else 0
            inputs = outputs
    return total + 2 * inputs + (inputs + 1) * classes


def loss_of(parameters: float, images: float, fid: float) -> float:
    """L of the law."""
    quality = (1 + fid) / 2.65
    floor, price = 0.560373 * quality**0.155524, 7.55169 * quality**-0.276774
    return float(6.68698 / parameters**0.244345 + price / images**0.228146 + floor)


def robust_accuracy(parameters: float, images: float, fid: float) -> float:
    """Per cent that stand under 40 steps of PGD on margins."""
    return 100 * (1.25749 - 0.749583 * loss_of(parameters, images, fid))


def best_parameters(flops: float, fid: float) -> float:
    """N that makes L least where 7822 N D is given: a A N^-a = b B D^-b.

    With D = C / N:  N^(a + b) = a A / (b B) C^b.
    """
    a, b = 0.244345, 0.228146
    price = 7.55169 * ((1 + fid) / 2.65) ** -0.276774
    return float((a * 6.68698 / (b * price) * (flops / FLOPS) ** b) ** (1 / (a + b)))


@dataclass(frozen=True)
class Plan:
    """One way to spend a budget.

    architecture, parameters
    images    seen in training, original and generated
    robust    per cent under 40 steps of PGD on margins, by the law
    """

    architecture: str
    parameters: int
    images: float
    robust: float

    @property
    def epochs(self) -> float:
        """CIFAR-10-equivalent: of 50,000 images."""
        return self.images / EPOCH_IMAGES

    @property
    def generated(self) -> tuple[float, float]:
        """Generated images to make: where each is seen five times, and once."""
        seen = (1 - REAL_SHARE) * self.images
        return seen / USES, seen

    @property
    def autoattack(self) -> tuple[float, float]:
        """Per cent under AutoAttack, from and to."""
        least, most = AUTOATTACK_POINTS
        return self.robust - most, self.robust - least

    @property
    def within(self) -> bool:
        """The law was fitted to runs as long as this."""
        return self.images >= LEAST_IMAGES


def budget(device_hours: float, tflops: float) -> float:
    """Floating-point operations of so many hours at so many 10^12 a second."""
    return device_hours * 3600 * tflops * 1e12


def plans(flops: float, fid: float, architectures: Sequence[str] = NETWORKS) -> list[Plan]:
    """All networks at this budget: those within the law's range first, the most robust of them at the top.

    Raises:
        ValueError: no budget, or a negative FID.
    """
    if flops <= 0 or fid < 0:
        raise ValueError(f"a budget and an FID are above 0, got {flops:g} operations and FID {fid:g}")
    found = []
    for architecture in architectures:
        parameters = parameters_of(architecture)
        images = flops / (FLOPS * parameters)
        found.append(Plan(architecture, parameters, images, robust_accuracy(parameters, images, fid)))
    return sorted(found, key=lambda plan: (not plan.within, -plan.robust))


def warnings(plan: Plan, fid: float) -> list[str]:
    """Where the law is stretched, a sentence each."""
    found = []
    if not LEAST_FID <= fid <= MOST_FID:
        found.append(f"FID {fid:g} lies outside {LEAST_FID:g} to {MOST_FID:g}, for which the law was fitted")
    if not plan.within:
        found.append(
            f"{plan.images / 1e6:.2g} million images are fewer than the {LEAST_IMAGES // 10**6} million from which the "
            "law holds: no network of the list sees enough in this budget"
        )
    return found
