"""Calls by the built-in kernels in CUDA C++ on real windows, checked bit for bit: eager ones, and three in a graph.

Each class is a pool policy, which makes its calls when the draw is over, all on one communicator. A wait of more than
ten seconds ends the kernel with an error.
"""

from __future__ import annotations

import gc
import secrets
from collections.abc import Iterator
from functools import reduce
from itertools import product
from typing import Any, NamedTuple

import torch

from harness.kernels.cuda.collectives import BLOCKS, HERE, THREADS, WORD, CudaCollectives, small
from harness.kernels.cuda.queued import QueuedCollectives, has_room
from harness.substrate.bits import bits
from harness.system.collectives import CollectiveContext, NotOwned
from harness.system.cuda import CudaSource
from harness.system.pools.per_group import PerGroup

POISON = 0x5A
FINITE = {2: ~0x4000, 4: ~0x40000000}
"""By width: what takes the highest bit of the exponent from a float, so that no sum is infinite."""
FOREVER = "SPIN_SECONDS=10"


class Impatient(CudaCollectives):
    """The built-in kernels, which give up."""

    ll, fused = (CudaSource(HERE / f"{name}.cu", FOREVER) for name in ("ll", "fused"))


class Queued(QueuedCollectives, Impatient):
    """The same, with every call by queues that they can take."""

    queued = CudaSource(HERE / "queues.cu", FOREVER)

    def is_small(self, *given: object) -> bool:
        return False

    def is_queued(self, kind: str, context: CollectiveContext, source: torch.Tensor, nbytes: int) -> bool:
        is_aligned = nbytes % WORD == 0 and context.alignment(source) >= WORD
        return has_room(source) and is_aligned and self.has_queues(context)


class Case(NamedTuple):
    """Rank r has chunks of `count + r · more` elements. `peers` and `own` say by how many elements the tensor that
    peers address and the other one lie off an aligned address, `own` on the last rank alone where peers do not address
    that one, too. `is_within`: output and source share memory."""

    kind: str
    dtype: str
    count: int
    op: str = "sum"
    peers: int = 0
    own: int = 0
    more: int = 0
    is_within: bool = False
    is_owned: bool = False
    """Whether the output of an all-reduce lies in the window, too."""


