"""The built-in collectives in CUDA C++: all-gather, reduce-scatter and all-reduce. The library makes the other calls.

Invariant: which kernel runs, and on which grid, follows from counts, width and size alone, which all ranks share. A
call copies nothing from the host and does not wait. A communicator has its memory from `open` on, and all kernels of a
communicator run on one stream at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Hashable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from harness.system.collectives import CollectiveContext, NotOwned, Unsupported
from harness.system.cuda import CudaSource

HERE = Path(__file__).parent
THREADS = 512
"""Of a block."""
WORD, PACKET = 16, 12
"""Bytes: the widest access, which is also that of a packet, and a packet's data."""
SMALL, SPACE = 2 << 20, 12 << 20
"""Bytes of the largest small call, and of the space for packets."""
NEAR = 16
"""Addresses of ranks that come with a launch, as the kernels say."""
BLOCKS = 128
"""At most."""
FEW = 64
"""Blocks, at most, of a kernel that may wait on the GPU for the one before it to end."""
HOPPER = (9, 0)
"""Compute capability from which on a kernel may wait on the GPU for the one before it."""
KEPT = 4096
"""Addresses that a process keeps as kernels take them."""
TILE, STAGING = 64 << 10, 64
"""Bytes that a block stages at a time; the most blocks that stage."""
COPYING, HEAD, ALIGNED = 16, 3 << 20, 512
"""The most blocks that copy beside copy engines; about how many bytes they push meanwhile, a multiple of that."""
COPIED = 128 << 20
"""Bytes from which on copy engines move an all-gather."""
MEETING = 2 * BLOCKS
"""Flags before those by which blocks meet: the epochs of the blocks of small calls, and of the others."""
BITS = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
NUMBERS = {
    torch.float32: "float",
    torch.float16: "Float16",
    torch.bfloat16: "Bfloat16",
    torch.int32: "int",
    torch.int8: "signed char",
    torch.uint8: "u8",
}
OPS = {"sum": 0, "avg": 0, "max": 1, "min": 2}
"""As the kernels number them."""


class Ranks(ctypes.Structure):
    """An address of each rank, as a kernel takes them: the first `NEAR`, or those of more ranks in a table."""

    _fields_ = (("near", ctypes.c_int64 * NEAR), ("far", ctypes.c_int64))
    table: torch.Tensor | None = None
    """What `far` points to."""


class Memory(NamedTuple):
    """A rank's own of one communicator."""

    spaces: Ranks
    """Addresses of every rank's space for packets, stage and flags."""
    stages: Ranks
    flags: Ranks
    small: torch.Tensor
    """Epochs of small calls, one for each block."""
    large: torch.Tensor
    """The same of the others."""
    beside: torch.cuda.Stream | None
    """For a rank's own copy while copy engines make the others; None where there is no GPU."""
    is_early: bool
    """Whether small kernels may wait on the GPU for the one before them."""


