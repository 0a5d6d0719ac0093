"""Memory of peers as tensors of this rank: loads, stores, signals, and sums in fp32 that are rounded once.

Invariant: no kernel waits for another program of its own grid, so each also runs in Triton's interpreter.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
import triton
import triton.language as tl

from harness.system.collectives import CollectiveContext, bits

BLOCK = 8192
COMBINE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]
COMBINE = {"sum": torch.add, "avg": torch.add, "max": torch.maximum, "min": torch.minimum}


@triton.jit(do_not_specialize=("start", "count"), do_not_specialize_on_alignment=("local",))
def move_kernel(addresses, local, start, count, STORES: tl.constexpr, BLOCK: tl.constexpr):
    """Program (p, b) moves block b between row p of `local` and element `start` of the memory at `addresses[p]`.

    STORES: every peer gets the one row of `local`.
    """
    index = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    remote = tl.load(addresses + tl.program_id(0)).to(local.dtype) + start
    if STORES:
        tl.store(remote + index, tl.load(local + index, mask=mask), mask=mask)
    else:
        row = tl.program_id(0).to(tl.int64) * count
        tl.store(local + row + index, tl.load(remote + index, mask=mask), mask=mask)


@triton.jit(do_not_specialize=("peer", "rank", "epoch"))
def signal_kernel(pads, peer, rank, epoch):
    """Leave `epoch` in this rank's word of a peer's pad. Grid (1,)."""
    pad = tl.load(pads + peer).to(tl.pointer_type(tl.int32))
    tl.atomic_xchg(pad + rank, epoch, sem="release", scope="sys")


@triton.jit(do_not_specialize=("peer", "rank", "epoch"))
def wait_kernel(pads, peer, rank, epoch):
    """Wait until a peer's word of this rank's pad has come to `epoch`. Grid (1,)."""
    pad = tl.load(pads + rank).to(tl.pointer_type(tl.int32))
    missing = 1
    while missing > 0:
        missing = epoch - tl.atomic_add(pad + peer, 0, sem="acquire", scope="sys")


def pull(addresses: torch.Tensor, like: torch.Tensor, start: int, count: int) -> torch.Tensor:
    """`count` elements from `start` on at each address, a row for each, of the dtype of `like`."""
    rows = torch.empty(len(addresses), count, dtype=like.dtype, device=like.device)
    if count:
        move_kernel[_grid(addresses, count)](addresses, bits(rows), start, count, STORES=False, BLOCK=BLOCK)
    return rows


def push(addresses: torch.Tensor, source: torch.Tensor, start: int) -> None:
    """Store `source` at element `start` of the memory at each address."""
    if count := source.numel():
        move_kernel[_grid(addresses, count)](addresses, bits(source), start, count, STORES=True, BLOCK=BLOCK)


def signal(context: CollectiveContext, peer: int, epoch: int) -> None:
    signal_kernel[(1,)](context.signal_pads, peer, context.rank, epoch, num_warps=1)


def wait(context: CollectiveContext, peer: int, epoch: int) -> None:
    wait_kernel[(1,)](context.signal_pads, peer, context.rank, epoch, num_warps=1)


def wide(values: torch.Tensor) -> torch.Tensor:
    """The values in the type in which partial sums are kept."""
    return values.to(torch.float32 if values.is_floating_point() else torch.int32)


def reduced(rows: torch.Tensor, op: str) -> torch.Tensor:
    """The sum of rows, or the largest or smallest of each column, not rounded."""
    total = wide(rows[0])
    for row in rows[1:]:
        total = COMBINE[op](total, wide(row))
    return total


def rounded(total: torch.Tensor, op: str, size: int, dtype: torch.dtype) -> torch.Tensor:
    """The result of a reduction over `size` ranks."""
    return (total * (1.0 / size) if op == "avg" else total).to(dtype)


def starts_of(context: CollectiveContext, whole: torch.Tensor) -> list[int]:
    """Where each rank's chunk of a whole operand begins, and behind them its end."""
    counts = context.counts or [whole.numel() // context.size] * context.size
    return [0, *accumulate(counts)]


def shares_of(count: int, size: int) -> list[int]:
    """Where `size` about equal shares of `count` elements begin, and behind them their end."""
    return [count * index // size for index in range(size + 1)]


def _grid(addresses: torch.Tensor, count: int) -> tuple[int, int]:
    return len(addresses), -(-count // BLOCK)
