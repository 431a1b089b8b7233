"""The largest number of images per pass that fits into a device's memory, found by trial."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from robustgen.config.training import TrainingConfig
from robustgen.contracts import Batch, Loss
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.modes import channels_last
from robustgen.randomness import rng_for
from robustgen.runtime import distributed
from robustgen.storage.files import read_json, write_json
from robustgen.threat import ThreatModel
from robustgen.training.low_precision import casting_once, in_precision


class OutOfMemory(ValueError):
    """A pass needs more memory than the device has; the message names settings that fit."""


def ran_out(error: BaseException) -> bool:
    """Whether an error means that the GPU or the host is out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def largest_fitting(attempt: Callable[[int], object], count: int, at_least: int = 1) -> int:
    """The largest of count, count / 2, count / 4 ... for which `attempt` does not run out of memory, or 0.

    Only integers are tried, down to `at_least`.
    """
    while True:
        try:
            attempt(count)
            return count
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
        if count % 2 or count // 2 < at_least:
            return 0
        count //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def passes_of(
    model: nn.Module,
    loss: Loss,
    threat: ThreatModel,
    shape: tuple[int, int, int],
    classes: int,
    device: torch.device | str,
    precision: str,
) -> Callable[[int], None]:
    """A function that computes loss and gradients, as in a step, of a gray batch; it restores running statistics."""
    network = in_precision(model, precision)

    def attempt(count: int) -> None:
        images = torch.full((count, *shape), 0.5, device=device).contiguous(memory_format=torch.channels_last)
        batch = Batch(
            images,
            torch.full((count, classes), 1 / classes, device=device),
            torch.arange(count, device=device) >= count // 2,
        )
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        try:
            rng = rng_for(0, "attempt", device=device)
            with rng.at("layers").seeding_torch(), casting_once(precision, device):
                value = loss(network, batch, threat, rng)
            value.backward()
        finally:
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
            for parameter in model.parameters():
                parameter.grad = None

    return attempt


@contextmanager
def explain_out_of_memory(images: int, accumulate: int, world: int, attempt: Callable[[int], None]) -> Iterator[None]:
    """Raise `OutOfMemory` with settings that fit instead of a device's error; `images` is the number per pass."""
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the pass
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemory(_advice(images, accumulate, world, largest_fitting(attempt, images // 2) if images > 1 else 0))


def _advice(images: int, accumulate: int, world: int, fits: int) -> str:
    if not fits:
        return f"out of memory with {images} images in a pass, and no fraction of them fits; use a smaller network"
    passes = accumulate * images // fits
    return (
        f"out of memory with {images} images in a pass; {fits} fit: repeat with accumulate={passes}, which makes each "
        f"step in {passes} passes (batch norms then see {fits} images), or with batch_size={fits * accumulate * world}"
    )


def passes_that_fit(
    settings: TrainingConfig, info: DatasetInfo, loss: Loss, threat: ThreatModel, folder: Path, device: str
) -> int:
    """Number of passes per step with which the batch of the settings fits on a GPU; saved in `folder` for resuming.

    A separate network is tried with half as many images per pass until they fit into nine tenths of the memory. All
    processes use the number that fits on the smallest device.

    Raises:
        OutOfMemory: not even one image per pass fits.
    """
    rank, world = distributed.place()
    kept = folder / "passes.json"
    images = settings.schedule.batch_size // world
    if kept.exists():
        return images // int(read_json(kept)["images_in_a_pass"])
    where = torch.device(device)
    index = torch.cuda.current_device() if where.index is None else where.index
    precision = "float32" if settings.precision == "auto" else settings.precision
    model = channels_last(build_model(settings.architecture, info)).to(where).train()
    torch.cuda.set_per_process_memory_fraction(0.9, index)
    fits = largest_fitting(passes_of(model, loss, threat, info.shape, len(info.classes), where, precision), images)
    torch.cuda.set_per_process_memory_fraction(1.0, index)
    fits = min(distributed.total_over_all(*(fits * (rank == r) for r in range(world))))
    if not fits:
        raise OutOfMemory(f"not one image of {settings.architecture} fits on {device}; choose a smaller network")
    if rank == 0:
        write_json(kept, {"images_in_a_pass": fits})
    return images // fits
