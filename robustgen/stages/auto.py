"""What `run auto` finds out before it chooses a recipe, and the classifier that it keeps in the end."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from robustgen.config.recipe import DataConfig
from robustgen.planning.auto import AUTO_NETWORKS, CHANNELS, diffusion_network, slowest_diffusion, slowest_pass
from robustgen.planning.facts import ImageFacts, Speed

if TYPE_CHECKING:
    from robustgen.images import DatasetInfo
    from robustgen.storage.run_folder import RunDir

BATCH_SIZES = {"cpu": 32, "cuda": 256}
SLOW = 5.0
"""Seconds of a batch that is timed only once."""


def look_at(data: DataConfig) -> ImageFacts:
    """Count a user's images and their classes."""
    import numpy as np

    from robustgen.datasets import load_all

    images, test = load_all(data)
    counts = np.bincount(images.labels, minlength=len(images.info.classes))
    return ImageFacts(
        len(images),
        0 if test is None else len(test),
        images.info.shape,
        len(images.info.classes),
        int(counts.min()),
        int(counts.max()),
    )


def measure_speed(facts: ImageFacts, side: int, device: str, jobs: int, network: str | None, seconds: float) -> Speed:
    """Time training passes of candidate networks and diffusion models on one batch each, in one thread on a CPU.

    Candidates come in rising size; those after the first that is too slow for a training in `seconds` are left out.
    """
    import torch

    from robustgen.images import DatasetInfo

    kind = "cuda" if device.startswith("cuda") else "cpu"
    if kind == "cpu":
        torch.set_num_threads(1)
    channels = facts.shape[0]
    classes = tuple(map(str, range(facts.classes)))
    info = DatasetInfo("auto", classes, (channels, side, side), (0.5,) * channels, (0.25,) * channels)
    passes: dict[str, float] = {}
    for name in [network] if network else AUTO_NETWORKS:
        passes[name] = _classifier_seconds(name, info, device, BATCH_SIZES[kind]) / 3
        if passes[name] > slowest_pass(seconds):
            break
    diffusion: dict[int, float] = {}
    for width in CHANNELS:
        diffusion[width] = _diffusion_seconds(width, info, device, BATCH_SIZES[kind])
        if diffusion[width] > slowest_diffusion(seconds):
            break
    return Speed(passes, diffusion, jobs, kind, network is None or _normalized(network, info))


def _normalized(network: str, info: DatasetInfo) -> bool:
    """Whether a network has normalization layers."""
    from robustgen.models import build_model
    from robustgen.training.classifier import NORMALIZATION_LAYERS

    return any(isinstance(layer, NORMALIZATION_LAYERS) for layer in build_model(network, info).modules())


def _classifier_seconds(name: str, info: DatasetInfo, device: str, batch: int) -> float:
    """Seconds of a training pass (forward and backward) an image."""
    import torch

    from robustgen.models import build_model
    from robustgen.models.sources import check_accepts
    from robustgen.modes import channels_last
    from robustgen.randomness import rng_for

    model = channels_last(build_model(name, info, rng_for(0, "auto"))).to(device).eval()
    images = torch.rand(batch, *info.shape, device=device).contiguous(memory_format=torch.channels_last)
    check_accepts(model, name, images, len(info.classes), more=True)
    model.train()
    return _seconds(lambda: model(images).float().logsumexp(1).mean().backward(), device) / batch


def _diffusion_seconds(channels: int, info: DatasetInfo, device: str, batch: int) -> float:
    """Seconds of a training image of the diffusion model."""
    import torch

    from robustgen.generators import Diffusion, build_generator
    from robustgen.randomness import rng_for

    model = build_generator(diffusion_network(channels, info.shape[1]), info, rng_for(0, "auto")).to(device).train()
    assert isinstance(model, Diffusion)
    images = torch.rand(batch, *info.shape, device=device)
    labels = torch.arange(batch, device=device) % len(info.classes)
    rng = rng_for(0, "auto", device=torch.device(device))
    return _seconds(lambda: model.loss(images, labels, rng).backward(), device) / batch


def _seconds(work: Callable[[], object], device: str) -> float:
    """The faster of two runs after a warm-up; one run where a run is slow. On a CPU those of the one thread that
    computes, which other programs do not lengthen."""
    import torch

    on_cpu = not device.startswith("cuda")
    clock, times = time.process_time if on_cpu else time.perf_counter, []
    for _ in range(3):
        start = clock()
        work()
        if not on_cpu:
            torch.cuda.synchronize()
        times.append(clock() - start)
        if times[-1] > SLOW:
            break
    return min(times[1:], default=times[0])


def keep_better(run: RunDir, chosen: Mapping[str, str]) -> str:
    """Copy the classifier with the best robust accuracy on the validation images to `best/`; says which, and why."""
    from robustgen.models.saved import read_model_json

    accuracy = {}
    for arm, name in chosen.items():
        validation = read_model_json(run.root / "classifiers" / name).get("validation")
        if validation is None:
            return "No classifier is kept in best: without validation images nothing says which is better"
        correct, total = validation["robust"]
        accuracy[arm] = correct / total
    best = max(accuracy, key=lambda arm: accuracy[arm])
    target = run.root / "best"
    if target.exists():
        shutil.rmtree(target)
    target.mkdir()
    source = run.root / "classifiers" / chosen[best]
    for file in ("weights.safetensors", "network.py", "model.json"):  # model.json last: it makes the folder complete
        if (source / file).exists():
            shutil.copy2(source / file, target / file)
    said = ", ".join(f"{arm} {100 * value:.1f} %" for arm, value in accuracy.items())
    chance = 1.96 * math.sqrt(sum(value * (1 - value) / total for value in accuracy.values()))
    doubt = f"; with {total} of them a difference below {100 * chance:.0f} points may be chance"
    doubt = doubt if max(accuracy.values()) - min(accuracy.values()) < chance else ""
    return f"Kept: {best}, in {target} (robust accuracy on the validation images: {said}{doubt})"
