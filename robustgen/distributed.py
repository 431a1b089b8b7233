"""Processes that torchrun started, on one machine or several: which one this is, and waiting for the others."""

from __future__ import annotations

import os


def place() -> tuple[int, int]:
    """(number of this process, how many there are); (0, 1) without torchrun."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def local_device(device: str) -> str:
    """The device of this process: with several GPUs each process of a machine has its own."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def wait_for_all() -> None:
    """Return when every process has come here. Processes talk over gloo, which needs no GPU."""
    if place()[1] == 1:
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    dist.barrier()
