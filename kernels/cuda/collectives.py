"""The built-in collectives in CUDA C++: all-gather, reduce-scatter and all-reduce. The library makes the other calls.

Invariant: which kernel runs, and on which grid, follows from counts, width and size alone, which all ranks share. A
call copies nothing from the host and does not wait. A communicator has its memory from `open` on, and all kernels of a
communicator run on one stream at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from harness.system.collectives import CollectiveContext, NotOwned, Unsupported
from harness.system.cuda import CudaSource

HERE = Path(__file__).parent
THREADS = 512
WORD, PACKET = 16, 12
"""Bytes: the widest access, which is also that of a packet, and a packet's data."""
SMALL, SPACE = 3 << 20, 20 << 20
"""Bytes of the largest small call, and of the space for packets."""
BLOCKS = 128
"""At most."""
TILE, STAGING, COPYING = 64 << 10, 64, 16
"""Bytes that a block stages at a time; the most blocks that stage, and that copy beside copy engines."""
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


class Memory(NamedTuple):
    """A rank's own of one communicator."""

    spaces: torch.Tensor
    """Addresses of every rank's space for packets, stage and flags."""
    stages: torch.Tensor
    flags: torch.Tensor
    small: torch.Tensor
    """Epochs of small calls, one for each block."""
    large: torch.Tensor
    """Epochs of the others."""
    beside: torch.cuda.Stream | None
    """For a rank's own copy while copy engines make the others; None where there is no GPU."""


