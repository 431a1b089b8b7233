"""The devices of this machine that a run may use, and how many a stage takes. No torch before a GPU is asked for."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustgen.pipeline.graph import Node, levels

SIMULATED = "ROBUSTGEN_DEVICES"
"""Environment variable: cpu:2 lets a run take the CPU for two devices, whose processes speak by gloo."""


@dataclass(frozen=True)
class Devices:
    """Devices that the stages of a run share.

    names   of the devices: ("cuda:0", "cuda:1"); a CPU that is taken for two is ("cpu", "cpu")
    shares  devices of the stages whose work processes can share, by the stages' names; other stages take one
    """

    names: tuple[str, ...]
    shares: Mapping[str, int]

    def __str__(self) -> str:
        few, most = min(self.shares.values(), default=1), max(self.shares.values(), default=1)
        each = f", {few if few == most else f'{few} to {most}'} for a stage that can share them" if most > 1 else ""
        return f"{_counted(self.names)}{each}"


def find_devices(
    device: str, stage_list: Sequence[Node], gpus: int | None = None, per_stage: int | None = None
) -> Devices | None:
    """The devices of a run; None for a single one, or for a CPU whose cores the stages share.

    Without `per_stage`, a stage gets as many as are left for it when they are divided among all of its kind that are as
    far from the end, such as the models of all arms; rounded down to a power of two, which divides the usual batches.
    Processes on a CPU that is taken for several devices get one each, as cores do.

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
    if per_stage is None and device == "cpu":
        per_stage = 1
    return Devices(used, divided(stage_list, len(used), per_stage))


def divided(stage_list: Sequence[Node], count: int, per_stage: int | None = None) -> dict[str, int]:
    """Devices of the stages that can share some, by their names: `per_stage`, or as `find_devices` says."""
    level = levels(stage_list)
    groups = {stage.name: (stage.kind, level[stage.name]) for stage in stage_list if stage.shared}
    beside = Counter(groups.values())
    return {name: per_stage or 2 ** (max(1, count // beside[at]).bit_length() - 1) for name, at in groups.items()}


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
