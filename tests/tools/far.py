"""Calls whose operands reach past 2^31 elements, in the interpreter's process.

The memory is reserved and mostly never touched, so that it costs a few pages. Of a large chunk one program alone runs.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from triton.runtime.interpreter import interpreter_builder

from harness.kernels.all_gather import all_gather_kernel
from harness.kernels.all_to_all import all_to_all_kernel
from harness.kernels.reduce_scatter import reduce_scatter_kernel
from harness.system.collectives import TritonCollectives

Bytes = NDArray[np.uint8]
BLOCK = 64
RESERVED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
WRAPPED = 1 << 32
"""How far before its place an access may land whose offset has wrapped around: that memory is reserved too."""


class Memory:
    """Zeros that take no memory until they are written."""

    def __init__(self, nbytes: int) -> None:
        self._bytes = np.frombuffer(mmap.mmap(-1, 2 * WRAPPED + nbytes, flags=RESERVED), np.uint8)

    @property
    def address(self) -> int:
        return int(self._bytes.ctypes.data) + WRAPPED

    def at(self, start: int, count: int) -> Bytes:
        return self._bytes[WRAPPED + start : WRAPPED + start + count]

    def tensor(self, count: int) -> torch.Tensor:
        """The first bytes of it, which is all that the interpreter need know."""
        return torch.from_numpy(self.at(0, count))


class Uneven:
    """The context of the last rank of a group whose chunks have `counts` bytes, and whose tensors `memories` hold."""

    device = torch.device("cpu")

    def __init__(self, counts: list[int], memories: list[Memory]) -> None:
        self.counts, self.rank, self.size = counts, len(counts) - 1, len(counts)
        self._memories = memories

    def peer_addresses(self, tensor: torch.Tensor) -> torch.Tensor:
        return table(self._memories)

    def barrier(self) -> None:
        pass


def table(memories: list[Memory]) -> torch.Tensor:
    return torch.tensor([each.address for each in memories])


def pattern(count: int, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(1, 60, count, dtype=np.uint8)


@contextmanager
def program(number: int) -> Iterator[None]:
    """Have the only program of a grid be that of a larger one."""
    shown = interpreter_builder.create_get_program_id

    def later(axis: int) -> Any:
        handle = shown(axis)
        handle.data = handle.data + np.int32(number)
        return handle

    interpreter_builder.create_get_program_id = later
    try:
        yield
    finally:
        interpreter_builder.create_get_program_id = shown


def chunk(kind: str, counts: list[int]) -> bool:
    """Whether the last rank's chunk, behind chunks of so many bytes, is moved or summed where it lies."""
    before, count, size = sum(counts[:-1]), counts[-1], len(counts)
    memories = [Memory(before + count) for _ in counts]
    context: Any = Uneven(counts, memories)
    if kind == "all_gather":
        source = pattern(count, 1)
        TritonCollectives().all_gather(context, memories[-1].tensor(BLOCK), torch.from_numpy(source))
        return all(bool((each.at(before, count) == source).all()) for each in memories)
    for seed, memory in enumerate(memories):
        memory.at(before, count)[:] = pattern(count, seed)
    output = torch.zeros(count, dtype=torch.uint8)
    TritonCollectives().reduce_scatter(context, output, memories[-1].tensor(BLOCK), "sum")
    return bool((output.numpy() == sum(pattern(count, seed) for seed in range(size))).all())


def last_block(kind: str, size: int, count: int) -> bool:
    """Whether the last rank of `size` moves or sums the last block of its chunk of `count` bytes where it lies, and
    every other's in an all-to-all."""
    begin, rank = (count - 1) // BLOCK * BLOCK, size - 1
    length, start = count - begin, rank * count
    local = Memory(size * count if kind == "all_to_all" else count)
    memories = [Memory(size * count) for _ in range(size)]
    given = table(memories)
    how = {"SIZE": size, "BLOCK": BLOCK, "PART": BLOCK}
    done = count // 16 * 16
    starts = [peer * count for peer in range(size)] if kind == "all_to_all" else [0] * size
    for peer, at in enumerate(starts):
        local.at(at + begin, length)[:] = pattern(length, peer if kind == "all_to_all" else 0)
        memories[peer].at(start + begin, length)[:] = pattern(length, peer) if kind == "reduce_scatter" else 0
    with program(begin // BLOCK):
        if kind == "all_gather":
            all_gather_kernel[(1,)](given, local.tensor(BLOCK), start, done, count, size, **how)
        elif kind == "all_to_all":
            all_to_all_kernel[(1,)](given, local.tensor(BLOCK), rank, done, count, size, **how)
        else:
            sums = {"BF16": False, "INTEGER": True, "MAX": False, "MIN": False}
            reduce_scatter_kernel[(1,)](given, local.tensor(BLOCK), start, done, count, 1.0, **how, **sums)
    if kind == "reduce_scatter":
        return bool((local.at(begin, length) == sum(pattern(length, peer) for peer in range(size))).all())
    wanted = (pattern(length, peer if kind == "all_to_all" else 0) for peer in range(size))
    return all(
        bool((memory.at(start + begin, length) == want).all()) for memory, want in zip(memories, wanted, strict=True)
    )
