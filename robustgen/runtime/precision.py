"""float32 or bfloat16: what a device computes, which of the two is faster, and the record of that choice."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from robustgen.runtime import distributed
from robustgen.storage.files import Note, read_settings, write_json
from robustgen.storage.provenance import environment

GAIN = 1.2
"""`auto` chooses bfloat16 only if float32 takes at least this many times as long."""
FEWEST = 20
"""`auto` is float32 for a job of fewer passes than these, because timing would take a good part of it."""
_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16")
"""torch's names of the instructions by which a CPU multiplies bfloat16."""


def has_bfloat16_units(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 itself. Other CPUs emulate it, which takes longer than float32."""
    where = torch.device(device)
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if where.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return any(found.get(name) for name in _UNITS)
    return any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )  # torch before `get_capabilities`


def check_precision(precision: str, device: torch.device | str) -> None:
    """Check that a device can compute in a precision; warns that a CPU without bfloat16 units emulates it.

    Raises:
        ValueError: a GPU without bfloat16 units.
    """
    if precision != "bfloat16" or has_bfloat16_units(device):
        return
    if torch.device(device).type != "cpu":
        raise ValueError(
            f"precision bfloat16 needs a device with bfloat16 units, and {_name(device)} has none; use float32"
        )
    warnings.warn(
        "this processor has no bfloat16 units: precision bfloat16 is emulated, which takes longer than float32",
        Note,
        stacklevel=2,
    )


def autocast(precision: str, device: torch.device | str) -> torch.autocast:
    """Matrix products and convolutions in bfloat16 if that is the precision, and as they are in float32.

    Raises:
        ValueError: another precision, such as one that `choose_precision` has yet to choose.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"expected precision float32 or bfloat16, got {precision!r}")
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")


def choose_precision(
    precision: str,
    device: torch.device | str,
    record: Path,
    count: int,
    work: Callable[[str], object],
    *,
    clock: Callable[[], float] | None = None,
) -> str:
    """The precision of a job of `count` passes, float32 or bfloat16: the given one, or the choice of `auto`.

    `auto` times `work("float32")` and `work("bfloat16")`, each once after a warm-up, and chooses bfloat16 if float32
    takes at least `GAIN` times as long. It chooses float32 without timing where the device has no bfloat16 units or the
    job is short. The choice is printed, and written to `record`; where that exists, its choice is kept, so that a
    resumed job goes on in the same precision. Processes of torchrun agree: bfloat16 only if it is faster for all.

    Args:
        work: one pass in a precision, at the real batch size; it must not change the job's state.
        clock: seconds; default: CPU seconds of this process on a CPU, which other load does not lengthen.

    Raises:
        ValueError: the device cannot compute in the given precision, or `record` is damaged.
    """
    if precision != "auto":
        check_precision(precision, device)
        return precision
    if distributed.total_over_all(int(record.exists()))[0]:
        kept = read_settings(record).get("precision")
        if kept not in ("float32", "bfloat16"):
            raise ValueError(f"{record}: expected precision float32 or bfloat16, got {kept!r}; restore it or remove it")
        return str(kept)
    chosen, why, seconds = faster(device, count, work, clock=clock)
    if distributed.place()[0] == 0:
        print(f"{record.parent}: precision {chosen} ({why})", flush=True)
        write_json(record, {"precision": chosen, "why": why, "seconds": seconds, "device": _name(device)})
    return chosen


def faster(
    device: torch.device | str,
    count: int,
    work: Callable[[str], object],
    *,
    clock: Callable[[], float] | None = None,
) -> tuple[str, str, dict[str, float]]:
    """The choice of `auto` as in `choose_precision`, its reason in words, and the seconds of a pass in each."""
    seconds: dict[str, float] = {}
    if not has_bfloat16_units(device):
        chosen, why = "float32", f"{_name(device)} has no bfloat16 units"
    elif count < FEWEST:
        chosen, why = "float32", f"fewer than {FEWEST} passes are not timed"
    else:
        seconds = _timed(work, device, clock or _clock(device))
        gain = seconds["float32"] / max(seconds["bfloat16"], 1e-9)
        chosen, why = "float32" if gain < GAIN else "bfloat16", f"bfloat16 is {gain:.2f} times as fast as float32"
    if distributed.total_over_all(int(chosen == "bfloat16"))[0] < distributed.place()[1]:
        chosen = "float32"
    return chosen, why, seconds


def _timed(work: Callable[[str], object], device: torch.device | str, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of one pass in each precision."""
    both, seconds = ("float32", "bfloat16"), dict[str, float]()
    for precision in both:
        work(precision)
    for precision in both:
        _wait(device)
        began = clock()
        work(precision)
        _wait(device)
        seconds[precision] = clock() - began
    return seconds


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _clock(device: torch.device | str) -> Callable[[], float]:
    return time.process_time if torch.device(device).type == "cpu" else time.perf_counter


def _name(device: torch.device | str) -> str:
    where = torch.device(device)
    return torch.cuda.get_device_name(where) if where.type == "cuda" else environment()["processor"]