def values(dtype: torch.dtype, seed: int, count: int, device: torch.device, is_added: bool) -> torch.Tensor:
    """Elements of the data that belongs to a seed: any bits, or finite floats where they are reduced."""
    words = torch.arange(-(-count * dtype.itemsize // 8), device=device)
    words.add_(seed).mul_(0x1E3779B97F4A7C15)
    words.bitwise_xor_(words >> 32).mul_(0x3F58476D1CE4E5B9)
    words.bitwise_xor_(words >> 29)
    made = words.view(dtype)[:count]
    if is_added and dtype.is_floating_point:
        bits(made).bitwise_and_(FINITE[dtype.itemsize])
    return made


class Call:
    """One rank's end of a case: its tensors, and whether its result is right."""

    def __init__(self, communicator: Any, case: Case, space: torch.Tensor) -> None:
        self._case, self._rank, self._size = case, communicator.rank, communicator.size
        self._dtype, self._device = getattr(torch, case.dtype), space.device
        self.counts = [case.count + peer * case.more for peer in range(self._size)]
        self._start = sum(self.counts[: self._rank])
        mine, many = self.counts[self._rank], sum(self.counts)
        is_all = case.kind == "all_reduce"
        addressed = space.view(self._dtype)[case.peers :][: case.count if is_all else many]
        shift = case.own * (case.is_owned or self._rank == self._size - 1)
        local = torch.empty(shift + mine, dtype=self._dtype, device=self._device)[shift:]
        if case.is_owned:
            behind = case.peers + -(-case.count // 16) * 16 + shift
            local = space.view(self._dtype)[behind:][: case.count]
        if case.is_within:
            local = addressed if is_all else addressed[self._start : self._start + mine]
        gathers = case.kind == "all_gather"
        self.output, self.source = (addressed, local) if gathers else (local, addressed)
        self._context = CollectiveContext(communicator, () if is_all else self.counts)

    def fill(self, seed: int) -> None:
        self._seed = seed
        self.output.view(torch.uint8).fill_(POISON)
        self.source.copy_(self._values(self._rank))

    def make(self, kernels: Any) -> None:
        more = () if self._case.kind == "all_gather" else (self._case.op,)
        getattr(kernels, self._case.kind)(self._context, self.output, self.source, *more)

    def wrong(self) -> int:
        """How many elements are not as due. Waits."""
        return int((bits(self.output) != bits(self._expected())).sum())

    def _values(self, rank: int) -> torch.Tensor:
        reduces = self._case.kind != "all_gather"
        count = self.source.numel() if reduces else self.counts[rank]
        return values(self._dtype, self._seed + rank * 1_000_003, count, self._device, reduces)

    def _expected(self) -> torch.Tensor:
        everything = [self._values(rank) for rank in range(self._size)]
        if self._case.kind == "all_gather":
            return torch.cat(everything)
        if self._case.kind == "reduce_scatter":
            everything = [each[self._start : self._start + self.output.numel()] for each in everything]
        wide = [each.to(torch.float32 if each.is_floating_point() else torch.int32) for each in everything]
        if self._case.op in ("max", "min"):
            return reduce(getattr(torch, f"{self._case.op}imum"), wide).to(self._dtype)
        total = torch.zeros_like(wide[0])
        for each in wide:
            total += each
        return (total * (1.0 / self._size) if self._case.op == "avg" else total).to(self._dtype)


class Calls(PerGroup):
    """Makes its cases' calls, and raises where a rank's result is wrong."""

    cases: tuple[Case, ...] = ()
    kernels: type[Any] = Impatient

    def close(self) -> None:
        self._communicator = next(iter(self._context._substrate.communicators.values()))
        self._kernels, self._opened = self.kernels(), CollectiveContext(self._communicator)
        self._kernels.open(self._opened)
        pool = self._context.pool("calls")
        with pool.use():
            space = torch.empty(self._need(), dtype=torch.uint8, device=self._context.device)
        windows = [self._communicator.register(segment) for segment in pool.segments]
        (seed, *_) = self._communicator.exchange(secrets.randbits(60))
        wrong = [*self._wrong(space, seed)]
        everywhere = self._communicator.exchange(len(wrong))
        for window in windows:
            window.close()
        self._kernels.close(self._opened)
        del space
        gc.collect()  # errors that were caught may hold frames in a circle, and those the memory
        super().close()
        if self._context.device.type == "cuda":
            torch.cuda.empty_cache()
        if any(everywhere):
            raise AssertionError(f"wrong on ranks {dict(enumerate(everywhere))}; here {wrong}")

    def _need(self) -> int:
        return max(self._bytes(case) for case in self.cases)

    def _bytes(self, case: Case) -> int:
        size, width = self._communicator.size, getattr(torch, case.dtype).itemsize
        return -(-(size * (case.count + size * case.more) + case.peers + 32) * width // 256) * 256

    def _wrong(self, space: torch.Tensor, seed: int) -> Iterator[str]:
        for number, case in enumerate(self.cases):
            call = Call(self._communicator, case, space)
            call.fill(seed + number * 7_654_321)
            if case.count == 0:
                yield from self._not_refused(call)
                continue
            call.make(self._kernels)
            if many := call.wrong():
                yield f"{case}: {many}"

    def _not_refused(self, call: Call) -> Iterator[str]:
        try:
            call.make(self._kernels)
        except NotOwned:
            return
        yield "a call without elements was made"


class CallsByQueues(Calls):
    kernels = Queued


class Captured(Calls):
    """Three calls in one graph, which is replayed on new data."""

    replays = 10

    def _need(self) -> int:
        return sum(self._bytes(case) for case in self.cases)

    def _wrong(self, space: torch.Tensor, seed: int) -> Iterator[str]:
        device, begin, calls = self._context._substrate.device, 0, []
        for case in self.cases:
            calls.append(Call(self._communicator, case, space[begin:]))
            begin += self._bytes(case)
        with device.stream(1):
            for call in calls:  # kernels are loaded, and tables made, before a capture
                call.fill(seed)
                call.make(self._kernels)
            device.synchronize()
            with device.capture() as graph:
                for call in calls:
                    call.make(self._kernels)
            for turn in range(self.replays):
                for number, call in enumerate(calls):
                    call.fill(seed + 7_654_321 * (1 + turn * len(calls) + number))
                graph.replay()
                for case, call in zip(self.cases, calls, strict=True):
                    if many := call.wrong():
                        yield f"replay {turn}, {case}: {many}"
            device.synchronize()
            del graph


class CapturedByQueues(Captured):
    kernels = Queued


WIDTHS = {"uint8": 1, "int8": 1, "float8_e4m3fn": 1, "bfloat16": 2, "float16": 2, "float32": 4, "int32": 4, "int64": 8}
KINDS = "all_gather", "reduce_scatter", "all_reduce"
MIB = 1 << 20


def counts(width: int, size: int) -> list[int]:
    """Elements of a chunk: none, one, odd, and those on both sides of a packet, a word, a block, and a slot."""
    slot, block = small(size, BLOCKS) // width, THREADS * WORD // width
    beside = (*(each + by for each in (block, slot) for by in (-1, 0, 1)), slot + 70_001)
    return [0, 1, 2, 7, 16, 17, 1001, *beside]


def ops(dtype: str) -> tuple[str, ...]:
    return ("sum", "max", "min") if "int" in dtype else ("sum", "avg", "max", "min")


def cases(kind: str, dtype: str, size: int) -> Iterator[Case]:
    """Of one kernel's type."""
    width = WIDTHS[dtype]
    slot, all_of_it = small(size, BLOCKS, kind) // width, size if kind == "all_reduce" else 1
    reductions = ops(dtype) if kind != "all_gather" else ("sum",)
    for count in counts(width, size):
        yield Case(kind, dtype, count)
    for op, count in product(reductions, (37, slot + 1000 * all_of_it + 3)):
        yield Case(kind, dtype, count, op)
        yield Case(kind, dtype, count, op, is_within=True)
        for peers, own in ((1, 0), (0, 1), (3, 2), (16, 0)):
            yield Case(kind, dtype, count, op, peers, own)
        if kind != "all_reduce":
            yield Case(kind, dtype, count, op, more=5)
            continue
        for peers, own in ((0, 0), (1, 0), (0, 1), (3, 2)):
            yield Case(kind, dtype, count, op, peers, own, is_owned=True)


def large(kind: str) -> Iterator[Case]:
    for mib in (16, 24) if kind != "all_gather" else (16, 128):
        yield Case(kind, "bfloat16", mib * MIB // 2)
        yield Case(kind, "bfloat16", mib * MIB // 2 + 5, is_within=True)
        if kind == "all_reduce":
            yield Case(kind, "bfloat16", mib * MIB // 2 + 5, is_owned=True)


def graph(count: int) -> tuple[Case, ...]:
    return (
        Case("all_gather", "bfloat16", count),
        Case("reduce_scatter", "bfloat16", count),
        Case("all_reduce", "bfloat16", count),
    )


FLOATS, INTEGERS, MOVED = ("bfloat16", "float16", "float32"), ("int32", "int8", "uint8"), tuple(WIDTHS)


def of_all(kind: str, dtypes: tuple[str, ...], size: int) -> tuple[Case, ...]:
    return tuple(case for dtype in dtypes for case in cases(kind, dtype, size))


MADE: dict[str, tuple[type[Calls], int, tuple[Case, ...]]] = {
    "all_gather_2": (Calls, 2, of_all("all_gather", MOVED, 2)),
    **{
        f"{kind}_of_{name}_2": (Calls, 2, of_all(kind, dtypes, 2))
        for kind in ("reduce_scatter", "all_reduce")
        for name, dtypes in (("floats", FLOATS), ("integers", INTEGERS))
    },
    **{
        f"{kind}_of_{name}_by_queues_{size}": (CallsByQueues, size, of_all(kind, dtypes, size))
        for kind in ("reduce_scatter", "all_reduce")
        for name, dtypes, size in (("floats", FLOATS, 2), ("integers", INTEGERS, 2), ("floats", ("bfloat16",), 3))
    },
    **{f"{kind}_4": (Calls, 4, of_all(kind, ("bfloat16",), 4)) for kind in KINDS},
    **{f"{kind}_large_{size}": (Calls, size, tuple(large(kind))) for size in (2, 4) for kind in KINDS},
    "graph_by_queues_2": (CapturedByQueues, 2, graph(300_016)),
    **{
        f"graph_of_{count}_{size}": (Captured, size, graph(count))
        for size in (2, 4)
        for count in (1000, 500_003, 3_000_001)
    },
}
"""By name: the policy, ranks, and cases."""
globals().update({name: type(name, (made,), {"cases": cases}) for name, (made, _, cases) in MADE.items()})
