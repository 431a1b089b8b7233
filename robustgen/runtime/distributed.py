"""Collective operations of the processes that torchrun started, on one or several machines."""

from __future__ import annotations

import atexit
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")


class OtherProcessFailed(ValueError):
    """Another process of the job has failed; the message is the one that it left."""


def place() -> tuple[int, int]:
    """(rank, world size) of this process; (0, 1) without torchrun."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def local_device(device: str) -> str:
    """The device of this process; with several GPUs each process of a machine uses its own."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def wait_for_all() -> None:
    """Wait until every process has called this function (barrier), however long it takes.

    Signals are handled meanwhile. A process that dies ends the wait with an error.
    """
    if place()[1] > 1:
        _together(_meet)


def mean_over_all(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes; shapes must be equal in all processes."""
    world = place()[1]
    if world == 1:
        return
    import torch
    from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

    flat = _flatten_dense_tensors(list(tensors))
    _together(lambda dist: dist.all_reduce(flat))
    torch._foreach_copy_(list(tensors), _unflatten_dense_tensors(flat / world, list(tensors)))


def gathered(thing: Any) -> list[Any]:
    """Gather a picklable object from every process, in the order of ranks, however long each takes to have it."""
    world = place()[1]
    if world == 1:
        return [thing]
    wait_for_all()
    everything: list[Any] = [None] * world
    _together(lambda dist: dist.all_gather_object(everything, thing))
    return everything


def in_turns(count: int, make: Callable[[int], _T]) -> Iterator[_T]:
    """Yield make(0), ..., make(count - 1) in the first process, each made by process number % P; in others, nothing.

    All processes must iterate to the end. What is made must be picklable and lie on the CPU. A process waits with what
    it has made until the first one takes it, so that each holds one thing at a time.
    """
    rank, world = place()
    _join()
    for number in range(count):
        maker = number % world
        if maker == rank == 0:
            yield make(number)
        elif maker == rank:
            _send_to_first(make(number))
        elif rank == 0:
            yield _taken_from(maker)


def from_first(make: Callable[[], _T]) -> _T:
    """What the first process makes, in every process, however long it takes; must be picklable and lie on the CPU."""
    rank, world = place()
    _join()
    held: list[Any] = [make() if rank == 0 else None]
    if world > 1:
        wait_for_all()
        _together(lambda dist: dist.broadcast_object_list(held, 0, device=_host()))
    made: _T = held[0]
    return made


def sum_over_all(tensor: Tensor) -> Tensor:
    """A new tensor with the sum over all processes, in every process."""
    total = tensor.detach().clone()
    if place()[1] > 1:
        _together(lambda dist: dist.all_reduce(total))
    return total


def total_over_all(*counts: int) -> tuple[int, ...]:
    """Counts summed over all processes."""
    if place()[1] == 1:
        return counts
    import torch

    return tuple(sum_over_all(torch.tensor(counts, dtype=torch.int64)).tolist())


def tell_others(message: str) -> None:
    """Store the error that stops this process, for the other processes to report."""
    if place()[1] == 1:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        try:
            _store().set(_WORD, f"process {place()[0]} of {place()[1]} stopped: {message}")
        except RuntimeError:  # the process that held the store is gone
            pass


def leave() -> None:
    """Leave the process group at the end, because threads that still wait for it can abort an exiting process."""
    if place()[1] == 1:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _together(work: Callable[[Any], _T]) -> _T:
    """Run a collective operation with torch.distributed.

    Raises:
        OtherProcessFailed: another process has failed.
    """
    dist = _joined()
    try:
        return work(dist)
    except RuntimeError as error:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise OtherProcessFailed(_word_left() or _lost(error)) from None


_START = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
_WORD = f"robustgen/failed/{_START}"


def _word_left() -> str:
    try:
        return str(_store().get(_WORD).decode()) if _store().check([_WORD]) else ""
    except RuntimeError:
        return ""


def _lost(error: RuntimeError) -> str:
    first = re.sub(r"^\[[^]]*\] *", "", (str(error).splitlines() or [""])[0]).split(". ")[0]
    return f"another process died or cannot be reached ({first}); run the command again to resume"


def _join() -> None:
    """Join the other processes before work that may fail, so that they learn of an error."""
    if place()[1] > 1:
        _together(lambda dist: None)


def _meet(dist: Any) -> None:
    """All-reduce nothing, on the host: a barrier by nccl would have to guess each process's GPU."""
    import torch

    arrived = dist.all_reduce(torch.zeros(1), group=_Waiting.group, async_op=True)
    while not arrived.is_completed():  # a blocking wait would keep Python from handling SIGTERM
        time.sleep(0.02)
    arrived.wait()


class _Waiting:
    """The group of all processes in which they wait: other operations give up after half an hour."""

    group: Any = None
    limit = timedelta(days=365)


def _send_to_first(thing: Any) -> None:
    _together(lambda dist: dist.send_object_list([thing], 0, device=_host()))


def _taken_from(rank: int) -> Any:
    held: list[Any] = [None]
    _together(lambda dist: dist.recv_object_list(held, rank, device=_host()))
    return held[0]


def _host() -> Any:
    import torch

    return torch.device("cpu")


def _store() -> Any:
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def _joined() -> Any:
    """torch.distributed with the process group initialized.

    A restarting torchrun may keep its store. A new prefix hides the addresses of dead processes from the new ones.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if not dist.is_initialized():
        shared, rank, world = next(rendezvous("env://"))
        store = PrefixStore(f"robustgen/start-{_START}", shared)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world)
        _Waiting.group = dist.new_group(backend="gloo", timeout=_Waiting.limit)
        if not torch.cuda.is_available():  # with nccl this could wait forever after a failure
            atexit.register(leave)
    return dist
