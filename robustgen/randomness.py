"""Random numbers that depend only on a place (seed and key), not on what was computed before.

A place is a seed and some words: `rng_for(seed, "train", step)`. The same place gives the same numbers
after a resume, in another process, on another device; no generator state is ever saved. Where every image
of a batch needs its own numbers (sampling, evaluation), `rng.each(ids)` holds one stream per image, so that
no number depends on the batch size or on the order of the images.

The numbers come from a counter: draw i of a stream with key k is SplitMix64's output function at
k + (i + 1) * 2^64/phi (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195), in int64 tensor arithmetic.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit value: torch has no arithmetic on uint64."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shifted(bits: Tensor, count: int) -> Tensor:
    """Logical shift right: torch's `>>` copies the sign bit."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _scramble(bits: Tensor) -> Tensor:
    """SplitMix64's output function: a bijection of 64-bit integers."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _digest(*place: object) -> int:
    words = repr(place).encode()
    return _signed(int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little"))


class Rng:
    """One stream of random numbers, or one stream for each of N rows.

    `keys` is an int64 tensor: of shape () for one stream, (N,) for one per row. Successive draws differ;
    two objects created at the same place give the same draws.
    """

    def __init__(self, keys: Tensor):
        if keys.dtype != torch.int64 or keys.ndim > 1:
            raise ValueError(f"keys must be int64 of shape () or (N,), got {keys.dtype} of shape {tuple(keys.shape)}")
        self.keys = keys
        self._drawn = 0

    def __repr__(self) -> str:
        return f"Rng({'one stream' if self.keys.ndim == 0 else f'{len(self.keys)} streams'})"

    def at(self, *place: object) -> Rng:
        """The streams of a place below this one: `rng.at("restart", 3)`."""
        return Rng(_scramble(self.keys ^ _digest(*place)))

    def each(self, ids: Tensor | np.ndarray | Sequence[int]) -> Rng:
        """One stream for each id, from a single stream. Equal ids get equal streams."""
        if self.keys.ndim:
            raise ValueError("each() splits a single stream; these are already one a row")
        numbers = torch.as_tensor(ids, dtype=torch.int64, device=self.keys.device)
        return Rng(_scramble(self.keys ^ _scramble((numbers + 1) * _GOLDEN)))

    def rows(self, index: Tensor) -> Rng:
        """The streams of some rows, in their current state; a single stream, which has no rows, is returned itself."""
        if self.keys.ndim == 0:
            return self
        chosen = Rng(self.keys[index])
        chosen._drawn = self._drawn
        return chosen

    def share(self, which: int, of: int, rows: int) -> Rng:
        """The stream of rows which, which + of, which + 2 * of ... of a batch, `rows` of them, from this single stream.

        A draw whose first axis is a multiple of `rows` is made for the whole batch, and these rows are selected, from
        each copy if the draw is for several copies of the batch. Any other draw is that of the whole batch. `each`
        takes numbers of these rows, and `at` returns shares again.
        """
        if self.keys.ndim:
            raise ValueError("share() divides a single stream; these are already one a row")
        return self if of == 1 else _Share(self.keys, which, of, rows)

    def to(self, device: torch.device | str) -> Rng:
        moved = Rng(self.keys.to(device))
        moved._drawn = self._drawn
        return moved

    def _bits(self, rows: int | None, count: int) -> Tensor:
        """`count` new 64-bit values: (count,), or (rows, count) with one stream per row."""
        first = self._drawn + 1
        self._drawn += count
        counter = torch.arange(first, first + count, device=self.keys.device) * _GOLDEN
        if rows is None:
            return _scramble(self.keys + counter)
        return _scramble(self.keys[:, None] + counter)

    def _halves(self, shape: Sequence[int]) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Enough pairs of 32-bit values for `shape`, as two tensors over the last axis."""
        shape = tuple(shape)
        rows = None
        if self.keys.ndim:
            rows = len(self.keys)
            if not shape or shape[0] != rows:
                raise ValueError(f"{rows} streams cannot fill shape {shape}: the first axis must be {rows}")
        per_stream = math.prod(shape if rows is None else shape[1:])
        bits = self._bits(rows, (per_stream + 1) // 2)
        return _shifted(bits, 32), bits & 0xFFFFFFFF, shape

    @staticmethod
    def _shaped(left: Tensor, right: Tensor, shape: tuple[int, ...]) -> Tensor:
        both = torch.cat([left, right], dim=-1)
        size = math.prod(shape if both.ndim == 1 else shape[1:])
        return both[..., :size].reshape(shape)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """float32 in [0, 1), multiples of 2^-24. With one stream per row the first axis is the rows."""
        high, low, shape = self._halves(shape)
        return self._shaped((high >> 8).float() * 2.0**-24, (low >> 8).float() * 2.0**-24, shape)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal float32, by Box and Muller's transform; at most 6.7 in magnitude."""
        high, low, shape = self._halves(shape)
        radius = ((high.float() + 1) * 2.0**-32).log_().mul_(-2).sqrt_()
        angle = low.float() * (2 * math.pi * 2.0**-32)
        return self._shaped(radius * angle.cos(), radius * angle.sin(), shape)

    def integers(self, below: int, shape: Sequence[int]) -> Tensor:
        """int64 in [0, below), uniform to within below / 2^32."""
        if not 0 < below < 1 << 31:
            raise ValueError(f"integers() needs 0 < below < 2^31, got {below}")
        high, low, shape = self._halves(shape)
        return self._shaped((high * below) >> 32, (low * below) >> 32, shape)

    def permutation(self, count: int) -> np.ndarray:
        """A random order of range(count), int64, on the host."""
        if self.keys.ndim:
            raise ValueError("permutation() needs a single stream")
        return np.random.Generator(np.random.Philox(key=int(self.keys) & (2**64 - 1))).permutation(count)

    @contextmanager
    def seeding_torch(self) -> Iterator[torch.Generator]:
        """Seed torch's generator by this place, and restore it on exit: for dropout and initialization."""
        if self.keys.ndim:
            raise ValueError("seeding_torch() needs a single stream")
        devices = [self.keys.device] if self.keys.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield torch.manual_seed(int(self.keys) & (2**63 - 1))


class _Share(Rng):
    """A stream that returns some rows of every batch-shaped draw (`Rng.share`)."""

    def __init__(self, keys: Tensor, which: int, of: int, rows: int):
        super().__init__(keys)
        self._which, self._of, self._count = which, of, rows

    def at(self, *place: object) -> Rng:
        return _Share(super().at(*place).keys, self._which, self._of, self._count)

    def each(self, ids: Tensor | np.ndarray | Sequence[int]) -> Rng:
        return super().each(torch.as_tensor(ids, dtype=torch.int64, device=self.keys.device) * self._of + self._which)

    def to(self, device: torch.device | str) -> Rng:
        moved = _Share(self.keys.to(device), self._which, self._of, self._count)
        moved._drawn = self._drawn
        return moved

    def _taken(self, draw: Callable[[Sequence[int]], Tensor], shape: Sequence[int]) -> Tensor:
        if not shape or not self._count or shape[0] % self._count:
            return draw(shape)
        whole = draw((shape[0] * self._of, *shape[1:]))
        copies = whole.unflatten(0, (shape[0] // self._count, self._count * self._of))
        return copies[:, self._which :: self._of].flatten(0, 1)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        return self._taken(super().uniform, shape)

    def normal(self, shape: Sequence[int]) -> Tensor:
        return self._taken(super().normal, shape)

    def integers(self, below: int, shape: Sequence[int]) -> Tensor:
        return self._taken(partial(super().integers, below), shape)


def rng_for(seed: int, *place: object, device: torch.device | str = "cpu") -> Rng:
    """The stream of a place: `rng_for(seed, "train", step)`. Words are compared by their `repr`."""
    return Rng(torch.tensor(_digest(int(seed), *place), dtype=torch.int64, device=device))


def content_ids(images: np.ndarray) -> np.ndarray:
    """One int64 per image, from its bytes alone: an identity that does not depend on the order of the images."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.array(
        [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little", signed=True) for row in rows],
        dtype=np.int64,
    )
