"""The allocator behind MemPools, called through its C callbacks as PyTorch does; NCCL is a log of calls."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

nccl = pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")

from harness.substrate.nccl.memory import NcclPool, SegmentAllocator  # noqa: E402
from harness.substrate.segment import Segment  # noqa: E402
from harness.trace.events import SegmentAllocated, SegmentDenied, SegmentFreed  # noqa: E402
from tests.tools.fake_nccl import Calls, fake_calls  # noqa: E402
from tests.tools.one_rank import Rank  # noqa: E402

ADDRESS, SIZE = 0x100000, 2 << 20
"""Where the log puts every segment, and how large the tests ask for one."""
ALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)


class Refusal(nccl.NCCLError):
    def __init__(self) -> None:
        self.status = 1


class Torch:
    """An allocator as PyTorch holds it: the addresses of two C functions."""

    def __init__(self, rank: Rank, calls: Calls) -> None:
        self.quarantined: list[Segment] = []
        self.expected = 0
        self._rank = rank
        self.allocator = SegmentAllocator(rank.substrate.denial, self.quarantined.append, self._expect)
        alloc, free = self.allocator.handle
        self._alloc, self._free = ALLOC(alloc), FREE(free)

    def _expect(self) -> None:
        self.expected += 1

    def pool(self, name: str = "tp") -> NcclPool:
        return NcclPool(self._rank.substrate.recorder, name, self.allocator)

    def allocate(self, size: int = SIZE) -> int | None:
        return self._alloc(size, 0, None)

    def free(self, address: int = ADDRESS, size: int = SIZE) -> None:
        self._free(address, size, 0, None)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []
    fake_calls(monkeypatch, calls)
    monkeypatch.setattr(torch._C, "_cuda_customAllocator", lambda alloc, free: (alloc, free), raising=False)
    monkeypatch.setattr(torch.cuda, "MemPool", lambda handle: SimpleNamespace(id=(0, 1), handle=handle))
    monkeypatch.setattr(torch.cuda, "use_mem_pool", lambda pool: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return calls


@pytest.fixture
def on(rank: Rank, calls: Calls) -> Torch:
    return Torch(rank, calls)


@contextmanager
def listed(monkeypatch: pytest.MonkeyPatch, *segments: dict[str, Any]) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "memory_snapshot", lambda ident: list(segments))
        yield


def test_the_pool_in_use_gets_a_segment_of_nccl_and_records_it(on: Torch, rank: Rank, calls: Calls) -> None:
    pool = on.pool()
    with pool.use():
        assert on.allocate() == ADDRESS
    assert calls == [("mem_alloc", SIZE)]
    assert rank.events == [SegmentAllocated(0, "tp", ADDRESS, SIZE)]


def test_the_outer_pool_grows_again_after_the_inner_one(on: Torch) -> None:
    outer, inner = on.pool("outer"), on.pool("inner")
    with outer.use():
        with inner.use():
            pass
        on.allocate()
    assert (len(outer.segments), len(inner.segments)) == (1, 0)


def test_no_pool_in_use_gets_no_segment(on: Torch, calls: Calls) -> None:
    assert (on.allocate(), calls) == (None, [])


def test_a_denied_segment_is_not_asked_of_nccl(on: Torch, rank: Rank, calls: Calls) -> None:
    pool = on.pool()
    rank.substrate.denial.is_due = True
    with pool.use():
        assert on.allocate() is None
    assert (pool.refusals, calls, rank.events) == (1, [], [SegmentDenied("tp", SIZE)])


def test_a_segment_that_nccl_refuses_is_a_refusal_whose_error_was_expected(
    on: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(size: int) -> int:
        raise Refusal

    pool = on.pool()
    monkeypatch.setattr(nccl, "mem_alloc", refuse)
    with pool.use():
        assert on.allocate() is None
    assert (pool.refusals, pool.segments, on.expected) == (1, [], 1)


def test_an_exception_of_a_subscriber_comes_up_when_the_pool_is_left(on: Torch) -> None:
    def subscriber(segment: Segment) -> None:
        raise RuntimeError("raised in a callback")

    pool = on.pool()
    pool.on_allocated.append(subscriber)
    with pytest.raises(RuntimeError, match="raised in a callback"), pool.use():
        assert on.allocate() == ADDRESS
    with pool.use():
        pass  # it comes up once


def test_a_freed_segment_goes_back_to_nccl(on: Torch, rank: Rank, calls: Calls) -> None:
    pool = on.pool()
    with pool.use():
        on.allocate()
    on.free()
    assert (calls[1:], pool.segments, on.quarantined) == ([("mem_free", ADDRESS)], [], [])
    assert rank.events[-1] == SegmentFreed(0, ())


def test_a_segment_that_is_freed_under_a_live_window_goes_into_quarantine(on: Torch, rank: Rank, calls: Calls) -> None:
    pool = on.pool()
    with pool.use():
        on.allocate()
    segment = pool.segments[0]
    window = rank.communicator(windows=True).register(Segment(9, "tp", rank.memory.base, SIZE))
    assert window is not None
    segment.windows.append(window)
    on.free()
    assert (on.quarantined, calls[1:]) == ([segment], [])


def test_a_snapshot_lists_the_pools_segments_in_pytorchs_order(on: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = on.pool()
    first, second = pool.allocated(8 << 20, SIZE), pool.allocated(2 << 20, SIZE)
    with listed(monkeypatch, {"address": second.address}, {"address": first.address}):
        assert pool.snapshot() == [second, first]


def test_the_blocks_that_are_handed_out_are_listed_with_their_place(on: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [("active_allocated", 512), ("inactive", 1024), ("active_allocated", 2048)]
    blocks = [{"state": state, "size": size} for state, size in states]
    with listed(monkeypatch, {"address": ADDRESS, "blocks": blocks}):
        assert on.pool().used() == [(ADDRESS, 512), (ADDRESS + 1536, 2048)]


@pytest.mark.parametrize(
    ("states", "is_reserved", "is_replaced"),
    [(("inactive",), False, True), (("inactive", "active_allocated"), False, False), (("inactive",), True, False)],
)
def test_a_mempool_is_replaced_if_nothing_in_it_is_in_use_or_reserved(
    states: tuple[str, ...], is_reserved: bool, is_replaced: bool, on: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, made = on.pool(), list[object]()
    pool.is_reserved = is_reserved
    monkeypatch.setattr(torch.cuda, "MemPool", made.append)
    with listed(monkeypatch, {"address": ADDRESS, "blocks": [{"state": state} for state in states]}):
        pool.trim()
    assert bool(made) is is_replaced
