"""The device that a name stands for. No torch where no GPU is asked for or found."""

from __future__ import annotations

import os
from pathlib import Path


def device_named(name: str) -> str:
    """The device of a name: cpu, cuda or cuda:N as they are; auto is cuda where torch finds a GPU, otherwise cpu.

    Raises:
        ValueError: another name, or a GPU where torch finds none.
    """
    if name not in ("auto", "cpu", "cuda") and not name.startswith("cuda:"):
        raise ValueError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:N")
    if name == "cpu":
        return name
    if name == "auto" and not _gpu_driver_present():
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda" if name == "auto" else name
    if name == "auto":
        return "cpu"
    raise ValueError(f"--device {name} needs a GPU, but torch {torch.__version__} finds none; use --device cpu")


def _gpu_driver_present() -> bool:
    """Whether there is a GPU driver; does not import torch, which takes seconds."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists() or os.name != "posix"