class CudaCollectives:
    """Small calls by LL, others by fused kernels, and the largest all-gathers by copy engines."""

    ops = tuple(OPS)
    uneven = captures = True
    fallback = "triton"
    ll, fused = (CudaSource(HERE / f"{name}.cu") for name in ("ll", "fused"))

    def __init__(self) -> None:
        self.memories: dict[Hashable, Memory] = {}

    def open(self, context: CollectiveContext) -> None:
        if context.size > THREADS or (context.shares_gpu and context.max_blocks == 1):
            raise Unsupported
        space = context.workspace(SPACE + 2 * STAGING * TILE)
        flags = context.flags(MEETING + BLOCKS * context.size)
        self.memories[context.identity] = Memory(
            *(addresses(context, each) for each in (space, space[SPACE:], flags[MEETING:])),
            *(flags[first : first + BLOCKS] for first in range(0, MEETING, BLOCKS)),
            torch.cuda.Stream() if flags.is_cuda else None,
            is_hopper(flags) and not context.shares_gpu,
        )

    def close(self, context: CollectiveContext) -> None:
        del self.memories[context.identity]

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        context.peer_pointers(output)  # the library makes a call of any size whose operand is not owned
        width, counts = source.element_size(), context.counts or (source.numel(),) * context.size
        nbytes = max(counts) * width
        if self.is_small(context, counts, width):
            per, word = max(1, width // 4), min(width, 4)  # a packet holds no whole elements of 8 bytes
            count = np.int64(source.numel() * per)
            self._small(context, f"all_gather<{BITS[word]}>", nbytes, source, output, count)
            return
        start = sum(counts[: context.rank]) * width
        if nbytes >= COPIED:
            self._copy(context, output, source, start)
            return
        memory = self.memories[context.identity]
        self.fused.launch(
            f"all_gather<{BITS[width]}>",
            grid(context, nbytes, BLOCKS),
            THREADS,
            addresses(context, output),
            memory.flags,
            memory.large,
            source,
            np.int64(start),
            np.int64(source.numel()),
            *place(context),
        )

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        number, how = reduction(context, output.dtype, op)
        context.peer_pointers(source)
        width, counts = output.element_size(), context.counts or (output.numel(),) * context.size
        nbytes = max(counts) * width
        if self.is_small(context, counts, width):
            count = np.int64(output.numel())
            self._small(context, f"reduce_all<{number}>", nbytes, source, output, count, count, how=how)
            return
        memory, blocks = self.memories[context.identity], grid(context, nbytes, BLOCKS)
        self.fused.launch(
            f"reduce_scatter<{number}>",
            blocks,
            THREADS,
            addresses(context, source),
            memory.flags,
            memory.large,
            output,
            np.int64(sum(counts[: context.rank]) * width),
            np.int64(output.numel()),
            *place(context),
            *how,
        )

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        number, how = reduction(context, output.dtype, op)
        context.peer_pointers(source)
        width, count = output.element_size(), output.numel()
        if self.is_small(context, (count,) * context.size, width, "all_reduce"):
            alike = np.int64(0)
            self._small(
                context, f"reduce_all<{number}>", count * width, source, output, np.int64(count), alike, how=how
            )
            return
        try:
            outputs = addresses(context, output)
        except NotOwned:
            self._staged(context, output, source, number, how)
            return
        part = whole_words(-(-count // context.size))
        blocks, memory = grid(context, part * width, BLOCKS), self.memories[context.identity]
        begin = min(context.rank * part, count)
        self.fused.launch(
            f"all_reduce<{number}>",
            blocks,
            THREADS,
            addresses(context, source),
            outputs,
            memory.flags,
            memory.large,
            np.int64(begin * width),
            np.int64(min(part, count - begin)),
            *place(context),
            *how,
        )

    def is_small(self, context: CollectiveContext, counts: tuple[int, ...], width: int, kind: str = "") -> bool:
        """Whether every rank sends to every rank, and all of it fits."""
        return len({*counts}) == 1 and 0 < counts[0] * width <= small(len(counts), context.max_blocks, kind)

    def _staged(
        self,
        context: CollectiveContext,
        output: torch.Tensor,
        source: torch.Tensor,
        number: str,
        how: tuple[np.generic, ...],
    ) -> None:
        """An all-reduce whose outputs peers do not reach."""
        memory, width, count = self.memories[context.identity], output.element_size(), output.numel()
        part = -(-count // context.size)
        blocks = grid(context, part * width, STAGING)
        part = whole_words(part)
        self.fused.launch(
            f"all_reduce_staged<{number}>",
            blocks,
            THREADS,
            addresses(context, source),
            memory.stages,
            memory.flags,
            memory.large,
            output,
            np.int64(count),
            np.int64(part),
            np.int64(min(TILE // width, whole_words(-(-part // blocks)))),
            *place(context),
            *how,
        )

    def _small(
        self,
        context: CollectiveContext,
        kernel: str,
        nbytes: int,
        source: torch.Tensor,
        output: torch.Tensor,
        *counts: np.int64,
        how: tuple[np.generic, ...] = (),
    ) -> None:
        memory = self.memories[context.identity]
        part = _part(context.size)
        blocks = max(1, min(BLOCKS, context.max_blocks, -(-nbytes // PACKET // min(part, THREADS))))
        self.ll.launch(
            kernel,
            blocks,
            THREADS,
            memory.spaces,
            memory.small,
            source,
            output,
            *counts,
            *place(context),
            np.int64(part * BLOCKS),
            np.int64(part),
            *how,
            early=memory.is_early and blocks <= FEW,
        )

    def _copy(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, start: int) -> None:
        """Copy engines move the chunk to every peer, between two barriers."""
        outputs, nbytes = context.peer_pointers(output), source.numel() * source.element_size()
        from cuda.bindings import runtime  # noqa: PLC0415  (only on GPUs)

        current, kind = torch.cuda.current_stream(), runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._barrier(context)
        beside, width = self.memories[context.identity].beside, source.element_size()
        assert beside is not None
        if nbytes:
            head = min(HEAD // (context.size - 1), nbytes // 2) if context.size > 1 else 0
            head = head // ALIGNED * ALIGNED
            is_within = outputs[context.rank] + start == source.data_ptr()
            beside.wait_stream(current)
            with torch.cuda.stream(beside):
                self.fused.launch(
                    f"beside<{BITS[width]}>",
                    grid(context, nbytes, COPYING),
                    THREADS,
                    addresses(context, output),
                    source,
                    np.int64(start),
                    np.int64(0 if is_within else source.numel()),
                    np.int64(head // width),
                    *place(context),
                )
            for peer in _peers(context):
                into_peer, rest = outputs[peer] + start + head, nbytes - head
                (error,) = runtime.cudaMemcpyAsync(into_peer, source.data_ptr() + head, rest, kind, current.cuda_stream)
                if error != runtime.cudaError_t.cudaSuccess:
                    raise RuntimeError(f"CUDA cannot copy {rest} bytes to {into_peer:#x} of rank {peer}: {error.name}")
            current.wait_stream(beside)  # a capture waits for no stream that it did not fork to
        self._barrier(context)

    def _barrier(self, context: CollectiveContext) -> None:
        memory = self.memories[context.identity]
        self.fused.launch("barrier", 1, THREADS, memory.flags, memory.large, *place(context))


def is_hopper(tensor: torch.Tensor) -> bool:
    """Whether it lies on a GPU of that capability."""
    return tensor.is_cuda and torch.cuda.get_device_capability() >= HOPPER


def addresses(context: CollectiveContext, tensor: torch.Tensor) -> Ranks:
    """Where each rank's counterpart of a tensor is. Raises `NotOwned`."""
    if context.size <= NEAR:
        return _near(tuple(context.peer_pointers(tensor)))
    table = context.peer_addresses(tensor)
    found = Ranks(far=table.data_ptr())
    found.table = table
    return found


@lru_cache(KEPT)
def _near(addresses: Sequence[int]) -> Ranks:
    return Ranks((ctypes.c_int64 * NEAR)(*addresses))


def place(context: CollectiveContext) -> tuple[np.int32, np.int32]:
    return np.int32(context.rank), np.int32(context.size)


def _peers(context: CollectiveContext) -> Iterator[int]:
    """Each rank begins with another one, so that no peer gets everything at one time."""
    return ((context.rank + turn) % context.size for turn in range(1, context.size))


@cache
def _part(size: int) -> int:
    """Packets that each block has of a slot, of which each of the two halves of the space has one for each rank."""
    return SPACE // WORD // 2 // size // BLOCKS


@cache
def small(size: int, blocks: int, kind: str = "") -> int:
    """Bytes of the largest small call of so many ranks, which fits into the parts of so many blocks."""
    most = min(SMALL, _part(size) * min(BLOCKS, blocks) * PACKET)
    return min(most, 2 * SMALL // size) if kind == "all_reduce" else most  # all of it goes to every rank


def whole_words(count: int) -> int:
    """Elements of any type that fill words."""
    return -(-count // WORD) * WORD


def grid(context: CollectiveContext, nbytes: int, most: int) -> int:
    """As many as there are words for their threads, and as may run at one time."""
    return max(1, min(most, context.max_blocks, -(-nbytes // (THREADS * WORD))))


def reduction(context: CollectiveContext, dtype: torch.dtype, op: str) -> tuple[str, tuple[np.generic, ...]]:
    """The type of a kernel's elements, and its last arguments. Raises `Unsupported`."""
    if dtype not in NUMBERS or op not in OPS or (op == "avg" and not dtype.is_floating_point):
        raise Unsupported
    return NUMBERS[dtype], (np.int32(OPS[op]), np.float32(1.0 / context.size if op == "avg" else 1.0))
