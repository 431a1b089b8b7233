"""The devices of this machine that a run may use, and how many a stage takes. No torch before a GPU is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from robustgen.pipeline.graph import Node, widest

SIMULATED = "ROBUSTGEN_DEVICES"
"""Environment variable: cpu:2 lets a run take the CPU for two devices, whose processes speak by gloo."""


@dataclass(frozen=True)
class Devices:
    """Devices that the stages of a run share.

    names      of the devices: ("cuda:0", "cuda:1"); a CPU that is taken for two is ("cpu", "cpu")
    per_stage  devices of a stage whose work processes can share; other stages take one
    """

    names: tuple[str, ...]
    per_stage: int = 1

    def __str__(self) -> str:
        each = f", {self.per_stage} for a stage that can share them" if self.per_stage > 1 else ""
        return f"{_counted(self.names)}{each}"


def find_devices(
    device: str, stage_list: Sequence[Node], gpus: int | None = None, per_stage: int | None = None
) -> Devices | None:
    """The devices of a run; None for a single one, or for a CPU whose cores the stages share.

    Without `per_stage`, the devices are divided among the arms and generators that can be worked on at the same time,
    rounded down to a power of two, which divides the usual batches.

    Args:
        device: "cpu", "cuda" for all GPUs, or "cuda:1" for one of them.
        gpus: how many to use; all by default.

    Raises:
        ValueError: more devices than there are, or more for a stage than for the run.
    """
    there = _devices(device)
    count = len(there)
    if gpus is not None and gpus > count:
        simulate = "" if count else f" ({SIMULATED}=cpu:{gpus} starts {gpus} processes on the CPU instead)"
        raise ValueError(f"--gpus {gpus}: this machine has {_counted(there)}{simulate}")
    used = there[: gpus or count]
    if per_stage is not None and per_stage > max(1, len(used)):
        raise ValueError(f"--gpus-per-stage {per_stage}: the run has {_counted(used)}")
    if len(used) < 2:
        return None
    share = len(used) // widest(stage_list, {stage.name for stage in stage_list if stage.shared})
    return Devices(used, per_stage or 2 ** (max(1, share).bit_length() - 1))


def _counted(names: Sequence[str]) -> str:
    kind = "simulated device" if "cpu" in names else "GPU"
    return f"{len(names) or 'no'} {kind}{'s' if len(names) > 1 else ''}"


def _devices(device: str) -> tuple[str, ...]:
    if device == "cpu":
        text = os.environ.get(SIMULATED, "")
        found = re.fullmatch(r"cpu:([1-9]\d{0,2})", text)
        if text and not found:
            raise ValueError(f"{SIMULATED}={text}: expected cpu:N, such as cpu:2")
        return ("cpu",) * int(found[1]) if found else ()
    if device != "cuda":
        return (device,)
    import torch

    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
