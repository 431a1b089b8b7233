"""Network size, training length and number of images for a compute budget, from a published scaling law. No torch.

The law (Bartoldson et al. 2024, arXiv:2404.09349; fitted to adversarial training of wide ResNets with generated
CIFAR-10 images, TRADES with ten steps, l-infinity 8/255) predicts the loss of a network with N parameters after
training on D images with a given FID:

    L = 6.68698 / N^0.244345 + B(FID) / D^0.228146 + E(FID)
    E = 0.560373 ((1 + FID) / 2.65)^0.155524,    B = 7.55169 ((1 + FID) / 2.65)^-0.276774

The robust accuracy under 40 steps of PGD on the margin is 1.25749 - 0.749583 L; under AutoAttack it is 0.4 to 1.5
points lower. A training run costs 7822 N D floating-point operations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from robustgen.config.training import EPOCH_IMAGES

FLOPS = 7822.0
"""Operations per parameter and image: about 26 forward passes of a wide ResNet on 32x32 pixels."""
LEAST_IMAGES = 10_000_000
LEAST_FID, MOST_FID = 1.4, 10.0
AUTOATTACK_POINTS = (0.4, 1.5)
REAL_SHARE = 0.2
"""Share of original images in a batch with millions of generated images (Wang et al. 2023, arXiv:2302.04638)."""
USES = 5
"""How often a generated image can be seen with little loss, according to the authors of the law."""
NETWORKS = (
    "wrn-16-4", "wrn-28-4", "wrn-28-8", "wrn-28-10", "wrn-34-10", "wrn-46-12", "wrn-58-12", "wrn-82-8", "wrn-82-12",
    "wrn-34-20", "wrn-70-16", "wrn-94-16", "wrn-106-16",
)  # fmt: skip


def parameters_of(architecture: str, classes: int = 10, channels: int = 3) -> int:
    """Number of parameters of a wide ResNet by name, batch norms included.

    Raises:
        ValueError: the name is not that of a wide ResNet.
    """
    found = re.fullmatch(r"wrn-(\d+)-(\d+)(?:-[a-z]+)?", architecture)
    if found is None or (int(found[1]) - 4) % 6:
        raise ValueError(
            f"the scaling law covers wide ResNets only, wrn-DEPTH-WIDTH with depth 6n + 4; got {architecture!r}"
        )
    blocks, width = (int(found[1]) - 4) // 6, int(found[2])
    total, inputs = 9 * channels * 16, 16
    for outputs in (16 * width, 32 * width, 64 * width):
        for _ in range(blocks):
            total += 9 * inputs * outputs + 9 * outputs * outputs + 2 * inputs + 2 * outputs
            total += inputs * outputs if inputs != outputs else 0
            inputs = outputs
    return total + 2 * inputs + (inputs + 1) * classes


def predicted_loss(parameters: float, images: float, fid: float) -> float:
    """The loss L predicted by the law."""
    quality = (1 + fid) / 2.65
    floor, price = 0.560373 * quality**0.155524, 7.55169 * quality**-0.276774
    return float(6.68698 / parameters**0.244345 + price / images**0.228146 + floor)


def robust_accuracy(parameters: float, images: float, fid: float) -> float:
    """Predicted robust accuracy in percent under 40 steps of PGD on the margin."""
    return 100 * (1.25749 - 0.749583 * predicted_loss(parameters, images, fid))


def best_parameters(flops: float, fid: float) -> float:
    """The N that minimizes L for a given budget 7822 N D = flops, from a A N^-a = b B D^-b.

    With C = flops / 7822 and D = C / N:  N^(a + b) = a A / (b B) C^b.
    """
    a, b = 0.244345, 0.228146
    price = 7.55169 * ((1 + fid) / 2.65) ** -0.276774
    return float((a * 6.68698 / (b * price) * (flops / FLOPS) ** b) ** (1 / (a + b)))


@dataclass(frozen=True)
class Plan:
    """One way to spend a compute budget.

    architecture, parameters
    images    training images seen, original and generated
    robust    predicted robust accuracy in percent under 40 steps of PGD on the margin
    """

    architecture: str
    parameters: int
    images: float
    robust: float

    @property
    def epochs(self) -> float:
        """Epochs of 50,000 images, as on CIFAR-10."""
        return self.images / EPOCH_IMAGES

    @property
    def generated(self) -> tuple[float, float]:
        """Number of generated images to sample if each is seen five times, and if each is seen once."""
        seen = (1 - REAL_SHARE) * self.images
        return seen / USES, seen

    @property
    def autoattack(self) -> tuple[float, float]:
        """Range of the predicted robust accuracy in percent under AutoAttack."""
        least, most = AUTOATTACK_POINTS
        return self.robust - most, self.robust - least

    @property
    def within(self) -> bool:
        """Whether training is long enough for the law, which was fitted to runs of at least `LEAST_IMAGES`."""
        return self.images >= LEAST_IMAGES


def budget(device_hours: float, tflops: float) -> float:
    """Floating-point operations of `device_hours` hours at `tflops` 10^12 operations per second."""
    return device_hours * 3600 * tflops * 1e12


def plans(flops: float, fid: float, architectures: Sequence[str] = NETWORKS) -> list[Plan]:
    """Plans for all networks at this budget: first those within the law's range, in descending robust accuracy.

    Raises:
        ValueError: the budget is not positive, or the FID is negative.
    """
    if flops <= 0 or fid < 0:
        raise ValueError(
            f"expected a budget above 0 and an FID of at least 0, got {flops:g} operations and FID {fid:g}"
        )
    found = []
    for architecture in architectures:
        parameters = parameters_of(architecture)
        images = flops / (FLOPS * parameters)
        found.append(Plan(architecture, parameters, images, robust_accuracy(parameters, images, fid)))
    return sorted(found, key=lambda plan: (not plan.within, -plan.robust))


def warnings(plan: Plan, fid: float) -> list[str]:
    """Extrapolations beyond the range that the law was fitted to, one sentence each."""
    found = []
    if not LEAST_FID <= fid <= MOST_FID:
        found.append(f"FID {fid:g} is outside the range {LEAST_FID:g} to {MOST_FID:g} that the law was fitted to")
    if not plan.within:
        found.append(
            f"{plan.images / 1e6:.2g} million training images are fewer than the {LEAST_IMAGES // 10**6} million that "
            "the law requires: no listed network can be trained long enough with this budget"
        )
    return found