class CudaCollectives:
    """Small calls by LL, others by fused kernels, and the largest all-gathers by copy engines."""

    ops = tuple(OPS)
    uneven = captures = True
    fallback = "triton"
    ll, fused = CudaSource(HERE / "ll.cu"), CudaSource(HERE / "fused.cu")

    def __init__(self) -> None:
        self._memories: dict[Hashable, Memory] = {}

    def open(self, context: CollectiveContext) -> None:
        if context.size > THREADS or (context.shares_gpu and context.max_blocks == 1):
            raise Unsupported
        space = context.workspace(SPACE + 2 * STAGING * TILE)
        flags = context.flags(MEETING + BLOCKS * context.size)
        self._memories[context.identity] = Memory(
            context.peer_addresses(space),
            context.peer_addresses(space[SPACE:]),
            context.peer_addresses(flags[MEETING:]),
            flags[:BLOCKS],
            flags[BLOCKS:MEETING],
            torch.cuda.Stream() if flags.is_cuda else None,
        )

    def close(self, context: CollectiveContext) -> None:
        del self._memories[context.identity]

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        context.peer_pointers(output)  # the library makes a call of any size whose operand is not owned
        width, counts = source.element_size(), context.counts or (source.numel(),) * context.size
        nbytes = max(counts) * width
        if _is_small(context, counts, width):
            per, word = max(1, width // 4), min(width, 4)  # a packet holds no whole elements of 8 bytes
            count = np.int64(source.numel() * per)
            self._small(context, f"all_gather<{BITS[word]}>", nbytes, source, output, count)
            return
        start = sum(counts[: context.rank]) * width
        if nbytes >= COPIED:
            self._copy(context, output, source, start)
            return
        memory = self._memories[context.identity]
        self.fused.launch(
            f"all_gather<{BITS[width]}>",
            _blocks(context, nbytes, BLOCKS),
            THREADS,
            context.peer_addresses(output),
            memory.flags,
            memory.large,
            source,
            np.int64(start),
            np.int64(source.numel()),
            *_place(context),
        )

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        number, how = _reduction(context, output.dtype, op)
        context.peer_pointers(source)
        width, counts = output.element_size(), context.counts or (output.numel(),) * context.size
        nbytes = max(counts) * width
        if _is_small(context, counts, width):
            count = np.int64(output.numel())
            self._small(context, f"reduce_all<{number}>", nbytes, source, output, count, count, how=how)
            return
        memory = self._memories[context.identity]
        self.fused.launch(
            f"reduce_scatter<{number}>",
            _blocks(context, nbytes, BLOCKS),
            THREADS,
            context.peer_addresses(source),
            memory.flags,
            memory.large,
            output,
            np.int64(sum(counts[: context.rank]) * width),
            np.int64(output.numel()),
            *_place(context),
            *how,
        )

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        number, how = _reduction(context, output.dtype, op)
        context.peer_pointers(source)
        width, count = output.element_size(), output.numel()
        if _is_small(context, (count,) * context.size, width, "all_reduce"):
            alike = np.int64(0)
            self._small(
                context, f"reduce_all<{number}>", count * width, source, output, np.int64(count), alike, how=how
            )
            return
        sources = context.peer_addresses(source)
        try:
            outputs = context.peer_addresses(output)
        except NotOwned:
            self._staged(context, output, sources, number, how)
            return
        part = _whole(-(-count // context.size))
        begin, memory = min(context.rank * part, count), self._memories[context.identity]
        self.fused.launch(
            f"all_reduce<{number}>",
            _blocks(context, part * width, BLOCKS),
            THREADS,
            sources,
            outputs,
            memory.flags,
            memory.large,
            np.int64(begin * width),
            np.int64(min(part, count - begin)),
            *_place(context),
            *how,
        )

    def _staged(
        self,
        context: CollectiveContext,
        output: torch.Tensor,
        sources: torch.Tensor,
        number: str,
        how: tuple[np.generic, ...],
    ) -> None:
        """An all-reduce whose outputs peers do not reach."""
        memory, width, count = self._memories[context.identity], output.element_size(), output.numel()
        part = -(-count // context.size)
        blocks = _blocks(context, part * width, STAGING)
        part = _whole(part)
        self.fused.launch(
            f"all_reduce_staged<{number}>",
            blocks,
            THREADS,
            sources,
            memory.stages,
            memory.flags,
            memory.large,
            output,
            np.int64(count),
            np.int64(part),
            np.int64(min(TILE // width, _whole(-(-part // blocks)))),
            *_place(context),
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
        memory = self._memories[context.identity]
        part = _part(context.size)
        self.ll.launch(
            kernel,
            max(1, min(BLOCKS, context.max_blocks, -(-nbytes // PACKET // min(part, THREADS)))),
            THREADS,
            memory.spaces,
            memory.small,
            source,
            output,
            *counts,
            *_place(context),
            np.int64(part * BLOCKS),
            np.int64(part),
            *how,
        )

    def _copy(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, start: int) -> None:
        """Copy engines move the chunk to every peer, between two barriers."""
        outputs, nbytes = context.peer_pointers(output), source.numel() * source.element_size()
        from cuda.bindings import runtime  # noqa: PLC0415  (only on GPUs)

        current, kind = torch.cuda.current_stream(), runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._barrier(context)
        beside = self._memories[context.identity].beside
        assert beside is not None
        is_forked = bool(nbytes) and outputs[context.rank] + start != source.data_ptr()
        if is_forked:
            beside.wait_stream(current)
            with torch.cuda.stream(beside):
                count, into = np.int64(source.numel()), output.view(-1)[start // source.element_size() :]
                blocks = _blocks(context, nbytes, COPYING)
                self.fused.launch(f"copy_own<{BITS[source.element_size()]}>", blocks, THREADS, into, source, count)
        for peer in _peers(context) if nbytes else ():
            into_peer = outputs[peer] + start
            (error,) = runtime.cudaMemcpyAsync(into_peer, source.data_ptr(), nbytes, kind, current.cuda_stream)
            if error != runtime.cudaError_t.cudaSuccess:
                raise RuntimeError(f"CUDA cannot copy {nbytes} bytes to {into_peer:#x} of rank {peer}: {error.name}")
        if is_forked:  # a capture waits for no stream that it did not fork to
            current.wait_stream(beside)
        self._barrier(context)

    def _barrier(self, context: CollectiveContext) -> None:
        memory = self._memories[context.identity]
        self.fused.launch("barrier", 1, THREADS, memory.flags, memory.large, *_place(context))


def _place(context: CollectiveContext) -> tuple[np.int32, np.int32]:
    return np.int32(context.rank), np.int32(context.size)


def _peers(context: CollectiveContext) -> Iterator[int]:
    """Each rank begins with another one, so that no peer gets everything at one time."""
    return ((context.rank + turn) % context.size for turn in range(1, context.size))


def _part(size: int) -> int:
    """Packets that each block has of a slot, of which each of the two halves of the space has one for each rank."""
    return SPACE // WORD // 2 // size // BLOCKS


def small(size: int, blocks: int, kind: str = "") -> int:
    """Bytes of the largest small call of so many ranks, which fits into the parts of so many blocks."""
    most = min(SMALL, _part(size) * min(BLOCKS, blocks) * PACKET)
    return min(most, 2 * SMALL // size) if kind == "all_reduce" else most  # all of it goes to every rank


def _is_small(context: CollectiveContext, counts: tuple[int, ...], width: int, kind: str = "") -> bool:
    """Whether every rank sends to every rank, and all of it fits."""
    return len({*counts}) == 1 and 0 < counts[0] * width <= small(len(counts), context.max_blocks, kind)


def _whole(count: int) -> int:
    """Elements of any type that fill words."""
    return -(-count // WORD) * WORD


def _blocks(context: CollectiveContext, nbytes: int, most: int) -> int:
    """As many as there are words for their threads, and as may run at one time."""
    return max(1, min(most, context.max_blocks, -(-nbytes // (THREADS * WORD))))


def _reduction(context: CollectiveContext, dtype: torch.dtype, op: str) -> tuple[str, tuple[np.generic, ...]]:
    """The type of a kernel's elements, and its last arguments. Raises `Unsupported`."""
    if dtype not in NUMBERS or op not in OPS or (op == "avg" and not dtype.is_floating_point):
        raise Unsupported
    return NUMBERS[dtype], (np.int32(OPS[op]), np.float32(1.0 / context.size if op == "avg" else 1.0))
