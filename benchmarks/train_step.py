"""One TRADES-10 step beside the bare passes it needs.

    python benchmarks/train_step.py

In units of a forward pass of the network in training mode a step needs 2 * 10 + 6 = 26: ten forward passes and ten
gradients of the images (as dear as a forward pass) for the attack, one forward pass for the clean logits, computed
once, one for the attacked images, and two backward passes with weight gradients (two units each). The floor is
measured by running just these passes. On top come the attack's arithmetic, batches, augmentation, the optimiser and
the weight average. `ratio` is the whole step over the floor, in the same round; aim: at most 1.15.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from common import device, interleaved, ratios, record

from robustgen.augment import AUGMENTATIONS
from robustgen.images import DatasetInfo, ImageSet
from robustgen.losses import TRADES
from robustgen.models import build_model
from robustgen.modes import channels_last, still_statistics
from robustgen.randomness import rng_for
from robustgen.threat import ThreatModel
from robustgen.training.averaging import WeightAverage, ramped
from robustgen.training.classifier import parameter_groups
from robustgen.training.mixing import Mixture

STEPS = 10


def measure(architecture: str, shape: tuple[int, int, int], batch_size: int, where: str) -> dict[str, object]:
    channels, height, width = shape
    info = DatasetInfo("bench", tuple("0123456789"), shape, (0.5,) * channels, (0.25,) * channels)
    rng = np.random.default_rng(0)
    images = ImageSet(rng.integers(0, 256, (2048, height, width, channels), dtype=np.uint8), np.arange(2048) % 10, info)
    mixture = Mixture(images, batch_size=batch_size, augment=AUGMENTATIONS["shift-1"], device=where)
    model = channels_last(build_model(architecture, info, rng_for(0))).to(where).train()
    optimiser = torch.optim.SGD(parameter_groups(model, 5e-4), lr=1e-3, momentum=0.9, nesterov=True)
    average, loss, threat = WeightAverage(model), TRADES(), ThreatModel("linf", 8 / 255)
    count = iter(range(10**9))

    def step() -> None:
        t = next(count)
        value = loss(model, mixture.batch(t), threat, rng_for(0, "train", t, device=where))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        average.update(model, ramped(0.995, t))

    batch = mixture.batch(0).images
    labels = torch.zeros(batch_size, dtype=torch.int64, device=where)

    def floor() -> None:
        """The passes alone."""
        with still_statistics(model):
            clean = F.cross_entropy(model(batch), labels)
            for _ in range(STEPS):
                points = batch.detach().requires_grad_()
                torch.autograd.grad(F.cross_entropy(model(points), labels), points)
        (clean + F.cross_entropy(model(batch), labels)).backward()
        for parameter in model.parameters():
            parameter.grad = None

    works = {"floor": floor, "step": step}
    seconds = interleaved(works, where, 5)
    return {
        "network": architecture,
        "images": "x".join(map(str, shape)),
        "batch": batch_size,
        "images/s": round(batch_size / seconds["step"], 1),
        "floor images/s": round(batch_size / seconds["floor"], 1),
        "ratio": round(ratios(works, "floor", where)["step"], 3),
    }


def main() -> None:
    where = device()
    cases = [("wrn-10-1", (1, 8, 8), 128), ("wrn-10-2", (1, 8, 8), 256), ("wrn-10-2", (3, 32, 32), 32)]
    if where == "cuda":
        cases = [("wrn-10-2", (3, 32, 32), 512), ("wrn-28-10", (3, 32, 32), 256)]
    record("train_step", where, [measure(*case, where) for case in cases])


if __name__ == "__main__":
    main()
