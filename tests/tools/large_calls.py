"""Calls by the built-in kernels of sizes that programs do not have, on real windows, checked bit for bit.

Each case is a pool policy, which makes its call when the draw is over. So it runs on either substrate, on as many ranks
as the draw has. Ranks make the data of their peers themselves, from a seed that is new in every draw.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from harness.substrate.bits import bits
from harness.system.collectives import CollectiveContext, TritonCollectives
from harness.system.pools.per_group import PerGroup

MIB, PIECE = 1 << 20, 1 << 25
"""Bytes, and elements that are made or compared at a time."""
FINITE = {2: ~0x4000, 4: ~0x40000000}
"""By width: what takes the highest bit of the exponent from a float, so that no sum is infinite."""
POISON = 0x5A


@dataclass(frozen=True)
class Case:
    """A call in which each rank has chunks of `count` elements. `peers` and `own` say by how many elements the tensor
    that peers address and the other one lie off an aligned address, `own` on the last rank alone."""

    kind: str
    dtype: str
    count: int
    peers: int = 0
    own: int = 0


def values(case: Case, seed: int, start: int, count: int, device: torch.device) -> torch.Tensor:
    """Elements of the data that belongs to a seed: any bits, or finite floats where they are added."""
    dtype = getattr(torch, case.dtype)
    first, last = start * dtype.itemsize, (start + count) * dtype.itemsize
    words = torch.arange(first // 8, -(-last // 8), device=device)
    words.add_(seed).mul_(0x1E3779B97F4A7C15)
    words.bitwise_xor_(words >> 32).mul_(0x3F58476D1CE4E5B9)
    words.bitwise_xor_(words >> 29)
    made = words.view(torch.uint8)[first % 8 :][: last - first].view(dtype)
    if case.kind in ("reduce_scatter", "all_reduce") and dtype.is_floating_point:
        bits(made).bitwise_and_(FINITE[dtype.itemsize])
    return made


def pieces(count: int) -> Iterator[tuple[int, int]]:
    """Where each piece begins, and its elements."""
    return ((start, min(PIECE, count - start)) for start in range(0, count, PIECE))


class Call:
    """One rank's end of a case."""

    def __init__(self, context: Any, communicator: Any, case: Case) -> None:
        self._context, self._communicator, self._case = context, communicator, case
        rank, size = communicator.rank, communicator.size
        self._rank, self._size = rank, size
        self._seeds = [word + peer for word in communicator.exchange(secrets.randbits(60))[:1] for peer in range(size)]
        many = size * case.count
        self._addressed = many if case.kind in ("all_gather", "all_to_all", "reduce_scatter") else case.count
        self._local = many if case.kind == "all_to_all" else case.count

    def run(self) -> int:
        """How many elements of this rank's result are wrong. Collective."""
        case, device = self._case, self._context.device
        dtype = getattr(torch, case.dtype)
        shift = case.own * (self._rank == self._size - 1)
        local = torch.empty(shift + self._local, dtype=dtype, device=device)[shift:]
        with self._window(case.peers + self._addressed, dtype) as whole:
            addressed = whole[case.peers :]
            is_pull = case.kind in ("reduce_scatter", "all_reduce")
            source, output = (addressed, local) if is_pull else (local, addressed)
            for start, count in pieces(source.numel()):
                source[start : start + count] = values(case, self._seeds[self._rank], start, count, device)
            output.view(torch.uint8).fill_(POISON)
            self.make(output, source)
            self._context._substrate.device.synchronize()
            wrong = sum(self._wrong(output, start, count) for start, count in pieces(output.numel()))
            self._communicator.barrier()
            return wrong

    @contextmanager
    def _window(self, elements: int, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        pool = self._context.pool("large")
        with pool.use():
            tensor = torch.empty(elements, dtype=dtype, device=self._context.device)
        windows = [self._communicator.register(segment) for segment in pool.segments]
        yield tensor
        for window in windows:
            window.close()

    def make(self, output: torch.Tensor, source: torch.Tensor) -> None:
        kernels, context = TritonCollectives(), CollectiveContext(self._communicator)
        more = {"reduce_scatter": ("sum",), "all_reduce": ("sum",), "broadcast": (self._size - 1,)}
        getattr(kernels, self._case.kind)(context, output, source, *more.get(self._case.kind, ()))
        if context.device.type == "cuda":
            addressed = source if "reduce" in self._case.kind else output
            torch.cuda.set_sync_debug_mode("error")  # from now on a copy from pageable memory raises
            try:
                CollectiveContext(self._communicator).peer_addresses(addressed)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def _wrong(self, output: torch.Tensor, start: int, count: int) -> int:
        found = output[start : start + count]
        return int((bits(found) != bits(self._expected(start, count))).sum())

    def _expected(self, start: int, count: int) -> torch.Tensor:
        """Elements of this rank's result."""
        case, device, rank = self._case, self._context.device, self._rank
        if case.kind == "broadcast":
            return values(case, self._seeds[-1], start, count, device)
        if case.kind in ("all_gather", "all_to_all"):
            found = []
            while count:
                peer, at = divmod(start, case.count)
                length = min(count, case.count - at)
                begin = at + (rank * case.count if case.kind == "all_to_all" else 0)
                found.append(values(case, self._seeds[peer], begin, length, device))
                start, count = start + length, count - length
            return torch.cat(found)
        begin = start + (rank * case.count if case.kind == "reduce_scatter" else 0)
        dtype = getattr(torch, case.dtype)
        total = torch.zeros(count, dtype=torch.float32 if dtype.is_floating_point else dtype, device=device)
        for seed in self._seeds:
            total += values(case, seed, begin, count, device).to(total.dtype)
        return total.to(dtype)


class LargeCall(PerGroup):
    """Makes its case's call, and raises where a rank's result is wrong."""

    case: Case
    call = Call

    def close(self) -> None:
        communicator = next(iter(self._context._substrate.communicators.values()))
        wrong = communicator.exchange(self.call(self._context, communicator, self.case).run())
        super().close()
        if self._context.device.type == "cuda":
            torch.cuda.empty_cache()
        if any(wrong):
            raise AssertionError(f"{self.case}: wrong elements on ranks {dict(enumerate(wrong))}")


PAST = 1 << 31
CASES = {
    f"{kind}_{mib}_mib": Case(kind, dtype, mib * MIB // getattr(torch, dtype).itemsize // chunks)
    for kind, dtype, chunks in (("all_gather", "bfloat16", 1), ("reduce_scatter", "bfloat16", 2))
    for mib in (64, 128, 256, 1024)
} | {
    "reduce_scatter_of_fp32": Case("reduce_scatter", "float32", 128 * MIB),
    **{
        f"{kind}_past_2_31": Case(kind, "int8", PAST + 16)
        for kind in ("all_gather", "all_to_all", "broadcast", "reduce_scatter", "all_reduce")
    },
    "all_gather_past_2_31_with_a_rest": Case("all_gather", "int8", PAST + 5),
    "reduce_scatter_past_2_31_with_a_rest": Case("reduce_scatter", "int8", PAST + 5),
}
"""Bytes that a rank contributes, for two ranks; or elements of a chunk past 2^31."""
KINDS = ("all_gather", "all_to_all", "broadcast", "reduce_scatter", "all_reduce")
SMALL = {
    f"{kind}_small_{name}": Case(kind, dtype, *where)
    for kind in KINDS
    for dtype in ("bfloat16", "float32" if "reduce" in kind else "float8_e4m3fn")
    for name, where in {
        f"aligned_{dtype}": (50_000,),
        f"with_a_rest_{dtype}": (50_003,),
        f"all_unaligned_{dtype}": (50_000, 1, 0),
        f"one_unaligned_{dtype}": (50_000, 0, 3),
    }.items()
}
"""On addresses of every kind. A kernel that takes a word where none lies ends the rank's context on a GPU."""
globals().update({name: type(name, (LargeCall,), {"case": case}) for name, case in (CASES | SMALL).items()})
